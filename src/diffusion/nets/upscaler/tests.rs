//! Against torch (`tests/golden/upscalers.py`), and tiles against one call.

use std::path::PathBuf;

use ndarray::Array4;
use serde_json::Value;

use super::*;
use crate::diffusion::files::UpscalerFile;
use crate::domain::ImageSize;
use crate::runtime::DeviceChoice;

fn golden(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upscalers").join(file)
}

/// The script's `picture()`.
fn picture() -> Array4<f32> {
    let mut values = (0..3 * 8 * 12_u16).map(|index| f32::from(index * 37 % 256) / 255.0);
    Array4::from_shape_simple_fn((1, 3, 8, 12), || values.next().unwrap())
}

#[test]
fn every_form_of_a_file_enlarges_as_torch_does() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let cases: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/upscalers/expected.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["file"].as_str().unwrap();
        let mut net = UpscalerNet::load(name, &golden(name), &runtime).unwrap();
        assert_eq!(Some(net.scale() as u64), case["scale"].as_u64(), "{name}");
        let enlarged = net.run(picture()).unwrap();
        assert_eq!(enlarged.dim(), (1, 3, 8 * net.scale(), 12 * net.scale()), "{name}");
        let expected: Vec<f32> = serde_json::from_value(case["values"].clone()).unwrap();
        let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
        assert_eq!(expected.len(), enlarged.len().div_ceil(7));
        for (ours, theirs) in enlarged.iter().step_by(7).zip(expected) {
            assert!((ours - theirs).abs() <= 1e-4 * largest, "{name}: {ours} {theirs}");
        }
    }
}

#[test]
fn half_precision_comes_close() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    for name in ["x4.safetensors", "x2.safetensors", "compact.pth"] {
        let file = UpscalerFile::open(&golden(name)).unwrap();
        let graph = file.graph(true).unwrap();
        let mut full = UpscalerNet::new(name, &file, &runtime).unwrap();
        let session = runtime.session(GraphSource::Memory(&graph)).unwrap();
        let mut half = UpscalerNet::new(name, &file, &runtime).unwrap();
        half.session = OnTurn::new(session, false);
        let (full, half) = (full.run(picture()).unwrap(), half.run(picture()).unwrap());
        let furthest = full.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // A CPU computes most of it in float32.
        assert!(furthest < 1e-2, "{name}: {furthest}");
    }
}

#[test]
fn tiles_show_no_seams() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    for name in ["x4.safetensors", "x2.safetensors", "compact.pth"] {
        let mut net = UpscalerNet::load(name, &golden(name), &runtime).unwrap();
        let shade = |at: u32| u8::try_from((at / 9 * 91 + at) % 256).unwrap();
        let pixels =
            (0..210 * 202_u32).flat_map(|at| [shade(at), shade(at / 210), shade(at % 210 + at / 210)]);
        let picture = RgbImage { width: 210, height: 202, pixels: pixels.collect() };
        let blank = || {
            let (width, height) = (picture.width * net_scale(&net), picture.height * net_scale(&net));
            RgbImage { width, height, pixels: vec![0; (width * height * 3) as usize] }
        };
        let (mut tiled, mut whole) = (blank(), blank());
        let all = tiles(picture.size());
        assert_eq!(all.len(), 4);
        for tile in &all {
            net.enlarge(tile, &picture, &mut tiled).unwrap();
        }
        net.enlarge(&Tile::whole(picture.size()), &picture, &mut whole).unwrap();
        let furthest = tiled.pixels.iter().zip(&whole.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(furthest <= Some(1), "{name}: {furthest:?}");
    }
}

fn net_scale(net: &UpscalerNet) -> u32 {
    u32::try_from(net.scale()).unwrap()
}

#[test]
fn other_files_are_refused_with_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |names: &[&str], shape: &[usize]| {
        let path = folder.path().join("other.safetensors");
        let bytes = vec![0; shape.iter().product::<usize>() * 4];
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), &bytes).unwrap();
        let tensors = names.iter().map(|name| ((*name).to_owned(), view.clone()));
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
        UpscalerFile::open(&path).err().unwrap().to_string()
    };
    let swin = refused(&["params.layers.0.residual_group.blocks.0.norm1.weight"], &[4]);
    assert!(swin.contains("it is a SwinIR upscaler; ESRGAN's architectures are supported"), "{swin}");
    let unknown = refused(&["encoder.weight"], &[4]);
    assert!(unknown.contains("no upscaler of a supported architecture"), "{unknown}");
    let wrong = refused(&["conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"], &[4]);
    assert!(wrong.contains("a convolution of 3 × 3 is expected"), "{wrong}");
    let grey = refused(&["conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"], &[1, 1, 3, 3]);
    assert!(grey.contains("it takes 1 channels"), "{grey}");
}

#[test]
fn memory_is_that_of_the_largest_tile() {
    let size = ImageSize { width: 2000, height: 1000 };
    let largest = tiles(size).iter().map(|tile| (tile.height() * tile.width()) as u64).max().unwrap();
    assert_eq!(largest, tiles::largest().pow(2));
    let file = UpscalerFile::open(&golden("x4.safetensors")).unwrap();
    let (held, run) = upscaler_memory(&file, false);
    assert_eq!(held, 8 * file.weight_bytes(1));
    assert!(run > largest * 16 * 8 * 4, "{run}");
    assert!(upscaler_memory(&file, true).1 < run);
}
