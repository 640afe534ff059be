//! LoRAs and textual inversions: the same one as every trainer writes it draws the same picture. The golden tests beside
//! `src/diffusion/files/lora.rs` hold the merged weights to the reference; these rows hold what a request gets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::json;
use stablehand::diffusion::{AddOnFolders, Model, Pipeline};
use stablehand::domain::{GenerationInput, InputRules};
use stablehand::runtime::{DeviceChoice, Runtime};

use super::EQUAL;
use super::weights::{renamed, zeros};
use crate::checkpoints::{Tensor, Tensors, write};
use crate::drawing::psnr;

/// A row: an add-on's file, and what becomes of it.
pub struct Row {
    what: &'static str,
    kind: Kind,
    /// The file's name. A LoRA's and a textual inversion's is its name in requests, too.
    file: &'static str,
    becomes: Becomes,
    made: fn() -> Tensors,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lora,
    TextualInversion,
}

pub enum Becomes {
    /// It draws what the plain file draws, which changes the picture.
    Drawn,
    /// It draws what this plain file draws.
    DrawnAs(fn() -> Tensors),
    /// The request is refused in one sentence with all of these words.
    Refused(&'static [&'static str]),
}

/// The modules that the golden LoRA changes: in kohya's names, with diffusers' dots, and as the original code has them.
const MODULES: [(&str, &str, &str); 8] = [
    (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
    ),
    (
        "lora_unet_up_blocks_2_attentions_1_transformer_blocks_0_attn2_to_out_0",
        "unet.up_blocks.2.attentions.1.transformer_blocks.0.attn2.to_out.0",
        "output_blocks.5.1.transformer_blocks.0.attn2.to_out.0",
    ),
    (
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "middle_block.1.transformer_blocks.0.attn2.to_k",
    ),
    (
        "lora_unet_down_blocks_1_attentions_0_proj_in",
        "unet.down_blocks.1.attentions.0.proj_in",
        "input_blocks.3.1.proj_in",
    ),
    (
        "lora_unet_down_blocks_0_resnets_0_conv1",
        "unet.down_blocks.0.resnets.0.conv1",
        "input_blocks.1.0.in_layers.2",
    ),
    (
        "lora_unet_down_blocks_0_downsamplers_0_conv",
        "unet.down_blocks.0.downsamplers.0.conv",
        "input_blocks.2.0.op",
    ),
    (
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        "text_model.encoder.layers.0.self_attn.q_proj",
    ),
    (
        "lora_te_text_model_encoder_layers_2_mlp_fc1",
        "text_encoder.text_model.encoder.layers.2.mlp.fc1",
        "text_model.encoder.layers.2.mlp.fc1",
    ),
];

/// The tensors of a golden file.
fn golden(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/lora/{name}.safetensors"));
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView)| {
        let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), Tensor { dtype, shape, bytes })
    };
    file.iter().map(tensor).collect()
}

fn kohya() -> Tensors {
    golden("kohya")
}

fn word() -> Tensors {
    golden("word.embedding")
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// Single floats, each changed.
fn mapped(tensors: &Tensors, dtype: Dtype, map: impl Fn(f32) -> Vec<u8>) -> Tensors {
    let each = tensors.iter().map(|(name, tensor)| {
        let bytes = floats(tensor).into_iter().flat_map(&map).collect();
        (name.clone(), Tensor { dtype, bytes, ..tensor.clone() })
    });
    each.collect()
}

fn half(tensors: &Tensors) -> Tensors {
    mapped(tensors, Dtype::F16, |value| f16::from_f32(value).to_le_bytes().to_vec())
}

fn from_half(tensors: &Tensors) -> Tensors {
    mapped(tensors, Dtype::F32, |value| f16::from_f32(value).to_f32().to_le_bytes().to_vec())
}

fn brain(tensors: &Tensors) -> Tensors {
    mapped(tensors, Dtype::BF16, |value| bf16::from_f32(value).to_le_bytes().to_vec())
}

fn from_brain(tensors: &Tensors) -> Tensors {
    mapped(tensors, Dtype::F32, |value| bf16::from_f32(value).to_f32().to_le_bytes().to_vec())
}

/// The golden LoRA with each module renamed by its line of [`MODULES`], and `down` and `up` for the ends of its matrices.
fn called(name: impl Fn((&str, &str, &str)) -> String, down: &str, up: &str) -> Tensors {
    renamed(&kohya(), |tensor| {
        let (module, end) = tensor.split_once('.').unwrap();
        let line = MODULES.into_iter().find(|(kohya, ..)| *kohya == module).unwrap();
        let end = match end {
            "lora_down.weight" => down,
            "lora_up.weight" => up,
            end => end,
        };
        format!("{}.{end}", name(line))
    })
}

/// The same without alphas, which are multiplied into the matrices.
fn without_alphas(mut tensors: Tensors, up: &str) -> Tensors {
    let modules: Vec<String> =
        tensors.keys().filter_map(|name| name.strip_suffix(".alpha")).map(str::to_owned).collect();
    for module in modules {
        let value = floats(&tensors.remove(&format!("{module}.alpha")).unwrap())[0];
        let matrix = tensors.get_mut(&format!("{module}.{up}")).unwrap();
        #[expect(clippy::cast_precision_loss, reason = "a rank is small")]
        let factor = value / matrix.shape[1] as f32;
        matrix.bytes = floats(matrix).iter().flat_map(|number| (number * factor).to_le_bytes()).collect();
    }
    tensors
}

/// The golden LoRA with another tensor.
fn with(name: &str, shape: &[usize]) -> Tensors {
    let mut tensors = kohya();
    tensors.insert(name.to_owned(), zeros(Dtype::F32, shape));
    tensors
}

fn only(tensors: &[(&str, &[usize])]) -> Tensors {
    tensors.iter().map(|(name, shape)| ((*name).to_owned(), zeros(Dtype::F32, shape))).collect()
}

const Q: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

/// One module's tensors with these ends, in one of LyCORIS' forms.
macro_rules! module {
    ($($end:literal $shape:expr),*) => {
        || only(&[$((concat!("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.", $end), &$shape)),*])
    };
}

impl Row {
    pub const fn lora(what: &'static str, becomes: Becomes, made: fn() -> Tensors) -> Self {
        Self { what, kind: Kind::Lora, file: "fur.safetensors", becomes, made }
    }

    const fn inversion(what: &'static str, becomes: Becomes, made: fn() -> Tensors) -> Self {
        Self { what, kind: Kind::TextualInversion, file: "zorblax.safetensors", becomes, made }
    }
}

#[rustfmt::skip] // a row is a line
pub const ROWS: &[Row] = &[
    // The names of trainers.
    Row::lora("kohya's names", Becomes::Drawn, kohya),
    Row::lora("kohya's names with the original code's", Becomes::Drawn, || called(|(kohya, _, original)| match kohya.starts_with("lora_unet_") {
        true => format!("lora_unet_{}", original.replace('.', "_")),
        false => kohya.to_owned(),
    }, "lora_down.weight", "lora_up.weight")),
    Row::lora("lora_te1_ for the text encoder", Becomes::Drawn, || called(|(kohya, ..)| kohya.replace("lora_te_", "lora_te1_"), "lora_down.weight", "lora_up.weight")),
    Row::lora("ComfyUI's names", Becomes::Drawn, || called(|(kohya, _, original)| match kohya.starts_with("lora_unet_") {
        true => format!("diffusion_model.{original}"),
        false => format!("text_encoders.clip_l.transformer.{original}"),
    }, "lora_down.weight", "lora_up.weight")),
    Row::lora("PEFT's names", Becomes::Drawn, || without_alphas(called(|(_, dotted, _)| dotted.to_owned(), "lora_A.weight", "lora_B.weight"), "lora_B.weight")),
    Row::lora("PEFT's names with an adapter", Becomes::Drawn, || without_alphas(called(|(_, dotted, _)| dotted.to_owned(), "lora_A.default.weight", "lora_B.default.weight"), "lora_B.default.weight")),
    Row::lora("diffusers' names", Becomes::Drawn, || without_alphas(called(|(_, dotted, _)| dotted.to_owned(), "lora.down.weight", "lora.up.weight"), "lora.up.weight")),
    Row::lora("diffusers' names of linear layers", Becomes::Drawn, || without_alphas(called(|(_, dotted, _)| dotted.to_owned(), "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), "lora_linear_layer.up.weight")),
    // Numbers.
    Row::lora("half precision", Becomes::DrawnAs(|| from_half(&kohya())), || half(&kohya())),
    Row::lora("bfloat16", Becomes::DrawnAs(|| from_brain(&kohya())), || brain(&kohya())),
    Row::lora("no alphas", Becomes::Drawn, || without_alphas(kohya(), "lora_up.weight")),
    Row::lora("a weight that is no number", Becomes::Refused(&["fur"]), || {
        let mut tensors = kohya();
        tensors.get_mut(&format!("{Q}.lora_up.weight")).unwrap().bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        tensors
    }),
    // What lies beside it.
    Row::lora("a module that the model lacks", Becomes::Drawn, || {
        let mut tensors = with("lora_unet_up_blocks_9_resnets_0_conv1.lora_down.weight", &[1, 48, 3, 3]);
        tensors.insert("lora_unet_up_blocks_9_resnets_0_conv1.lora_up.weight".to_owned(), zeros(Dtype::F32, &[48, 1, 1, 1]));
        tensors
    }),
    // Files that are something else.
    Row::lora("another width", Becomes::Refused(&["fur", "attn1_to_q"]), module!("lora_down.weight" [4, 320], "lora_up.weight" [320, 4])),
    Row::lora("half of a module", Becomes::Refused(&["fur", "attn1_to_q"]), module!("lora_down.weight" [4, 48])),
    Row::lora("no tensors", Becomes::Refused(&["fur", "it is empty"]), Tensors::new),
    Row::lora("Stable Diffusion XL's", Becomes::Refused(&["Stable Diffusion XL"]), || with("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", &[4, 160])),
    Row::lora("FLUX's", Becomes::Refused(&["FLUX"]), || only(&[("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", &[4, 48])])),
    Row::lora("a textual inversion", Becomes::Refused(&["fur"]), word),
    // Textual inversions.
    Row::inversion("A1111's tensor", Becomes::Drawn, word),
    Row::inversion("a tensor with the word's name", Becomes::Drawn, || renamed(&word(), |_| "zorblax".to_owned())),
    Row::inversion("a tensor with another word's name", Becomes::Drawn, || renamed(&word(), |_| "<other>".to_owned())),
    Row::inversion("clip_l", Becomes::Drawn, || renamed(&word(), |_| "clip_l".to_owned())),
    Row::inversion("half precision", Becomes::DrawnAs(|| from_half(&word())), || half(&word())),
    Row::inversion("bfloat16", Becomes::DrawnAs(|| from_brain(&word())), || brain(&word())),
    Row::inversion("one vector without an axis", Becomes::DrawnAs(|| {
        let tensor = &word()["emb_params"];
        [("emb_params".to_owned(), Tensor { shape: vec![1, 160], bytes: tensor.bytes[..640].to_vec(), dtype: Dtype::F32 })].into()
    }), || {
        let tensor = &word()["emb_params"];
        [("emb_params".to_owned(), Tensor { shape: vec![160], bytes: tensor.bytes[..640].to_vec(), dtype: Dtype::F32 })].into()
    }),
    Row::inversion("Stable Diffusion XL's", Becomes::Refused(&["zorblax", "Stable Diffusion XL"]), || only(&[("clip_l", &[2, 160]), ("clip_g", &[2, 1280])])),
    Row::inversion("Stable Diffusion 2's width", Becomes::Refused(&["zorblax", "1024 wide, as Stable Diffusion 2's are"]), || only(&[("emb_params", &[2, 1024])])),
    Row::inversion("too many vectors", Becomes::Refused(&["zorblax", "vectors"]), || only(&[("emb_params", &[80, 160])])),
    Row::inversion("two tensors", Becomes::Refused(&["zorblax", "2 tensors"]), || only(&[("a", &[1, 160]), ("b", &[1, 160])])),
];

/// The built-in model with the add-ons of a folder.
struct Studio {
    pipeline: Pipeline,
    rules: InputRules,
}

impl Studio {
    fn new(folder: &Path) -> Self {
        let folders = AddOnFolders {
            loras: folder.join("loras"),
            controlnets: folder.join("controlnets"),
            embeddings: folder.join("embeddings"),
            wildcards: folder.join("wildcards"),
            upscalers: folder.join("upscalers"),
            tiny_vaes: folder.join("tiny-vaes"),
            lora_memory: 0,
            look_every: Duration::ZERO,
        };
        let model = Model::open(None, Some(folders)).unwrap();
        let pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
        Self { pipeline, rules: model.rules().clone() }
    }

    fn draw(&mut self, kind: Option<Kind>) -> Result<Vec<u8>, String> {
        let prompt = match kind {
            Some(Kind::TextualInversion) => "a red heart, zorblax",
            _ => "a red heart",
        };
        let lora = (kind == Some(Kind::Lora)).then_some("fur");
        let request = json!({
            "prompt": prompt, "lora": lora, "width": 64, "height": 64, "num_inference_steps": 2,
            "guidance_scale": 3, "scheduler": "DDIM",
        });
        let input = GenerationInput::parse(&request, &self.rules).map_err(|error| error.to_string())?;
        let pictures = self.pipeline.draw(&input, 7).map_err(|error| error.to_string())?;
        Ok(pictures.into_iter().next().unwrap().image.pixels)
    }
}

/// Puts a file into its folder, draws with it and removes it.
fn drawn_with(studio: &mut Studio, folder: &Path, row: &Row, tensors: &Tensors) -> Result<Vec<u8>, String> {
    let path = folder.join(if row.kind == Kind::Lora { "loras" } else { "embeddings" }).join(row.file);
    write(tensors, &path);
    let drawn = studio.draw(Some(row.kind));
    fs::remove_file(path).unwrap();
    drawn
}

fn wrong_with(row: &Row, studio: &mut Studio, folder: &Path, plain: &[u8]) -> Result<(), String> {
    let problem = |what: String| Err(format!("  {}: {what}", row.what));
    let drawn = drawn_with(studio, folder, row, &(row.made)());
    let like = match (&row.becomes, drawn) {
        (Becomes::Refused(words), Err(sentence)) => {
            let missing = words.iter().find(|word| !sentence.contains(**word));
            return match missing {
                Some(word) => problem(format!("no '{word}' in: {sentence}")),
                None if sentence.contains('\n') => problem(format!("more than one line: {sentence}")),
                None => Ok(()),
            };
        }
        (Becomes::Refused(_), Ok(_)) => return problem("it draws".to_owned()),
        (_, Err(sentence)) => return problem(format!("it is refused: {sentence}")),
        (Becomes::Drawn, Ok(drawn)) => {
            let golden = if row.kind == Kind::Lora { kohya() } else { word() };
            (drawn, drawn_with(studio, folder, row, &golden)?)
        }
        (Becomes::DrawnAs(other), Ok(drawn)) => (drawn, drawn_with(studio, folder, row, &other())?),
    };
    let (drawn, reference) = like;
    let (likeness, change) = (psnr(&drawn, &reference), psnr(&drawn, plain));
    match likeness >= EQUAL && change < 40.0 {
        true => Ok(()),
        false => problem(format!("{likeness:.1} dB to the plain file, {change:.1} dB to none")),
    }
}

/// Runs these rows, and reports all that are wrong at once.
#[track_caller]
pub fn hold(rows: &[Row]) {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["loras", "embeddings"] {
        fs::create_dir(folder.path().join(kind)).unwrap();
    }
    let mut studio = Studio::new(folder.path());
    let plain = studio.draw(None).unwrap();
    let wrong: Vec<String> =
        rows.iter().filter_map(|row| wrong_with(row, &mut studio, folder.path(), &plain).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn loras_and_textual_inversions() {
    hold(ROWS);
}
