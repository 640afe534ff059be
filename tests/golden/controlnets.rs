//! The ControlNets of `controlnet.py`: formulas, computed here again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    tensors: BTreeMap<String, Shape>,
}

#[derive(Deserialize)]
struct Shape {
    shape: Vec<usize>,
}

/// The script's `weight`.
fn weight(controlnet: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let start = u64::from(crc32(format!("{controlnet}.{name}").as_bytes()));
    let count: usize = shape.iter().product();
    let spread = |value: u64| (value ^ (value >> 15)) * 2_246_822_519 % (1 << 32);
    let values = (0..count as u64).map(|place| spread((place + start) * 2_654_435_761 % (1 << 32)));
    #[expect(clippy::cast_precision_loss, reason = "32 bits")]
    let values = values.map(|value| value as f64 / 2_147_483_648.0 - 1.0);
    let is_scale = name.contains("norm") && name.ends_with("weight");
    let is_last = name.starts_with("controlnet_down_blocks") || name.starts_with("controlnet_mid_block");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let fan_in = shape[1..].iter().product::<usize>() as f64;
    #[expect(clippy::cast_possible_truncation, reason = "as numpy does")]
    let scaled = |value: f64| match shape.len() {
        1 => (f64::from(u8::from(is_scale)) + 0.05 * value) as f32,
        _ if is_last => (value * (1.7 * fan_in.powf(-0.5)) * 0.1) as f32,
        _ => (value * (1.7 * fan_in.powf(-0.5))) as f32,
    };
    values.map(scaled).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Names, shapes and values.
pub type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

pub fn tensors(controlnet: &str) -> Tensors {
    let golden: Golden = serde_json::from_str(include_str!("controlnet.json")).unwrap();
    let tensors = golden.tensors.into_iter();
    tensors
        .map(|(name, Shape { shape })| {
            let values = weight(controlnet, &name, &shape);
            (name, shape, values)
        })
        .collect()
}

pub fn write(tensors: &Tensors, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A diffusers folder.
pub fn diffusers(name: &str, folder: &Path) {
    write(&tensors(name), &folder.join(name).join("diffusion_pytorch_model.safetensors"));
    fs::write(folder.join(name).join("config.json"), r#"{"_class_name": "ControlNetModel"}"#).unwrap();
}
