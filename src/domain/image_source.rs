//! A picture in a request: its URL, or its bytes.
//!
//! The text comes from a stranger. This module decodes base64 and reads the header of the file. So it refuses files that
//! are no picture, are cut short or are too large, before anything else is decoded or queued. The engine decodes the
//! pixels, and `fetch` fetches URLs.

use std::borrow::Cow;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use image::metadata::Orientation;
use image::{ImageDecoder, ImageReader};

use super::picture_end::is_cut_short;
use super::{ImageSize, PictureFormat, WebUrl, WebUrlError, pixel_chunks};

/// The largest accepted picture file.
pub const MAX_IMAGE_BYTES: usize = 16 * 1024 * 1024;
/// The most pixels of a picture file, about 5792 × 5792.
pub const MAX_IMAGE_PIXELS: u64 = 1 << 25;

/// Where to get a picture from.
#[derive(Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A picture file within the limits, in one of the [`PictureFormat`]s. Of an animation, the first frame is used. Copies
    /// of a request share it.
    Bytes(Arc<[u8]>),
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
        Self::from_bytes(Self::file(text)?)
    }

    /// The whole file in a data URI or in plain base64, with its texts, for those who read them. It is not checked, and may
    /// be anything. The error is a sentence about the value.
    pub fn file(text: &str) -> Result<Vec<u8>, String> {
        let text = text.trim();
        if has_prefix(text, "data:") {
            return decode(data_uri(&text["data:".len()..])?);
        }
        if text.contains(':') {
            return Err("It is neither an http(s) URL, nor a data URI, nor base64.".to_owned());
        }
        decode(text)
    }

    /// The size of the picture as a viewer shows it, turned upright. None for a URL. Its header is read each time.
    pub fn size(&self) -> Option<ImageSize> {
        let Self::Bytes(bytes) = self else { return None };
        let format = PictureFormat::of(bytes).ok()?;
        let (width, height) = dimensions(format, bytes)?;
        Some(if is_turned(format, bytes) {
            ImageSize { width: height, height: width }
        } else {
            ImageSize { width, height }
        })
    }

    /// Checks the bytes of a picture file, and drops what its pixels do not need. The error is a sentence about the file.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        check_length(bytes.len())?;
        let format = PictureFormat::of(&bytes)?;
        let name = format.as_str();
        if is_cut_short(format, &bytes) {
            return Err(format!("The {name} file is cut short: send the whole file."));
        }
        let bytes = match pixel_chunks(&bytes) {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(fewer) => fewer,
        };
        let (width, height) = dimensions(format, &bytes)
            .ok_or_else(|| format!("The {name} file is damaged: send an intact one."))?;
        if width == 0 || height == 0 {
            return Err("The picture has no pixels.".to_owned());
        }
        if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
            return Err(format!(
                "The picture has {width} × {height} pixels, but at most {MAX_IMAGE_PIXELS} are allowed: send a smaller one."
            ));
        }
        Ok(Self::Bytes(bytes.into()))
    }
}

/// Width and height, as the header states them.
fn dimensions(format: PictureFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    match format {
        // `image` would also look at the kind of its samples.
        PictureFormat::Tiff => tiff::decoder::Decoder::new(Cursor::new(bytes)).ok()?.dimensions().ok(),
        _ => ImageReader::with_format(Cursor::new(bytes), format.codec()).into_dimensions().ok(),
    }
}

/// Whether a camera wrote that its picture lies on its side.
fn is_turned(format: PictureFormat, bytes: &[u8]) -> bool {
    let decoder = ImageReader::with_format(Cursor::new(bytes), format.codec()).into_decoder();
    let orientation = decoder.and_then(|mut decoder| decoder.orientation());
    matches!(
        orientation,
        Ok(Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH)
    )
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
    decoded.map_err(|_| {
        "It is not valid base64 (a server cannot read a path): send the file's bytes in base64, or a URL."
            .to_owned()
    })
}

fn check_length(bytes: usize) -> Result<(), String> {
    match bytes {
        0 => Err("It is empty.".to_owned()),
        1..=MAX_IMAGE_BYTES => Ok(()),
        _ => Err(format!("The picture file has {bytes} bytes, but at most {MAX_IMAGE_BYTES} are allowed.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageFormat, RgbImage};

    const FORMATS: [ImageFormat; 6] = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Gif,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
    ];

    fn file(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(width, height)).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn base64(bytes: &[u8]) -> String {
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    #[test]
    fn chunks_that_would_unfold_are_dropped_before_a_decoder_sees_them() {
        let png = file(2, 1, ImageFormat::Png);
        // A compressed colour profile that is no zlib stream would be an error of the decoder.
        let profile = [&8_u32.to_be_bytes()[..], b"iCCPx\0\0garbage"].concat();
        let with_profile = [&png[..33], &profile[..16], b"crc!", &png[33..]].concat();
        assert_eq!(ImageSource::from_bytes(with_profile), ImageSource::from_bytes(png));
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
            assert_eq!(ImageSource::parse(&form), Ok(ImageSource::Bytes(png.clone().into())), "{form}");
        }
        for url in ["http://a/b.png", "HTTPS://a"] {
            assert_eq!(ImageSource::parse(url), Ok(ImageSource::Url(url.parse().unwrap())));
        }
        for format in FORMATS {
            assert!(ImageSource::from_bytes(file(3, 2, format)).is_ok(), "{format:?}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for (text, parts) in [
            ("", "empty"),
            ("data:image/png;base64,", "empty"),
            ("hello!", "is not valid base64"),
            ("aGk=", "PNG, JPEG, WebP, GIF, BMP or TIFF"),
            ("R0lGODlhAQABAAAAACw=", "The GIF file is cut short"),
            ("data:image/png;base64", "no comma"),
            ("data:image/png;base64,PGh0bWw+", "It is a web page (HTML)"),
            ("data:image/png;base64,AAAAGGZ0eXBoZWljAAAAAG1pZjE=", "It is a HEIC picture"),
            ("data:,abc", "not in base64"),
            ("data:image/png,abc", "not in base64"),
            ("data:image/png;base64,a*b", "is not valid base64"),
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

        // A decompression bomb is a small file, but its header states a huge size. Here are the places of that size: its
        // width and height as they are written there.
        let [big, little] = [60_000_u32.to_be_bytes(), 60_000_u32.to_le_bytes()];
        let [big_half, little_half] = [60_000_u16.to_be_bytes(), 60_000_u16.to_le_bytes()];
        let png = [(16, &big[..]), (20, &big)];
        let gif = [(6, &little_half[..]), (8, &little_half)];
        let bmp = [(18, &little[..]), (22, &little)];
        let jpeg_header = [(2, &[0xff, 0xc0, 0, 17, 8][..]), (7, &big_half), (9, &big_half)];
        let webp = [(24, &[0x5f, 0xea, 0][..]), (27, &[0x5f, 0xea, 0])];
        for (mut bomb, places) in [
            (file(1, 1, ImageFormat::Png), &png[..]),
            (file(1, 1, ImageFormat::Gif), &gif),
            (run_length_bmp(), &bmp),
            (tiff(60_000), &[]),
            (jpeg(), &jpeg_header),
            (extended_webp(), &webp),
        ] {
            for (place, bytes) in places {
                bomb[*place..][..bytes.len()].copy_from_slice(bytes);
            }
            if bomb.starts_with(b"\x89PNG") {
                let mut hasher = flate2::Crc::new();
                hasher.update(&bomb[12..29]);
                bomb[29..33].copy_from_slice(&hasher.sum().to_be_bytes());
            }
            let sentence = ImageSource::from_bytes(bomb.clone()).unwrap_err();
            assert!(sentence.contains("60000 × 60000"), "{:?}: {sentence}", &bomb[..4]);
        }
    }

    /// A JPEG whose frame header is its first segment.
    fn jpeg() -> Vec<u8> {
        let whole = file(1, 1, ImageFormat::Jpeg);
        let at = whole.windows(2).position(|marker| marker == b"\xff\xc0").unwrap();
        let length = usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]])) + 2;
        let (before, header, after) = (&whole[2..at], &whole[at..at + length], &whole[at + length..]);
        [b"\xff\xd8", header, before, after].concat()
    }

    /// A WebP with an extended header, which states the size of the canvas.
    fn extended_webp() -> Vec<u8> {
        let whole = file(1, 1, ImageFormat::WebP);
        let header = b"VP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let length = u32::try_from(whole.len() - 8 + header.len()).unwrap().to_le_bytes();
        [b"RIFF", &length[..], b"WEBP", header, &whole[12..]].concat()
    }

    /// A BMP whose rows are compressed, so that its size says nothing about the length of the file.
    fn run_length_bmp() -> Vec<u8> {
        let mut header = Vec::new();
        for word in [54 + 1024 + 2, 0, 54 + 1024, 40, 1, 1, 1 | 8 << 16, 1, 0, 0, 0, 256, 0_u32] {
            header.extend(word.to_le_bytes());
        }
        [b"BM", header.as_slice(), &[0; 1024], &[0, 1]].concat()
    }

    /// A TIFF of one byte, with as many pixels to a side as asked.
    fn tiff(side: u32) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0\x08\0".to_vec();
        for (tag, value) in
            [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (278, side), (279, 1)]
        {
            bytes.extend(u16::to_le_bytes(tag));
            bytes.extend([4, 0, 1, 0, 0, 0]);
            bytes.extend(u32::to_le_bytes(value));
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn what_lies_behind_the_end_does_not_matter() {
        // A phone's video, in which the marks of a picture's end and of a scan's start occur by chance.
        let video = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42 \xff\xd9 \xff\xda\0\x0c IEND \x3b";
        for format in FORMATS {
            let picture = file(40, 30, format);
            let longer = [&picture[..], video].concat();
            let kept = if format == ImageFormat::Png { picture } else { longer.clone() };
            assert_eq!(ImageSource::from_bytes(longer), Ok(ImageSource::Bytes(kept.into())), "{format:?}");
        }
        // The video has what the picture lacks.
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let whole = file(40, 30, format);
            let cut = [&whole[..whole.len() / 2], video].concat();
            assert!(ImageSource::from_bytes(cut).is_err(), "{format:?}");
        }
    }

    #[test]
    fn a_file_without_its_end_is_refused() {
        for format in FORMATS {
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
        assert_eq!(format!("{:?}", ImageSource::Bytes([1, 2].into())), "Bytes(2 bytes)");
    }
}
