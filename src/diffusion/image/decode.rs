//! Pixels from picture files, as Pillow's `exif_transpose` and `convert("RGB")` give them.
//!
//! It reads PNG, JPEG, WebP, GIF, BMP and TIFF with up to 16 bits: grey, palette, colour or CMYK. Of an animation it reads
//! the first frame. Like Pillow, it drops alpha without compositing and ignores colour profiles. The file comes from a
//! client and may be hostile: limits on its size apply before anything is decompressed.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::decode_room::{Room, Taken};
use super::{ImageError, RgbImage, tiff};
use crate::domain::{ImageSize, MAX_IMAGE_PIXELS, PictureFormat, pixel_chunks};

/// The memory that a decoder may use: the widest pixels (16 bits, alpha), and as much again to work with.
const MAX_ALLOC: u64 = MAX_IMAGE_PIXELS * 8 * 2;
/// The longest side that JPEG and GIF allow. WebP allows less.
const MAX_SIDE: u32 = 65_535;
/// For all pictures together: for the largest one, or for many of usual sizes.
static ROOM: Room = Room::new(MAX_ALLOC);

/// The pixels of a picture file, turned upright by its EXIF orientation.
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let (image, _taken) = reading(bytes, upright)?;
    let (width, height) = (image.width(), image.height());
    Ok(RgbImage { width, height, pixels: rgb(image) })
}

/// The same with its alpha; none if its pixels have none. A picture without alpha is not decoded.
pub(super) fn decode_with_alpha(bytes: &[u8]) -> Result<Option<DynamicImage>, ImageError> {
    let has_alpha = |bytes: &[u8], format| {
        Ok(unusual(bytes, format)?.is_none() && decoder(bytes, format)?.color_type().has_alpha())
    };
    if reading(bytes, has_alpha)? { reading(bytes, upright).map(|(image, _)| Some(image)) } else { Ok(None) }
}

/// The size of a picture file, turned upright. Of most formats it reads the header alone.
pub fn upright_size(bytes: &[u8]) -> Result<ImageSize, ImageError> {
    reading(bytes, |bytes, format| {
        let ((width, height), orientation) = if let Some((image, orientation, _)) = unusual(bytes, format)? {
            ((image.width(), image.height()), orientation)
        } else {
            let mut decoder = decoder(bytes, format)?;
            (decoder.dimensions(), orientation(&mut decoder, bytes, format))
        };
        let is_turned = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        Ok(if is_turned { ImageSize { width: height, height: width } } else { ImageSize { width, height } })
    })
}

/// Finds a file's format, and names it if `read` fails.
fn reading<T>(
    bytes: &[u8],
    read: impl FnOnce(&[u8], PictureFormat) -> Result<T, String>,
) -> Result<T, ImageError> {
    let format = PictureFormat::of(bytes).map_err(ImageError::Format)?;
    read(bytes, format).map_err(|reason| ImageError::Decode { format: format.as_str(), reason })
}

/// The picture, and the room that it takes until it is in another form. Blocks until there is room.
fn upright(bytes: &[u8], format: PictureFormat) -> Result<(DynamicImage, Taken<'static>), String> {
    let (mut image, orientation, taken) = if let Some(unusual) = unusual(bytes, format)? {
        unusual
    } else {
        let mut decoder = decoder(bytes, format)?;
        let orientation = orientation(&mut decoder, bytes, format);
        // As much again for the decoder, or for the next form.
        let taken = ROOM.take(decoder.total_bytes().saturating_mul(2));
        (DynamicImage::from_decoder(decoder).map_err(|error| sentence(&error))?, orientation, taken)
    };
    image.apply_orientation(orientation);
    Ok((image, taken))
}

/// A picture that is decoded, but not turned.
type Unturned = (DynamicImage, Orientation, Taken<'static>);

/// The picture, if it is of a kind that `image` does not read.
fn unusual(bytes: &[u8], format: PictureFormat) -> Result<Option<Unturned>, String> {
    if format != PictureFormat::Tiff {
        return Ok(None);
    }
    tiff::unusual(bytes, MAX_IMAGE_PIXELS, MAX_ALLOC, |bytes| ROOM.take(bytes))
}

/// The decoder of a file that is within the limits.
fn decoder(bytes: &[u8], format: PictureFormat) -> Result<impl ImageDecoder + '_, String> {
    let mut reader = ImageReader::with_format(Cursor::new(pixel_chunks(bytes)), format.codec());
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOC);
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| sentence(&error))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
        return Err(format!("it is {width}×{height}, but at most {MAX_IMAGE_PIXELS} pixels are read"));
    }
    Ok(decoder)
}

/// Invalid metadata does not make the picture unreadable.
fn orientation(decoder: &mut impl ImageDecoder, bytes: &[u8], format: PictureFormat) -> Orientation {
    let is_readable = format != PictureFormat::WebP || has_whole_exif(bytes);
    let read = is_readable.then(|| decoder.orientation().ok()).flatten();
    read.unwrap_or(Orientation::NoTransforms)
}

/// Whether the EXIF chunks of a WebP file end within it. `image` allocates the length that such a chunk claims, up to 4 GB.
fn has_whole_exif(mut chunks: &[u8]) -> bool {
    chunks = chunks.get(12..).unwrap_or_default();
    while let [a, b, c, d, l0, l1, l2, l3, rest @ ..] = chunks {
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        if [*a, *b, *c, *d] == *b"EXIF" && length > rest.len() {
            return false;
        }
        chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    true
}

/// The first line of an error, at most 200 characters: these errors quote the file.
fn sentence(error: &image::ImageError) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Three bytes a pixel. 16 bits are cut to the upper eight.
fn rgb(image: DynamicImage) -> Vec<u8> {
    let upper = |value: &u16| value.to_be_bytes()[0];
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma8(image) => image.iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgba8(image) => image.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|v| [upper(v); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.chunks_exact(2).flat_map(|p| [upper(&p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.iter().map(upper).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.chunks_exact(4).flat_map(|p| [upper(&p[0]), upper(&p[1]), upper(&p[2])]).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        file: String,
        width: u32,
        height: u32,
        pixels: String,
        /// Decoders of lossy formats round differently.
        tolerance: u8,
    }

    fn cases() -> Vec<Case> {
        serde_json::from_str(include_str!("../../../tests/golden/decode.json")).unwrap()
    }

    #[test]
    fn every_kind_of_file_gives_the_pixels_of_pillow() {
        for case in cases() {
            let file = STANDARD.decode(&case.file).unwrap();
            let image = decode_image(&file).unwrap();
            assert_eq!(upright_size(&file).unwrap(), image.size(), "{}", case.name);
            assert_eq!((image.width, image.height), (case.width, case.height), "{}", case.name);
            assert_eq!(image.pixels.len() * 2, case.pixels.len(), "{}", case.name);
            let expected = (0..image.pixels.len())
                .map(|at| u8::from_str_radix(&case.pixels[2 * at..2 * at + 2], 16).unwrap());
            let furthest = image.pixels.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max();
            assert!(furthest <= Some(case.tolerance), "{}: {furthest:?}", case.name);
        }
    }

    #[test]
    fn what_lies_behind_the_end_changes_nothing() {
        for case in cases() {
            let file = STANDARD.decode(&case.file).unwrap();
            let longer = [&file[..], b"\0\0\0\x18ftypmp42\xff\xda\xff\xd9IEND\x3b"].concat();
            assert_eq!(decode_image(&longer).unwrap(), decode_image(&file).unwrap(), "{}", case.name);
        }
    }

    #[test]
    fn an_exif_chunk_that_claims_more_than_its_file_is_not_read() {
        let exif_of = |file: &[u8]| file.windows(4).position(|name| name == b"EXIF");
        let files = cases().into_iter().map(|case| STANDARD.decode(case.file).unwrap());
        let whole =
            files.filter(|file| file.starts_with(b"RIFF")).find(|file| exif_of(file).is_some()).unwrap();
        assert!(has_whole_exif(&whole));
        let at = exif_of(&whole).unwrap();
        for length in [u32::MAX, u32::MAX - 1, 0x2625_001a] {
            let mut file = whole.clone();
            file[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
            assert!(!has_whole_exif(&file));
            // Drawn as it lies in the file, not turned.
            let size = decode_image(&file).unwrap().size();
            assert_ne!(size, decode_image(&whole).unwrap().size());
            assert_eq!(upright_size(&file).unwrap(), size);
        }
    }

    #[test]
    fn a_frame_that_is_larger_than_its_gif_takes_no_memory() {
        let gif = [
            &b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"[..],
            b"\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0\x3b",
        ];
        let sentence = decode_image(&gif.concat()).unwrap_err().to_string();
        assert!(sentence.starts_with("the picture to start from could not be read as GIF: "), "{sentence}");
    }

    #[test]
    fn damaged_files_give_an_error_of_one_line_and_never_panic() {
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for case in cases() {
            let whole = STANDARD.decode(&case.file).unwrap();
            for _ in 0..60 {
                let mut bytes = whole.clone();
                for _ in 0..=random(3) {
                    let at = random(bytes.len());
                    bytes[at] = random(256).to_le_bytes()[0];
                }
                bytes.truncate(whole.len() - random(whole.len()) * random(2));
                if let Err(error) = decode_image(&bytes) {
                    let sentence = error.to_string();
                    assert!(sentence.starts_with("the picture to start from") && !sentence.contains('\n'));
                }
            }
        }
    }
}
