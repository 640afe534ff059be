//! Against the merged weights of PEFT and LyCORIS (`tests/golden/make_lora.py`, `make_lora_kinds.py`), and against malformed
//! files.

mod hostile;
mod kinds;
mod words;

use std::collections::HashMap;
use std::fs;

use serde_json::{Map, Value, json};

use super::*;
use crate::domain::{BlockWeights, Lora, LoraOrigin};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A model's parameters as a checkpoint has them.
struct Weights(HashMap<String, Vec<f32>>);

impl Weights {
    /// Zeros, or whatever value.
    fn of<const N: usize>(parameters: [(&str, usize); N], value: f32) -> Self {
        Self(parameters.map(|(name, count)| (name.to_owned(), vec![value; count])).into())
    }
}

impl Parameters for Weights {
    fn values(&self, parameter: &str) -> Result<Vec<f32>, String> {
        self.0.get(parameter).cloned().ok_or_else(|| format!("there is no {parameter}"))
    }

    fn replace(&mut self, parameter: &str, values: &[f32]) -> Result<(), String> {
        assert_eq!(self.values(parameter)?.len(), values.len(), "{parameter}");
        self.0.insert(parameter.to_owned(), values.to_vec());
        Ok(())
    }
}

/// The same scale everywhere.
fn scales(scale: f32) -> LoraScales {
    scales_in(scale, None)
}

fn scales_in(scale: f32, blocks: Option<&str>) -> LoraScales {
    let mut scales = LoraScales::default();
    scales.add(&Lora {
        name: String::new(),
        unet: scale,
        text_encoder: scale,
        blocks: blocks.map(|blocks| BlockWeights::parse(blocks).unwrap()),
        origin: LoraOrigin::Field,
    });
    scales
}

impl LoraFile {
    /// Merges it alone.
    fn merge(&self, part: ModelPart, scale: f32, weights: &mut Weights) -> Result<(), LoraError> {
        merge_loras(&[(self, &scales(scale))], part, weights)
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

/// A few modules of a model whose text embeddings are 8 wide.
fn small() -> ModuleNames {
    let parameter = |part, name: &str, shape: &[usize]| Target {
        part,
        parameter: name.to_owned(),
        shape: shape.to_vec(),
    };
    ModuleNames::new([
        parameter(ModelPart::UNet, "conv_in.weight", &[4, 2, 3, 3]),
        parameter(ModelPart::UNet, "conv_in.bias", &[4]),
        parameter(ModelPart::UNet, "norm.weight", &[4]),
        parameter(ModelPart::UNet, "norm.bias", &[4]),
        parameter(ModelPart::UNet, "mid.attn2.to_k.weight", &[4, 8]),
        parameter(ModelPart::TextEncoder, "text_model.q_proj.weight", &[8, 8]),
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
            vec![(DOWN, &[1, 8][..]), (UP, &[4, 1]), ("lora_unet_mid_attn2_to_k.dora_scale", &[5])],
            "its tensor lora_unet_mid_attn2_to_k.dora_scale has the shape [5]; this model's mid.attn2.to_k.weight needs 4 \
             values",
        ),
        (
            vec![("base_model.model.mid.attn2.to_k.vera_lambda_b", &[4][..])],
            "it is VeRA, judging by its tensor base_model.model.mid.attn2.to_k.vera_lambda_b; stablehand does not merge \
             that kind",
        ),
        (
            vec![(DOWN, &[1, 8][..]), (UP, &[4, 1]), ("lora_unet_mid_attn2_to_k.diff", &[4, 8])],
            "its tensors lora_unet_mid_attn2_to_k.lora_down.weight and lora_unet_mid_attn2_to_k.diff change \
             lora_unet_mid_attn2_to_k in two ways",
        ),
        (
            vec![
                ("lora_unet_norm.lora_down.weight", &[1, 4][..]),
                ("lora_unet_norm.lora_up.weight", &[4, 1]),
            ],
            "it changes norm.weight as a matrix, but that has the shape [4] in this model",
        ),
        (
            vec![
                ("unet.mid.attn2.to_k.lora_A.weight", &[1, 8][..]),
                ("unet.mid.attn2.to_k.lora_B.weight", &[4, 1]),
                ("unet.mid.attn2.to_k.lora_B.bias", &[4]),
            ],
            "its tensor unet.mid.attn2.to_k.lora_B.bias is for a bias that this model's mid.attn2.to_k lacks",
        ),
        (
            vec![("lora_unet_mid_attn2_to_k.diff_b", &[4][..])],
            "this model has none of the 1 modules that it changes, such as lora_unet_mid_attn2_to_k.diff_b",
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
    let mut weights = Weights::of([("mid.attn2.to_k.weight", 32)], 0.0);
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
            ("lora_unet_mid_attn2_to_k.diff_b", &[4]),
        ],
        &json!({"sshs_model_hash": "0123456789abcdef"}),
    );
    let lora = LoraFile::open("fox", file.path(), &small()).unwrap();
    let touched = ModelPart::ADAPTABLE.map(|part| lora.touches(part, &scales(1.0)));
    assert_eq!(touched, [false, true], "the UNet alone");
    assert_eq!(
        lora.skipped().unwrap(),
        "1 of 2 modules (lora_unet_mid_attn9_to_k), 2 tensors (a word, lora_unet_mid_attn2_to_k.diff_b)"
    );
    assert_eq!(lora.short_hash(), "0123456789ab");
    let mut weights = Weights::of([("mid.attn2.to_k.weight", 32)], 0.5);
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
            let mut weights =
                Weights::of([("text_model.q_proj.weight", 64), ("mid.attn2.to_k.weight", 32)], 0.0);
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
    let mut weights = Weights::of([("mid.attn2.to_k.weight", 32)], 0.0);
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
        let mut weights = Weights::of([("mid.attn2.to_k.weight", 32)], 0.0);
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

#[test]
fn a_file_says_which_kind_it_is() {
    for (name, kind) in [
        ("lora_unet_x.lora_down.weight", "a LoRA: put it into --lora-dir"),
        ("lora_unet_x.hada_w1_a", "a LoRA (LoHa): put it into --lora-dir"),
        ("lora_unet_x.dora_scale", "a LoRA (DoRA): put it into --lora-dir"),
        ("unet:0:up", "a LoRA: put it into --lora-dir"),
        ("base_model.model.x.boft_R", "a LoRA (BOFT): put it into --lora-dir"),
        ("base_model.model.x.vera_lambda_b", "VeRA, which stablehand does not merge"),
    ] {
        let found = lora_kind(&[name.to_owned()]).unwrap();
        assert!(found.starts_with(kind), "{found}");
    }
    for name in ["model.diffusion_model.out.2.weight", "first_stage_model.a.scale", "emb_params", ""] {
        assert_eq!(lora_kind(&[name.to_owned()]), None, "{name}");
    }
}
