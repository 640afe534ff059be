//! Pictures in requests: the same picture draws the same, whatever its format and its label.

use std::cell::RefCell;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use stablehand::diffusion::{Model, Pipeline};
use stablehand::domain::GenerationInput;
use stablehand::runtime::{DeviceChoice, Runtime};

use super::EQUAL;
use crate::drawing::psnr;

/// A row: what a request sends as `init_image`, and what becomes of it.
pub struct Row {
    what: &'static str,
    becomes: Becomes,
    sent: fn() -> String,
}

enum Becomes {
    /// It draws what the PNG draws.
    Drawn,
    /// Nearly, since the format loses something.
    DrawnNearly,
    /// The request is refused in one sentence with these words.
    Refused(&'static str),
}

/// A disc on a ground of two colours.
fn picture() -> DynamicImage {
    DynamicImage::from(RgbImage::from_fn(64, 64, |x, y| {
        let from_middle = |at: u32| (i64::from(at) - 32).pow(2);
        match from_middle(x) + from_middle(y) {
            0..=400 => Rgb([230, 40, 40]),
            _ if x < 32 => Rgb([250, 220, 70]),
            _ => Rgb([50, 110, 220]),
        }
    }))
}

fn file_of(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn file(format: ImageFormat) -> Vec<u8> {
    file_of(&picture(), format)
}

fn labelled(label: &str, bytes: &[u8]) -> String {
    format!("data:{label};base64,{}", STANDARD.encode(bytes))
}

fn bare(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

const VIDEO: &[u8] = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\xff\xda\0\x0cIEND";

#[rustfmt::skip] // a row is a line
pub const ROWS: &[Row] = &[
    Row { what: "PNG", becomes: Becomes::Drawn, sent: || bare(&file(ImageFormat::Png)) },
    Row { what: "PNG with 16 bits", becomes: Becomes::Drawn, sent: || bare(&file_of(&DynamicImage::from(picture().to_rgb16()), ImageFormat::Png)) },
    Row { what: "PNG with alpha", becomes: Becomes::Drawn, sent: || bare(&file_of(&DynamicImage::from(picture().to_rgba8()), ImageFormat::Png)) },
    Row { what: "JPEG", becomes: Becomes::DrawnNearly, sent: || bare(&file(ImageFormat::Jpeg)) },
    Row { what: "JPEG with a video behind it", becomes: Becomes::DrawnNearly, sent: || bare(&[&file(ImageFormat::Jpeg), VIDEO].concat()) },
    Row { what: "WebP", becomes: Becomes::Drawn, sent: || bare(&file(ImageFormat::WebP)) },
    Row { what: "GIF", becomes: Becomes::DrawnNearly, sent: || bare(&file(ImageFormat::Gif)) },
    Row { what: "BMP", becomes: Becomes::Drawn, sent: || bare(&file(ImageFormat::Bmp)) },
    Row { what: "TIFF", becomes: Becomes::Drawn, sent: || bare(&file(ImageFormat::Tiff)) },
    Row { what: "a label of another format", becomes: Becomes::Drawn, sent: || labelled("image/jpeg", &file(ImageFormat::Png)) },
    Row { what: "a label of no picture", becomes: Becomes::Drawn, sent: || labelled("application/octet-stream", &file(ImageFormat::Tiff)) },
    Row { what: "no label", becomes: Becomes::Drawn, sent: || labelled("", &file(ImageFormat::Bmp)) },
    Row { what: "AVIF", becomes: Becomes::Refused("It is an AVIF picture"), sent: || bare(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf") },
    Row { what: "HEIC", becomes: Becomes::Refused("It is a HEIC picture"), sent: || bare(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") },
    Row { what: "JPEG XL", becomes: Becomes::Refused("It is a JPEG XL picture"), sent: || bare(b"\xff\x0a\x7f\0") },
    Row { what: "SVG", becomes: Becomes::Refused("It is an SVG drawing"), sent: || labelled("image/svg+xml", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>") },
    Row { what: "a video", becomes: Becomes::Refused("It is a video"), sent: || bare(VIDEO) },
    Row { what: "a web page", becomes: Becomes::Refused("It is a web page"), sent: || bare(b"<!DOCTYPE html>") },
    Row { what: "a PNG cut short", becomes: Becomes::Refused("The PNG file is cut short"), sent: || { let png = file(ImageFormat::Png); bare(&png[..png.len() / 2]) } },
    Row { what: "a TIFF cut short", becomes: Becomes::Refused("The TIFF file is cut short"), sent: || { let tiff = file(ImageFormat::Tiff); bare(&tiff[..tiff.len() / 2]) } },
];

thread_local! {
    static PIPELINE: RefCell<Pipeline> = RefCell::new({
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        Model::open(None, None).unwrap().load(&runtime).unwrap()
    });
}

/// The picture that a request with this `init_image` gets, as good as repainted by nothing.
fn draw(init_image: &str) -> Result<Vec<u8>, String> {
    PIPELINE.with_borrow_mut(|pipeline| {
        let request: Value = json!({
            "prompt": "a red heart", "init_image": init_image, "width": 64, "height": 64,
            "num_inference_steps": 2, "prompt_strength": 0.5, "scheduler": "DDIM", "guidance_scale": 1,
        });
        let input =
            GenerationInput::parse(&request, pipeline.model().rules()).map_err(|error| error.to_string())?;
        let pictures = pipeline.draw(&input, 7).map_err(|error| error.to_string())?;
        Ok(pictures.into_iter().next().unwrap().image.pixels)
    })
}

fn wrong_with(row: &Row, reference: &[u8]) -> Result<(), String> {
    let problem = |what: String| Err(format!("  {}: {what}", row.what));
    let least = match (&row.becomes, draw(&(row.sent)())) {
        (Becomes::Refused(words), Err(sentence)) if sentence.contains(words) && !sentence.contains('\n') => {
            return Ok(());
        }
        (Becomes::Refused(_), Ok(_)) => return problem("it draws".to_owned()),
        (_, Err(sentence)) => return problem(sentence),
        (Becomes::Drawn, Ok(drawn)) => (drawn, EQUAL),
        (Becomes::DrawnNearly, Ok(drawn)) => (drawn, 30.0),
    };
    let likeness = psnr(&least.0, reference);
    if likeness >= least.1 { Ok(()) } else { problem(format!("{likeness:.1} dB")) }
}

#[test]
fn pictures_in_requests() {
    let reference = draw(&bare(&file(ImageFormat::Png))).unwrap();
    let wrong: Vec<String> = ROWS.iter().filter_map(|row| wrong_with(row, &reference).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
}
