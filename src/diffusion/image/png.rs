//! PNG files, with text chunks that say how the picture was made. Equal input gives equal bytes.

use png::{BitDepth, ColorType, Compression, Encoder};

use super::{ImageError, RgbImage};

const LONGEST_KEYWORD: usize = 79;

/// The picture as a PNG file, with `texts` (keyword and text) before its pixels. Like Pillow, it writes a `tEXt` chunk if
/// the text fits into Latin-1, otherwise `iTXt`. Line ends become `\n`, other control characters U+FFFD.
pub fn encode_png(image: &RgbImage, texts: &[(&str, &str)]) -> Result<Vec<u8>, ImageError> {
    check_length(image)?;
    let &RgbImage { width, height, ref pixels } = image;
    let mut bytes = Vec::with_capacity(pixels.len() / 2);
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    // Measured with `times` below, against zlib's level 4 with the same filter: a third of the time or less, and files
    // at most an eighth larger. At 128 px they are no larger.
    encoder.set_compression(Compression::Fast);
    for &(keyword, text) in texts {
        if !is_keyword(keyword) {
            return Err(ImageError::Keyword(keyword.escape_debug().take(LONGEST_KEYWORD).collect()));
        }
        let (keyword, text) = (keyword.to_owned(), safe(text));
        if text.chars().all(is_latin1) {
            encoder.add_text_chunk(keyword, text)?;
        } else {
            encoder.add_itxt_chunk(keyword, text)?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// Fails if there are not three bytes for each pixel. Some encoders would panic then.
pub(super) fn check_length(image: &RgbImage) -> Result<(), ImageError> {
    let &RgbImage { width, height, ref pixels } = image;
    if u64::from(width) * u64::from(height) * 3 != pixels.len() as u64 {
        return Err(ImageError::Length { width, height, bytes: pixels.len() });
    }
    Ok(())
}

/// PNG's rule (11.3.3.2): 1 to 79 printable Latin-1 characters, single spaces, none at the ends.
fn is_keyword(keyword: &str) -> bool {
    (1..=LONGEST_KEYWORD).contains(&keyword.chars().count())
        && keyword.chars().all(|c| is_latin1(c) && !c.is_control() && c != '\u{a0}')
        && !keyword.starts_with(' ')
        && !keyword.ends_with(' ')
        && !keyword.contains("  ")
}

fn is_latin1(c: char) -> bool {
    u8::try_from(c).is_ok()
}

/// A NUL ends the text for some readers, and an escape character can control a terminal.
fn safe(text: &str) -> String {
    let unwanted = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(unwanted) {
        return text.to_owned();
    }
    text.replace("\r\n", "\n").replace('\r', "\n").replace(unwanted, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::time::Instant;

    use png::{DeflateCompression, Filter};

    use super::*;
    use crate::domain::ImageSize;

    struct Decoded {
        image: RgbImage,
        latin1: Vec<(String, String)>,
        utf8: Vec<(String, String)>,
    }

    fn decode(bytes: &[u8]) -> Decoded {
        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let info = reader.info();
        let (width, height) = info.size();
        let latin1 =
            info.uncompressed_latin1_text.iter().map(|t| (t.keyword.clone(), t.text.clone())).collect();
        let utf8 = info.utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().unwrap())).collect();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        Decoded { image: RgbImage { width, height, pixels }, latin1, utf8 }
    }

    fn picture(width: u32, height: u32, noise: u32) -> RgbImage {
        let mut state = 1_u32;
        let mut pixels = Vec::new();
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for channel in 1..=3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let grain = (state >> 24) * noise / 255;
                let wave = (f64::from(x * channel) / 37.0).sin() * (f64::from(y) / 53.0).cos();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0…255")]
                pixels.push(((wave * 110.0 + 110.0) as u32 + grain).min(255) as u8);
            }
        }
        RgbImage { width, height, pixels }
    }

    fn pair(keyword: &str, text: &str) -> (String, String) {
        (keyword.to_owned(), text.to_owned())
    }

    #[test]
    fn pixels_and_texts_survive_a_round_trip() {
        let image = picture(33, 17, 40);
        let texts = [
            ("parameters", "ein Café\n\tdélicieux"),
            ("stablehand", "{\"prompt\":\"日本 😀\"}"),
            ("Empty", ""),
        ];
        let decoded = decode(&encode_png(&image, &texts).unwrap());
        assert_eq!(decoded.image, image);
        assert_eq!(decoded.latin1, [pair("parameters", "ein Café\n\tdélicieux"), pair("Empty", "")]);
        assert_eq!(decoded.utf8, [pair("stablehand", "{\"prompt\":\"日本 😀\"}")]);
    }

    #[test]
    fn control_characters_are_made_safe() {
        let text = "a\0b\r\nc\rd\u{1b}[31m\u{7f}\u{9b}e";
        let decoded = decode(&encode_png(&picture(1, 1, 0), &[("parameters", text)]).unwrap());
        let safe = "a\u{fffd}b\nc\nd\u{fffd}[31m\u{fffd}\u{fffd}e";
        assert_eq!((decoded.latin1, decoded.utf8), (vec![], vec![pair("parameters", safe)]));
    }

    #[test]
    fn keywords_follow_the_rules_of_png() {
        let (longest, longer) = ("k".repeat(79), "k".repeat(80));
        for (keyword, good) in [
            ("parameters", true),
            ("two words", true),
            ("é", true),
            (&longest, true),
            (&longer, false),
            ("", false),
            (" a", false),
            ("a ", false),
            ("a  b", false),
            ("a\0b", false),
            ("a\nb", false),
            ("a\u{a0}b", false),
            ("日", false),
        ] {
            assert_eq!(encode_png(&picture(1, 1, 0), &[(keyword, "")]).is_ok(), good, "{keyword:?}");
        }
    }

    #[test]
    fn equal_pictures_give_equal_bytes() {
        let encode = || encode_png(&picture(64, 64, 90), &[("parameters", "a")]).unwrap();
        assert_eq!(encode(), encode());
    }

    /// Prints the times and sizes by which the level above was chosen. Run it with `--ignored --nocapture`.
    #[test]
    #[ignore = "prints times"]
    fn times() {
        // Twelve drawings of the default model, and the first of them, enlarged as its pictures are.
        let drawn = include_bytes!("../../../models/tiny-sd/training/samples-basic.png");
        let sheet = decode(drawn).image;
        let row = |y: usize| &sheet.pixels[y * sheet.width as usize * 3..][..128 * 3];
        let small = RgbImage { width: 128, height: 128, pixels: (0..128).flat_map(row).copied().collect() };
        let pictures = [
            ("drawn at 128", small.clone()),
            ("enlarged to 512", small.resize(ImageSize { width: 512, height: 512 }).unwrap()),
            ("grain at 512", picture(512, 512, 24)),
            ("sheet", sheet),
        ];
        for (name, image) in &pictures {
            println!("{name}: {}x{}", image.width, image.height);
            for level in [0, 1, 2, 4, 6] {
                for filter in [Filter::Up, Filter::Paeth, Filter::Adaptive] {
                    let start = Instant::now();
                    let mut bytes = Vec::new();
                    let mut encoder = Encoder::new(&mut bytes, image.width, image.height);
                    encoder.set_color(ColorType::Rgb);
                    encoder.set_deflate_compression(match level {
                        0 => DeflateCompression::FdeflateUltraFast,
                        level => DeflateCompression::Level(level),
                    });
                    encoder.set_filter(filter);
                    encoder.write_header().unwrap().write_image_data(&image.pixels).unwrap();
                    println!("  {level} {filter:?} {:.1?} {} bytes", start.elapsed(), bytes.len());
                }
            }
        }
    }
}
