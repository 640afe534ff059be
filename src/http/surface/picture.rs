//! The picture as the client asked for it: enlarged, or in another format. The stored one is a PNG at the size at which it
//! was drawn.

use std::fmt;

use super::heavy;
use crate::diffusion::image::{
    ImageError, PictureFile, PictureTexts, decode_image, enlarged_infotext, png_texts, upright_size,
};
use crate::domain::ImageSize;
use crate::http::request::ApiError;

/// The keywords of A1111's infotext and of our own request in a PNG file.
const PARAMETERS: &str = "parameters";
const REQUEST: &str = "stablehand";

/// What to do to a stored picture. Shown as `1024x1024-q90.jpeg` or `drawn-q100.png`, which is also its name in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// The size to bring it to, if it is another.
    pub size: Option<ImageSize>,
    pub format: PictureFile,
    /// From 0 to 100, for JPEG. PNG and WebP lose nothing.
    pub quality: u8,
}

/// The stored file as it is.
impl Default for Finish {
    fn default() -> Self {
        Self { size: None, format: PictureFile::Png, quality: 100 }
    }
}

impl Finish {
    /// Whether the stored file is the answer as it is.
    pub fn is_plain(&self) -> bool {
        self.size.is_none() && self.format == PictureFile::Png
    }

    /// The file that the client gets, made on a thread for blocking work.
    pub async fn apply(self, png: Vec<u8>) -> Result<Vec<u8>, ApiError> {
        if self.is_plain() {
            return Ok(png);
        }
        heavy(move || self.finish(&png)).await?.map_err(|error| {
            tracing::error!(%error, "a finished picture could not be enlarged or encoded");
            ApiError::Internal
        })
    }

    /// The text that says how the picture was made, as the finished file has it. None if the stored file has none.
    pub fn infotext(self, png: &[u8]) -> Option<String> {
        let texts = png_texts(png).ok()?;
        let text = texts.into_iter().find(|(keyword, _)| keyword == PARAMETERS)?.1;
        let Some(size) = self.size else { return Some(text) };
        let drawn = upright_size(png).ok()?;
        Some(if drawn == size { text } else { enlarged_infotext(&text, drawn, size) })
    }

    fn finish(self, png: &[u8]) -> Result<Vec<u8>, ImageError> {
        let texts = png_texts(png)?;
        let text = |keyword: &str| {
            let found = texts.iter().find(|(known, _)| known == keyword);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let mut texts = PictureTexts { parameters: text(PARAMETERS), request: text(REQUEST) };
        let mut image = decode_image(png)?;
        if let Some(size) = self.size.filter(|size| *size != image.size()) {
            texts.parameters = enlarged_infotext(&texts.parameters, image.size(), size);
            image = image.resize(size)?;
        }
        Ok(self.format.encode_at(self.quality, &image, &texts)?.bytes)
    }

    /// Reads the name in a URL. Only the one spelling that we write is one.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, format) = name.rsplit_once('.')?;
        let (size, quality) = stem.rsplit_once("-q")?;
        let size = match size {
            "drawn" => None,
            size => {
                let (width, height) = size.split_once('x')?;
                Some(ImageSize { width: width.parse().ok()?, height: height.parse().ok()? })
            }
        };
        let finish = Self { size, format: PictureFile::parse(format)?, quality: quality.parse().ok()? };
        (finish.to_string() == name).then_some(finish)
    }
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            None => f.write_str("drawn")?,
            Some(ImageSize { width, height }) => write!(f, "{width}x{height}")?,
        }
        write!(f, "-q{}.{}", self.quality, self.format.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::image::{RgbImage, encode_png};

    const SIZE: ImageSize = ImageSize { width: 96, height: 48 };

    fn stored() -> Vec<u8> {
        let pixels = (0..64 * 32_u32).flat_map(|at| [at.to_le_bytes()[0], 90, 200]).collect();
        let text = "a fox\nSteps: 5, Size: 64x32, Model: m, Version: stablehand";
        let image = RgbImage { width: 64, height: 32, pixels };
        encode_png(&image, &[(PARAMETERS, text), ("stablehand", "{}")]).unwrap()
    }

    #[test]
    fn an_enlarged_picture_keeps_its_texts_and_says_at_what_size_it_was_drawn() {
        let finish = Finish { size: Some(SIZE), format: PictureFile::Png, quality: 100 };
        let png = finish.finish(&stored()).unwrap();
        assert_eq!(decode_image(&png).unwrap().size(), SIZE);
        let texts = png_texts(&png).unwrap();
        assert_eq!(
            texts[0].1,
            "a fox\nSteps: 5, Size: 96x48, Model: m, Drawn at: \"64x32, enlarged\", Version: stablehand"
        );
        assert_eq!(texts[1], ("stablehand".to_owned(), "{}".to_owned()));
    }

    #[test]
    fn every_format_decodes_to_the_size_that_was_asked() {
        for format in PictureFile::ALL {
            let bytes = Finish { size: Some(SIZE), format, quality: 90 }.finish(&stored()).unwrap();
            assert_eq!(decode_image(&bytes).unwrap().size(), SIZE, "{format:?}");
            let same = Finish { size: None, format, quality: 90 }.finish(&stored()).unwrap();
            assert_eq!(decode_image(&same).unwrap().width, 64, "{format:?}");
        }
    }

    #[test]
    fn a_name_reads_back_and_no_other_spelling_is_read() {
        for size in [None, Some(SIZE)] {
            for format in PictureFile::ALL {
                let finish = Finish { size, format, quality: 85 };
                assert_eq!(Finish::parse(&finish.to_string()), Some(finish));
            }
        }
        for name in
            ["", "drawn.png", "drawn-q85.jpg", "drawn-q085.jpeg", "+1x1-q1.png", "1x1-q1.gif", "1x1-q300.png"]
        {
            assert_eq!(Finish::parse(name), None, "{name}");
        }
    }
}
