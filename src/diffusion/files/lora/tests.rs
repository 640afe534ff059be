//! Against PEFT's merged weights (`tests/golden/make_lora.py`), and against malformed files.

use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Of every merged weight the golden keeps one value of so many.
const STRIDE: usize = 13;

/// A model's weights as a checkpoint has them.
struct Weights(HashMap<String, Vec<f32>>);

impl AddTo for Weights {
    fn add(&mut self, parameter: &str, delta: &[f32]) -> Result<(), String> {
        let values = self.0.get_mut(parameter).ok_or_else(|| format!("there is no {parameter}"))?;
        assert_eq!(values.len(), delta.len(), "{parameter}");
        values.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
        Ok(())
    }
}

fn tiny_sd(part: ModelPart) -> TensorFile {
    let file = match part {
        ModelPart::UNet => "unet/diffusion_pytorch_model.fp16.safetensors",
        _ => "text_encoder/model.fp16.safetensors",
    };
    TensorFile::open(Path::new(&format!("{ROOT}/models/tiny-sd/{file}"))).unwrap()
}

fn names() -> ModuleNames {
    let parameters = [ModelPart::UNet, ModelPart::TextEncoder].into_iter().flat_map(|part| {
        let file = tiny_sd(part);
        let shapes: Vec<_> = file
            .tensor_names()
            .into_iter()
            .map(|name| Target { part, shape: file.shape(&name).unwrap().to_vec(), weight: name })
            .collect();
        shapes
    });
    ModuleNames::new(parameters)
}

fn golden(name: &str) -> std::path::PathBuf {
    format!("{ROOT}/tests/golden/lora/{name}.safetensors").into()
}

#[test]
fn merged_weights_equal_those_of_peft() {
    let names = names();
    for (name, scale) in
        [("kohya", 0.8), ("original_half", 1.0), ("cp", 1.0), ("peft", 1.0), ("old_diffusers", 1.0)]
    {
        let lora = LoraFile::open(name, &golden(name), &names).unwrap();
        let expected = TensorFile::open(&golden(&format!("{name}.merged"))).unwrap();
        let mut compared = 0;
        for part in [ModelPart::UNet, ModelPart::TextEncoder] {
            let base = tiny_sd(part);
            let weights = base.tensor_names().into_iter().filter(|name| expected.shape(name).is_some());
            let weights = weights.map(|name| (name.clone(), base.values(&name).unwrap())).collect();
            let mut weights = Weights(weights);
            assert_eq!(lora.touches(part), !weights.0.is_empty(), "{name}");
            // A LoRA that changed more would find no weight to add to.
            lora.merge(part, scale, &mut weights).unwrap();
            for (parameter, values) in weights.0 {
                let expected = expected.values(&parameter).unwrap();
                let kept: Vec<f32> = values.into_iter().step_by(STRIDE).collect();
                assert_eq!(kept.len(), expected.len(), "{name}: {parameter}");
                let apart = kept.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart <= 1e-6, "{name}: {parameter} is {apart} off");
                compared += 1;
            }
        }
        assert_eq!(compared, expected.tensor_names().len(), "{name}");
    }
}

/// A file with these tensors, all of them of ones.
fn file_of(tensors: &[(&str, &[usize])], metadata: &Value) -> tempfile::NamedTempFile {
    let (mut header, mut end) = (Map::new(), 0);
    for (name, shape) in tensors {
        let bytes = 4 * shape.iter().product::<usize>();
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes]}),
        );
        end += bytes;
    }
    if !metadata.is_null() {
        header.insert("__metadata__".to_owned(), metadata.clone());
    }
    written(&Value::Object(header).to_string(), &1.0_f32.to_le_bytes().repeat(end / 4))
}

fn written(header: &str, data: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let length = u64::try_from(header.len()).unwrap().to_le_bytes();
    fs::write(file.path(), [&length[..], header.as_bytes(), data].concat()).unwrap();
    file
}

/// Two modules of a model whose text embeddings are 8 wide.
fn small() -> ModuleNames {
    let parameter = |part, name: &str, shape: &[usize]| Target {
        part,
        weight: format!("{name}.weight"),
        shape: shape.to_vec(),
    };
    ModuleNames::new([
        parameter(ModelPart::UNet, "conv_in", &[4, 2, 3, 3]),
        parameter(ModelPart::UNet, "mid.attn2.to_k", &[4, 8]),
        parameter(ModelPart::TextEncoder, "text_model.q_proj", &[8, 8]),
    ])
}

fn refusal(tensors: &[(&str, &[usize])]) -> String {
    let file = file_of(tensors, &Value::Null);
    let error = LoraFile::open("fox", file.path(), &small()).err().expect("a refusal");
    error.to_string().strip_prefix("the LoRA fox cannot be used: ").unwrap().to_owned()
}

#[test]
fn files_that_are_not_a_lora_for_this_model_are_refused_with_the_reason() {
    const DOWN: &str = "lora_unet_mid_attn2_to_k.lora_down.weight";
    const UP: &str = "lora_unet_mid_attn2_to_k.lora_up.weight";
    for (tensors, sentence) in [
        (vec![], "it is empty"),
        (vec![("emb_params", &[1, 8][..])], "it does not contain a LoRA but tensors such as emb_params"),
        (
            vec![("lora_unet_out.lora_down.weight", &[1, 8][..]), ("lora_unet_out.lora_up.weight", &[1, 1])],
            "this model has none of the 1 modules that it changes, such as lora_unet_out",
        ),
        (
            vec![(UP, &[4, 1][..])],
            "it has lora_unet_mid_attn2_to_k.lora_up.weight without the matching down matrix",
        ),
        (
            vec![(DOWN, &[1, 8][..])],
            "it has lora_unet_mid_attn2_to_k.lora_down.weight without the matching up matrix",
        ),
        (vec![("lora_unet_conv_in.alpha", &[][..])], "it has a factor but no matrices for lora_unet_conv_in"),
        (
            vec![(DOWN, &[1, 8][..]), (UP, &[5, 1])],
            "its tensor lora_unet_mid_attn2_to_k.lora_up.weight has the shape [5, 1]; this model's \
             mid.attn2.to_k.weight needs [4, 1]",
        ),
        (
            vec![(DOWN, &[1, 1024][..]), (UP, &[4, 1])],
            "it is for Stable Diffusion 2, whose text embeddings are 1024 wide; this model's are 8",
        ),
        (
            vec![("lora_te2_text_model_q_proj.lora_down.weight", &[1, 8][..])],
            "it is for Stable Diffusion XL, judging by its tensor lora_te2_text_model_q_proj.lora_down.weight; this is a Stable \
             Diffusion v1 model",
        ),
        (
            vec![(DOWN, &[1, 8][..]), (UP, &[4, 1]), ("lora_unet_mid_attn2_to_k.dora_scale", &[4])],
            "it is DoRA, judging by its tensor lora_unet_mid_attn2_to_k.dora_scale; only LoRA and LoCon are supported",
        ),
    ] {
        assert_eq!(refusal(&tensors), sentence);
    }
}

#[test]
fn a_tensor_with_nan_or_infinite_values_is_refused_by_name() {
    let file = file_of(
        &[
            ("lora_unet_mid_attn2_to_k.lora_down.weight", &[1, 8]),
            ("lora_unet_mid_attn2_to_k.lora_up.weight", &[4, 1]),
        ],
        &Value::Null,
    );
    let mut bytes = fs::read(file.path()).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file.path(), bytes).unwrap();
    let lora = LoraFile::open("fox", file.path(), &small()).unwrap();
    let mut weights = Weights([("mid.attn2.to_k.weight".to_owned(), vec![0.0; 32])].into());
    let error = lora.merge(ModelPart::UNet, 1.0, &mut weights).unwrap_err().to_string();
    assert!(
        error.contains("lora_unet_mid_attn2_to_k.lora_up.weight has values that are NaN or infinite"),
        "{error}"
    );
}

#[test]
fn modules_that_the_model_lacks_are_skipped_if_it_has_others() {
    let file = file_of(
        &[
            ("lora_unet_mid_attn2_to_k.lora_down.weight", &[2, 8]),
            ("lora_unet_mid_attn2_to_k.lora_up.weight", &[4, 2]),
            ("lora_unet_mid_attn9_to_k.lora_down.weight", &[2, 8]),
            ("a word", &[1]),
        ],
        &json!({"sshs_model_hash": "0123456789abcdef"}),
    );
    let lora = LoraFile::open("fox", file.path(), &small()).unwrap();
    assert_eq!((lora.touches(ModelPart::UNet), lora.touches(ModelPart::TextEncoder)), (true, false));
    assert_eq!(lora.short_hash(), "0123456789ab");
    let mut weights = Weights([("mid.attn2.to_k.weight".to_owned(), vec![0.5; 32])].into());
    lora.merge(ModelPart::UNet, 0.5, &mut weights).unwrap();
    assert_eq!(weights.0["mid.attn2.to_k.weight"], [1.5; 32]);
}

#[test]
fn the_names_of_every_trainer_merge_the_same() {
    for (q_proj, to_k) in [
        ("lora_te_text_model_q_proj", "lora_unet_mid_attn2_to_k"),
        ("lora_te1_text_model_q_proj", "lora_unet_mid_attn2_to_k"),
        ("text_encoder.text_model.q_proj", "unet.mid.attn2.to_k"),
        ("text_encoders.clip_l.transformer.text_model.q_proj", "diffusion_model.mid.attn2.to_k"),
    ] {
        for [down, up] in [["lora_down", "lora_up"], ["lora_A", "lora_B"]] {
            let [a, b, c, d] = [(q_proj, down), (q_proj, up), (to_k, down), (to_k, up)]
                .map(|(module, matrix)| format!("{module}.{matrix}.weight"));
            let alpha = format!("{to_k}.alpha");
            let shapes: [(&str, &[usize]); 5] =
                [(&a, &[2, 8]), (&b, &[8, 2]), (&c, &[2, 8]), (&d, &[4, 2]), (&alpha, &[])];
            let file = file_of(&shapes, &Value::Null);
            let lora = LoraFile::open("fox", file.path(), &small()).unwrap();
            let mut weights = Weights(
                [("text_model.q_proj.weight", 64), ("mid.attn2.to_k.weight", 32)]
                    .map(|(name, count)| (name.to_owned(), vec![0.0; count]))
                    .into(),
            );
            lora.merge(ModelPart::TextEncoder, 1.0, &mut weights).unwrap();
            lora.merge(ModelPart::UNet, 1.0, &mut weights).unwrap();
            assert_eq!(weights.0["text_model.q_proj.weight"], [2.0; 64], "{a}");
            assert_eq!(weights.0["mid.attn2.to_k.weight"], [1.0; 32], "{c}");
        }
    }
}

#[test]
fn the_first_text_encoder_of_xl_is_told_by_the_unet_and_by_the_second() {
    let [down, up] = ["down", "up"].map(|role| format!("lora_te1_text_model_q_proj.lora_{role}.weight"));
    for (tensors, family) in [
        (vec![("lora_unet_mid_attn2_to_k.lora_down.weight", &[1, 2048][..])], "Stable Diffusion XL"),
        (vec![("lora_te2_text_model_q_proj.lora_down.weight", &[1, 1280][..])], "Stable Diffusion XL"),
        (vec![("lora_unet_mid_attn2_to_k.lora_down.weight", &[1, 1024][..])], "Stable Diffusion 2"),
    ] {
        let te1: [(&str, &[usize]); 2] = [(&down, &[1, 8]), (&up, &[8, 1])];
        let sentence = refusal(&[&te1[..], &tensors].concat());
        assert!(sentence.starts_with(&format!("it is for {family}")), "{sentence}");
    }
}

#[test]
fn a_byte_order_mark_in_front_of_the_configuration_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [(&str, &[usize]); 2] =
        [("unet.mid.attn2.to_k.lora_A.weight", &[2, 8]), ("unet.mid.attn2.to_k.lora_B.weight", &[4, 2])];
    let path = folder.path().join("adapter_model.safetensors");
    fs::copy(file_of(&tensors, &Value::Null).path(), &path).unwrap();
    fs::write(folder.path().join("adapter_config.json"), "\u{feff}{\"lora_alpha\": 6}").unwrap();
    let lora = LoraFile::open("fox", &path, &small()).unwrap();
    let mut weights = Weights([("mid.attn2.to_k.weight".to_owned(), vec![0.0; 32])].into());
    lora.merge(ModelPart::UNet, 1.0, &mut weights).unwrap();
    assert_eq!(weights.0["mid.attn2.to_k.weight"], [6.0; 32]);
}

#[test]
fn factors_of_a_module_multiply_its_product() {
    const MODULE: &str = "lora_unet_mid_attn2_to_k";
    let merged = |factors: &[(&str, f32)]| {
        let names: Vec<_> = factors.iter().map(|(name, _)| format!("{MODULE}.{name}")).collect();
        let [down, up] = ["down", "up"].map(|role| format!("{MODULE}.lora_{role}.weight"));
        let mut tensors: Vec<(&str, &[usize])> = vec![(&down, &[2, 8]), (&up, &[4, 2])];
        tensors.extend(names.iter().map(|name| (name.as_str(), &[][..])));
        let file = file_of(&tensors, &Value::Null);
        let mut bytes = fs::read(file.path()).unwrap();
        let start = bytes.len() - 4 * factors.len();
        bytes.truncate(start);
        bytes.extend(factors.iter().flat_map(|(_, value)| value.to_le_bytes()));
        fs::write(file.path(), bytes).unwrap();
        let lora = LoraFile::open("fox", file.path(), &small()).unwrap();
        let mut weights = Weights([("mid.attn2.to_k.weight".to_owned(), vec![0.0; 32])].into());
        lora.merge(ModelPart::UNet, 1.0, &mut weights).unwrap();
        weights.0["mid.attn2.to_k.weight"][0]
    };
    for (factors, value) in [
        (&[][..], 2.0),
        (&[("alpha", 1.0)], 1.0),
        (&[("scale", 3.0)], 6.0),
        (&[("alpha", 1.0), ("scale", 3.0)], 6.0),
        (&[("scalar", 0.5)], 1.0),
        (&[("alpha", 1.0), ("scalar", 0.5)], 0.5),
    ] {
        let found = merged(factors);
        assert!((found - value).abs() < 1e-6, "{factors:?}: {found}");
    }
}

/// Any JSON that may stand for a tensor.
fn tensor() -> impl Strategy<Value = Value> {
    let size = prop_oneof![0_u64..9, Just(u64::MAX), Just(1 << 40)];
    let shape = prop::collection::vec(size, 0..5);
    let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "F64", "I64", "BOOL", "?"]);
    let offset = prop_oneof![0_u64..200, Just(u64::MAX), Just(1 << 62)];
    (dtype, shape, offset.clone(), offset).prop_map(
        |(dtype, shape, start, end)| json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_files_are_refused_and_never_panic(
        tensors in prop::collection::vec((
            "(lora_unet_|unet\\.|lora_te_|)(conv_in|mid_attn2_to_k|text_model\\.q_proj|x)\
             \\.(lora_down\\.weight|lora_up\\.weight|lora_mid\\.weight|alpha|lora_A\\.weight|hada_w1_a|é)",
            tensor(),
        ), 0..6),
        metadata in prop::option::of("\\{.{0,20}|[a-z]{0,9}"),
        data in prop::collection::vec(any::<u8>(), 0..300),
        cut in 0_usize..400,
    ) {
        let mut header: Map<String, Value> = tensors.into_iter().collect();
        if let Some(metadata) = metadata {
            header.insert("__metadata__".to_owned(), json!({"lora_adapter_metadata": metadata}));
        }
        let file = written(&Value::Object(header).to_string(), &data);
        for cut in [usize::MAX, cut] {
            let mut bytes = fs::read(file.path()).unwrap();
            bytes.truncate(cut);
            fs::write(file.path(), bytes).unwrap();
            let Ok(lora) = LoraFile::open("fox", file.path(), &small()) else { continue };
            for (part, weight, len) in
                [(ModelPart::UNet, "conv_in", 72), (ModelPart::UNet, "mid.attn2.to_k", 32), (ModelPart::TextEncoder, "text_model.q_proj", 64)]
            {
                let mut weights = Weights([(format!("{weight}.weight"), vec![0.0; len])].into());
                let _ = lora.merge(part, 1.0, &mut weights);
            }
        }
    }
}
