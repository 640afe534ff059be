//! The ControlNet that the repository has for the built-in model: what is drawn lies where its edges say.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use serde_json::json;
use stablehand::diffusion::{AddOnFolders, Model, decode_image};
use stablehand::domain::{GenerationInput, ImageSource};
use stablehand::runtime::{DeviceChoice, Runtime};

use super::{ControlMode, ControlResize, ControlUnit, Preprocessor};

const SIDE: u32 = 128;
/// A disc left of the middle and above it, smaller than anything that the model draws by itself.
const X: f64 = 44.0;
const Y: f64 = 60.0;
const RADIUS: f64 = 30.0;

/// The edge of the disc, white on black.
fn map() -> ImageSource {
    let edge = GrayImage::from_fn(SIDE, SIDE, |x, y| {
        let from_middle = (f64::from(x) - X).hypot(f64::from(y) - Y);
        Luma([if (from_middle - RADIUS).abs() < 0.6 { 255 } else { 0 }])
    });
    let mut png = Cursor::new(Vec::new());
    DynamicImage::from(edge).write_to(&mut png, ImageFormat::Png).unwrap();
    ImageSource::from_bytes(png.into_inner()).unwrap()
}

/// The middle of what is not white, and how much of the picture it takes.
fn thing(png: &[u8]) -> ((f64, f64), f64) {
    let picture = decode_image(png).unwrap();
    let (mut x, mut y, mut pixels) = (0.0, 0.0, 0.0);
    for (at, pixel) in (0..SIDE * SIDE).zip(picture.pixels.as_chunks::<3>().0) {
        if pixel.iter().any(|&value| value < 200) {
            (x, y, pixels) = (x + f64::from(at % SIDE), y + f64::from(at / SIDE), pixels + 1.0);
        }
    }
    ((x / pixels, y / pixels), pixels / f64::from(SIDE * SIDE))
}

#[test]
fn the_repositorys_controlnet_puts_things_where_its_edges_are() {
    let add_ons = AddOnFolders {
        controlnets: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd/controlnets"),
        loras: "none".into(),
        embeddings: "none".into(),
        wildcards: "none".into(),
        upscalers: "none".into(),
        tiny_vaes: "/nowhere".into(),
        lora_memory: u64::MAX,
        look_every: Duration::from_mins(1),
    };
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let model = Model::open(None, Some(add_ons)).unwrap();
    let mut pipeline = model.load(&runtime).unwrap();
    let disc = std::f64::consts::PI * RADIUS.powi(2) / f64::from(SIDE * SIDE);
    for prompt in ["a red apple", "the moon"] {
        let request = json!({"prompt": prompt, "width": SIDE, "height": SIDE});
        let free = GenerationInput::parse(&request, model.rules()).unwrap();
        let unit = ControlUnit {
            model: "canny".to_owned(),
            image: map(),
            weight: 1.0,
            start: 0.0,
            end: 1.0,
            preprocess: Preprocessor::None,
            thresholds: [0.0; 2],
            mode: ControlMode::Balanced,
            resize: ControlResize::Crop,
        };
        let follows = GenerationInput { controlnets: vec![unit], ..free.clone() };
        let mut draw = |input: &GenerationInput| thing(&pipeline.draw(input, 2).unwrap()[0].png);
        let away = |(x, y): (f64, f64)| (x - X).hypot(y - Y);
        let (free, _) = draw(&free);
        let (middle, share) = draw(&follows);
        assert!(away(free) > 12.0, "{prompt} lies there by itself: {free:?}");
        assert!(away(middle) < 5.0, "{prompt}: {middle:?}");
        assert!(
            (0.75..1.25).contains(&(share / disc)),
            "{prompt}: {share} of the picture, the disc is {disc}"
        );
    }
}
