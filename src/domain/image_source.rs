//! A picture in a request: its URL, or its bytes.
//!
//! The text comes from a stranger. This module decodes base64 and reads the header of the file. So it refuses files that
//! are no picture, are cut short or are too large, before anything else is decoded or queued. The engine decodes the
//! pixels, and `fetch` fetches URLs.

use std::fmt;
use std::io::Cursor;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::{ImageFormat, ImageReader};

use super::{WebUrl, WebUrlError};

/// The largest accepted picture file.
pub const MAX_IMAGE_BYTES: usize = 16 * 1024 * 1024;
/// The most pixels of a picture file, about 5792 × 5792.
pub const MAX_IMAGE_PIXELS: u64 = 1 << 25;

/// Where to get a picture from.
#[derive(Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A PNG, JPEG or WebP file within the limits. Of an animation, the first frame is used.
    Bytes(Vec<u8>),
    /// A URL, which has not been fetched yet.
    Url(WebUrl),
}

/// Shows no picture and no URL, so that none gets into a log.
impl fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Url(url) => write!(f, "Url({url:?})"),
        }
    }
}

impl ImageSource {
    /// Reads an http(s) URL, a `data:` URI or plain base64. The error is a sentence about the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if has_prefix(text, "http://") || has_prefix(text, "https://") {
            return text.parse().map(Self::Url).map_err(|error: WebUrlError| format!("It {error}."));
        }
        if has_prefix(text, "data:") {
            return Self::from_bytes(decode(data_uri(&text["data:".len()..])?)?);
        }
        if text.contains(':') {
            return Err("It is neither an http(s) URL, nor a data URI, nor base64.".to_owned());
        }
        Self::from_bytes(decode(text)?)
    }

    /// Checks the bytes of a picture file. The error is a sentence about the file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        check_length(bytes.len())?;
        let Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) =
            image::guess_format(&bytes)
        else {
            return Err("It is not a picture in a supported format: send a PNG, JPEG or WebP.".to_owned());
        };
        if is_cut_short(format, &bytes) {
            return Err("The picture file is cut short: send the whole file.".to_owned());
        }
        let (width, height) = ImageReader::with_format(Cursor::new(&bytes), format)
            .into_dimensions()
            .map_err(|_| "The picture file is damaged: send an intact one.".to_owned())?;
        if width == 0 || height == 0 {
            return Err("The picture has no pixels.".to_owned());
        }
        if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
            return Err(format!(
                "The picture has {width} × {height} pixels, but at most {MAX_IMAGE_PIXELS} are allowed: send a smaller one."
            ));
        }
        Ok(Self::Bytes(bytes))
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The base64 of a data URI, given what follows `data:`. The type that it states does not count, since many clients state
/// none or a wrong one: the bytes tell the format.
fn data_uri(rest: &str) -> Result<&str, String> {
    let Some((head, data)) = rest.split_once(',') else {
        return Err("The data URI has no comma before its data.".to_owned());
    };
    if !head.split(';').any(|word| word.trim().eq_ignore_ascii_case("base64")) {
        return Err("The data URI is not in base64: write data:image/png;base64,… .".to_owned());
    }
    Ok(data)
}

/// Decodes base64, with or without padding. It skips line breaks, which many encoders insert.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    // Four characters give three bytes. Too long a text is refused before it is decoded.
    check_length((text.len() / 4 * 3).max(1))?;
    let decoded = if text.contains(|c: char| c.is_ascii_whitespace()) {
        LENIENT.decode(text.split_ascii_whitespace().collect::<String>())
    } else {
        LENIENT.decode(text)
    };
    decoded.map_err(|error| format!("The base64 is invalid: {error}."))
}

fn check_length(bytes: usize) -> Result<(), String> {
    match bytes {
        0 => Err("It is empty.".to_owned()),
        1..=MAX_IMAGE_BYTES => Ok(()),
        _ => Err(format!("The picture file has {bytes} bytes, but at most {MAX_IMAGE_BYTES} are allowed.")),
    }
}

/// Whether the end of the file is missing, as far as this shows without decoding. Decoders accept a JPEG without its end
/// and paint the rest grey.
fn is_cut_short(format: ImageFormat, bytes: &[u8]) -> bool {
    let last = |mark: &[u8]| bytes.windows(mark.len()).rposition(|window| window == mark);
    match format {
        ImageFormat::Png => last(b"IEND").is_none(),
        // The data of a scan can hold no marker except restart markers.
        ImageFormat::Jpeg => last(b"\xff\xd9") <= last(b"\xff\xda"),
        _ => {
            let stated = bytes.get(4..8).and_then(|size| size.try_into().ok()).map_or(0, u32::from_le_bytes);
            bytes.len() < stated as usize + 8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, RgbImage};

    fn file(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(width, height)).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn base64(bytes: &[u8]) -> String {
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    #[test]
    fn every_form_of_a_picture_is_accepted() {
        let png = file(1, 1, ImageFormat::Png);
        let text = base64(&png);
        let wrapped: String = text
            .as_bytes()
            .chunks(8)
            .fold(String::new(), |text, line| text + std::str::from_utf8(line).unwrap() + "\r\n");
        for form in [
            text.clone(),
            text.trim_end_matches('=').to_owned(),
            wrapped,
            format!("data:image/png;base64,{text}"),
            format!("DATA:Image/JPEG;charset=utf-8;BASE64,{text}"),
            format!("data:application/octet-stream;base64,{text}"),
            format!("data:text/html; base64,{text}"),
            format!("data:;base64,{text}"),
        ] {
            assert_eq!(ImageSource::parse(&form), Ok(ImageSource::Bytes(png.clone())), "{form}");
        }
        for url in ["http://a/b.png", "HTTPS://a"] {
            assert_eq!(ImageSource::parse(url), Ok(ImageSource::Url(url.parse().unwrap())));
        }
        for format in [ImageFormat::Jpeg, ImageFormat::WebP] {
            assert!(ImageSource::from_bytes(file(3, 2, format)).is_ok(), "{format:?}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for (text, parts) in [
            ("", "empty"),
            ("data:image/png;base64,", "empty"),
            ("hello!", "base64 is invalid"),
            ("aGk=", "PNG, JPEG or WebP"),
            ("R0lGODlhAQABAAAAACw=", "PNG, JPEG or WebP"),
            ("data:image/png;base64", "no comma"),
            ("data:text/html;base64,aGk=", "PNG, JPEG or WebP"),
            ("data:image/png;base64,R0lGODlhAQABAAAAACw=", "PNG, JPEG or WebP"),
            ("data:,abc", "not in base64"),
            ("data:image/png,abc", "not in base64"),
            ("data:image/png;base64,a*b", "base64 is invalid"),
            ("file:///etc/passwd", "neither an http(s) URL"),
            ("http://a:22/b", "port 80, 443"),
        ] {
            let sentence = ImageSource::parse(text).unwrap_err();
            assert!(sentence.contains(parts), "{text}: {sentence}");
        }
    }

    #[test]
    fn the_size_is_checked_before_decoding() {
        let too_long = "A".repeat(MAX_IMAGE_BYTES / 3 * 4 + 8);
        assert!(ImageSource::parse(&too_long).unwrap_err().contains("at most 16777216 are allowed"));

        // A decompression bomb is a small file, but its header states the huge size.
        let mut bomb = file(1, 1, ImageFormat::Png);
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let checksum = {
            let mut hasher = flate2::Crc::new();
            hasher.update(&bomb[12..29]);
            hasher.sum().to_be_bytes()
        };
        bomb[29..33].copy_from_slice(&checksum);
        assert!(ImageSource::from_bytes(bomb).unwrap_err().contains("60000 × 60000"));
    }

    #[test]
    fn a_file_without_its_end_is_refused() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let whole = file(40, 30, format);
            for end in [whole.len() - 10, whole.len() / 2, 20] {
                let sentence = ImageSource::from_bytes(whole[..end].to_vec()).unwrap_err();
                assert!(sentence.contains("cut short"), "{format:?} {end}: {sentence}");
            }
        }
    }

    #[test]
    fn the_debug_text_shows_no_bytes_and_no_url() {
        let url = ImageSource::parse("https://a/secret?token=secret").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
        assert_eq!(format!("{:?}", ImageSource::Bytes(vec![1, 2])), "Bytes(2 bytes)");
    }
}
