//! The format of a picture file. Its first bytes tell it, whatever a label, a name or a server says.
//!
//! Formats that are not supported are known by name too, so that an error can say what was sent.

use image::ImageFormat;

/// A supported format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFormat {
    Png,
    Jpeg,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

/// The supported formats, for error sentences and the documentation.
pub const PICTURE_FORMATS: &str = "PNG, JPEG, WebP, GIF, BMP or TIFF";

/// How files of each supported format begin. WebP follows below, since it has its mark further on.
const BEGINNINGS: [(&[u8], PictureFormat); 9] = [
    (b"\x89PNG\r\n\x1a\n", PictureFormat::Png),
    (b"\xff\xd8\xff", PictureFormat::Jpeg),
    (b"GIF87a", PictureFormat::Gif),
    (b"GIF89a", PictureFormat::Gif),
    (b"BM", PictureFormat::Bmp),
    (b"II*\0", PictureFormat::Tiff),
    (b"MM\0*", PictureFormat::Tiff),
    // BigTIFF
    (b"II+\0", PictureFormat::Tiff),
    (b"MM\0+", PictureFormat::Tiff),
];

/// How other files begin that people send, and what they are.
const OTHERS: [(&[u8], &str); 15] = [
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\0\0\x01\0", "an icon (ICO)"),
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"gimp xcf", "a GIMP file (XCF)"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI picture"),
    (b"%PDF", "a PDF document"),
    (b"\x1a\x45\xdf\xa3", "a video (WebM or Matroska)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"PK\x03\x04", "a ZIP archive"),
];

/// Texts that are no picture files, by a word near their beginning. The first one that is found counts.
const TEXTS: [(&str, &str); 4] = [
    ("<svg", "an SVG drawing"),
    ("<html", "a web page (HTML)"),
    ("<!doctype html", "a web page (HTML)"),
    ("<?xml", "an XML document"),
];

/// How far a text is read to find out what it is.
const BEGINNING: usize = 1024;

impl PictureFormat {
    /// The format of a file. The error is a sentence that names what the file is, if that is known.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        if let Some((_, format)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
            return Ok(*format);
        }
        if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            return Ok(Self::WebP);
        }
        Err(match other(bytes) {
            Some(what) => format!("It is {what}, which is not supported: send a {PICTURE_FORMATS}."),
            None => format!("It is not a picture in a supported format: send a {PICTURE_FORMATS}."),
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }

    /// The decoder's name for it.
    pub fn codec(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
            Self::Gif => ImageFormat::Gif,
            Self::Bmp => ImageFormat::Bmp,
            Self::Tiff => ImageFormat::Tiff,
        }
    }
}

/// What a file of no supported format is.
fn other(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(iso_media(bytes));
    }
    if let Some((_, what)) = OTHERS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return Some(what);
    }
    let beginning = &bytes[..bytes.len().min(BEGINNING)];
    let text = String::from_utf8_lossy(beginning).to_ascii_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if !text.starts_with('<') {
        return None;
    }
    TEXTS.iter().find(|(word, _)| text.contains(word)).map(|(_, what)| *what)
}

/// What an ISO media file is, by the brands in its first box: AVIF, HEIC or a video.
fn iso_media(bytes: &[u8]) -> &'static str {
    let length = bytes[..4].try_into().map_or(0, u32::from_be_bytes) as usize;
    let brands = bytes.get(8..length.min(bytes.len()).min(BEGINNING)).unwrap_or_default();
    let has = |names: &[&[u8]]| brands.chunks_exact(4).any(|brand| names.contains(&brand));
    if has(&[b"avif", b"avis"]) {
        "an AVIF picture"
    } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) {
        "a HEIC picture"
    } else if has(&[b"crx "]) {
        "a raw photo (CR3)"
    } else {
        "a video (MP4 or QuickTime)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_refused_by_name() {
        for (bytes, what) in [
            (&b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"[..], "It is an AVIF picture"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "It is an AVIF picture"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "It is a HEIC picture"),
            (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "It is a video"),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "It is a raw photo"),
            (b"\xff\xff\xff\xffftyp", "It is a video"),
            (b"\xff\x0a\x7f\x00", "It is a JPEG XL picture"),
            (b"\0\0\0\x0cJXL \r\n\x87\n\0", "It is a JPEG XL picture"),
            (b"\xef\xbb\xbf <?xml version=\"1.0\"?>\n<SVG width=\"1\">", "It is an SVG drawing"),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "It is an SVG drawing"),
            (b"\n<!DOCTYPE html><title>Not found</title>", "It is a web page (HTML)"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "It is an XML document"),
            (b"%PDF-1.7", "It is a PDF document"),
            (b"8BPS\0\x01", "It is a Photoshop file"),
            (b"RIFF\x04\0\0\0WAVE", "It is not a picture"),
            (b"a red fox", "It is not a picture"),
            (b"", "It is not a picture"),
        ] {
            let sentence = PictureFormat::of(bytes).unwrap_err();
            assert!(sentence.starts_with(what), "{bytes:?}: {sentence}");
            assert!(sentence.ends_with("send a PNG, JPEG, WebP, GIF, BMP or TIFF."), "{sentence}");
        }
    }
}
