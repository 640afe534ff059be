//! Picture files in the formats that people ask for, with the text that says how the picture was made.
//!
//! PNG has text chunks (`png.rs`). JPEG and WebP have EXIF, in which A1111 writes its parameters as `UserComment`, in UTF-16
//! (A1111's `modules/images.py`, by way of piexif). Our own JSON is the `ImageDescription`, in ASCII with escapes.

use std::fmt::Write as _;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::png::check_length;
use super::{ImageError, RgbImage, encode_png};

/// A format that a picture can be written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PictureFile {
    #[default]
    Png,
    Jpeg,
    /// Without loss.
    WebP,
}

/// How a picture was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PictureTexts {
    /// As A1111 writes it.
    pub parameters: String,
    /// The `input` that draws it again, as JSON.
    pub request: String,
}

/// A picture's file.
pub struct EncodedPicture {
    pub bytes: Vec<u8>,
    /// Whether the texts are in it. A JPEG has room for 64 KiB.
    pub has_texts: bool,
}

/// A segment of a JPEG has 65535 bytes, of which its length and the word `Exif` take eight.
const JPEG_ROOM: usize = 65_527;
const JPEG_QUALITY: u8 = 95;

impl PictureFile {
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::WebP];

    /// The name that clients use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        let name = if name == "jpg" { "jpeg" } else { name };
        Self::ALL.into_iter().find(|file| file.as_str() == name)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The picture as a file.
    pub fn encode(self, image: &RgbImage, texts: &PictureTexts) -> Result<EncodedPicture, ImageError> {
        self.encode_at(JPEG_QUALITY, image, texts)
    }

    /// The same with this quality, from 1 to 100. It is JPEG's alone.
    pub fn encode_at(
        self,
        quality: u8,
        image: &RgbImage,
        texts: &PictureTexts,
    ) -> Result<EncodedPicture, ImageError> {
        if self == Self::Png {
            let texts = [("parameters", texts.parameters.as_str()), ("stablehand", &texts.request)];
            return Ok(EncodedPicture { bytes: encode_png(image, &texts)?, has_texts: true });
        }
        check_length(image)?;
        let exif = exif(texts);
        let has_texts = self == Self::WebP || exif.len() <= JPEG_ROOM;
        let exif = if has_texts { exif } else { Vec::new() };
        let mut bytes = Vec::new();
        match self {
            Self::Jpeg => {
                write(JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100)), image, exif)
            }
            _ => write(WebPEncoder::new_lossless(&mut bytes), image, exif),
        }
        .map_err(|error| ImageError::Encode(error.to_string()))?;
        Ok(EncodedPicture { bytes, has_texts })
    }
}

fn write(mut encoder: impl ImageEncoder, image: &RgbImage, exif: Vec<u8>) -> image::ImageResult<()> {
    if !exif.is_empty() {
        encoder.set_exif_metadata(exif).map_err(image::ImageError::Unsupported)?;
    }
    encoder.write_image(&image.pixels, image.width, image.height, ExtendedColorType::Rgb8)
}

/// The tags of EXIF that are written here, their types, and how their UTF-16 is marked (EXIF 2.32, 4.6.5).
const IMAGE_DESCRIPTION: u16 = 0x010e;
const EXIF_DIRECTORY: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
const ASCII: u16 = 2;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;
const UNICODE: &[u8] = b"UNICODE\0";

/// A directory with one entry of twelve bytes, and with two.
const ONE_ENTRY: usize = 2 + 12 + 4;
const TWO_ENTRIES: usize = ONE_ENTRY + 12;

/// EXIF with both texts: a TIFF of two directories, from the most significant byte on.
fn exif(texts: &PictureTexts) -> Vec<u8> {
    let description: Vec<u8> = ascii(&texts.request).into_bytes().into_iter().chain([0]).collect();
    let utf16 = texts.parameters.encode_utf16().flat_map(u16::to_be_bytes);
    let comment: Vec<u8> = UNICODE.iter().copied().chain(utf16).collect();
    let second = 8 + TWO_ENTRIES;
    let description_at = second + ONE_ENTRY;
    let comment_at = description_at + description.len();

    let mut exif = b"MM\0*\0\0\0\x08".to_vec();
    directory(
        &mut exif,
        &[(IMAGE_DESCRIPTION, ASCII, description.len(), description_at), (EXIF_DIRECTORY, LONG, 1, second)],
    );
    directory(&mut exif, &[(USER_COMMENT, UNDEFINED, comment.len(), comment_at)]);
    exif.extend(description);
    exif.extend(comment);
    exif
}

/// Adds a directory: each entry is a tag, a type, a number of values, and where they lie or the one value.
fn directory(exif: &mut Vec<u8>, entries: &[(u16, u16, usize, usize)]) {
    let long = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    exif.extend(u16::try_from(entries.len()).unwrap_or(u16::MAX).to_be_bytes());
    for &(tag, kind, count, place) in entries {
        exif.extend(tag.to_be_bytes());
        exif.extend(kind.to_be_bytes());
        exif.extend(long(count));
        exif.extend(long(place));
    }
    exif.extend([0; 4]);
}

/// JSON whose characters beyond ASCII are escaped. They occur in its strings only.
fn ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use image::ImageReader;
    use std::io::Cursor;

    use super::*;
    use crate::diffusion::decode_image;

    fn picture() -> RgbImage {
        let pixels = (0..64 * 48_u32).flat_map(|at| [at % 64 * 4, at / 64 * 5, 90]);
        RgbImage { width: 64, height: 48, pixels: pixels.map(|value| value.to_le_bytes()[0]).collect() }
    }

    fn texts() -> PictureTexts {
        PictureTexts {
            parameters: "a fox, 日本 \u{1f98a}\nSteps: 20".to_owned(),
            request: r#"{"prompt":"a fox, 日本 \ud83e\udd8a"}"#.replace("\\ud83e\\udd8a", "\u{1f98a}"),
        }
    }

    /// The EXIF of a file, and its entries of a text, by the golden reader's rules.
    fn exif_of(bytes: &[u8]) -> Vec<u8> {
        use image::ImageDecoder;
        let mut decoder =
            ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap().into_decoder().unwrap();
        decoder.exif_metadata().unwrap().unwrap_or_default()
    }

    #[test]
    fn a_webp_has_the_pixels_and_a_jpeg_nearly() {
        for (file, furthest) in [(PictureFile::Png, 0), (PictureFile::WebP, 0), (PictureFile::Jpeg, 24)] {
            let encoded = file.encode(&picture(), &texts()).unwrap();
            let decoded = decode_image(&encoded.bytes).unwrap();
            assert_eq!((decoded.width, decoded.height, encoded.has_texts), (64, 48, true));
            let found = decoded.pixels.iter().zip(&picture().pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(found <= Some(furthest), "{file:?}: {found:?}");
        }
    }

    #[test]
    fn a_jpeg_of_lower_quality_is_smaller() {
        let size = |quality| PictureFile::Jpeg.encode_at(quality, &picture(), &texts()).unwrap().bytes.len();
        assert!(size(0) < size(50) && size(50) < size(95) && size(95) < size(100));
        assert_eq!(size(95), PictureFile::Jpeg.encode(&picture(), &texts()).unwrap().bytes.len());
    }

    #[test]
    fn both_texts_lie_in_the_exif() {
        for file in [PictureFile::Jpeg, PictureFile::WebP] {
            let exif = exif_of(&file.encode(&picture(), &texts()).unwrap().bytes);
            assert_eq!(exif, super::exif(&texts()), "{file:?}");
            let number = |at: usize| u32::from_be_bytes(exif[at..at + 4].try_into().unwrap()) as usize;
            // The first entry of the first directory, then the only one of the second.
            let description = &exif[number(18)..][..number(14)];
            assert_eq!(description, b"{\"prompt\":\"a fox, \\u65e5\\u672c \\ud83e\\udd8a\"}\0");
            let second = number(30);
            let comment = &exif[number(second + 10)..][..number(second + 6)];
            let units = comment[8..].chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            assert_eq!(&comment[..8], UNICODE);
            assert_eq!(String::from_utf16(&units.collect::<Vec<_>>()).unwrap(), texts().parameters);
        }
    }

    #[test]
    fn texts_that_a_jpeg_has_no_room_for_are_left_out_and_that_is_said() {
        let long = PictureTexts { parameters: "fox ".repeat(10_000), ..texts() };
        let jpeg = PictureFile::Jpeg.encode(&picture(), &long).unwrap();
        assert!(!jpeg.has_texts && exif_of(&jpeg.bytes).is_empty());
        assert!(PictureFile::WebP.encode(&picture(), &long).unwrap().has_texts);
    }

    #[test]
    fn an_image_with_too_few_pixels_is_refused() {
        let image = RgbImage { width: 4, height: 4, pixels: vec![0; 3] };
        for file in [PictureFile::Jpeg, PictureFile::WebP] {
            assert!(matches!(file.encode(&image, &texts()), Err(ImageError::Length { .. })));
        }
    }
}
