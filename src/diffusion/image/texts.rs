//! Reads the texts of a PNG file, without its pixels.

use std::io::Cursor;

use png::{Decoder, Limits};

use super::ImageError;

/// The memory that texts may need.
const MAX_BYTES: usize = 8 << 20;

/// The texts (keyword and text) before the pixels of a PNG file, in the order of the file's kinds of text. The file may be
/// hostile: no more than [`MAX_BYTES`] of it are unfolded, and compressed texts of the old kind are left out.
pub fn png_texts(png: &[u8]) -> Result<Vec<(String, String)>, ImageError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(png), Limits { bytes: MAX_BYTES });
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder
        .read_info()
        .map_err(|error| ImageError::Decode { format: "PNG", reason: error.to_string() })?;
    let info = reader.info();
    let latin1 = info.uncompressed_latin1_text.iter().map(|text| (text.keyword.clone(), text.text.clone()));
    let utf8 = info.utf8_text.iter().filter_map(|text| Some((text.keyword.clone(), text.get_text().ok()?)));
    Ok(latin1.chain(utf8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::image::{RgbImage, encode_png};

    #[test]
    fn texts_that_were_written_are_read() {
        let image = RgbImage { width: 1, height: 1, pixels: vec![0; 3] };
        let png = encode_png(&image, &[("parameters", "a fox"), ("stablehand", "狐")]).unwrap();
        let texts = png_texts(&png).unwrap();
        let texts: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        assert_eq!(texts, [("parameters", "a fox"), ("stablehand", "狐")]);
        assert!(png_texts(b"\x89PNG").is_err());
    }
}
