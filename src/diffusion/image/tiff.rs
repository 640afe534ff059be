//! TIFFs that the `image` crate does not read: palettes, and shades of grey with alpha.
//!
//! The `tiff` crate reads their samples, but knows no palettes. So a palette's numbers are read as if they were shades of
//! grey, from a copy that says so, and looked up here.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{TiffError, TiffResult};

/// What a TIFF says its samples mean (TIFF 6.0, page 37).
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;
/// The number of that tag.
const MEANING: u16 = 262;

/// The picture in a TIFF, if it is of one of these kinds, and how it is to be turned. It has at most `most_pixels` pixels,
/// and takes about `memory` bytes at most. `take` is called with the bytes that it will take before it is decoded.
pub(super) fn unusual<T>(
    bytes: &[u8],
    most_pixels: u64,
    memory: u64,
    take: impl FnOnce(u64) -> T,
) -> Result<Option<(DynamicImage, Orientation, T)>, String> {
    let refuse = |error: TiffError| error.to_string();
    let mut file = open(bytes, memory).map_err(refuse)?;
    let number = |file: &mut File, tag| file.find_tag_unsigned_vec::<u16>(tag).map_err(refuse);
    let first = |numbers: Option<Vec<u16>>| numbers.and_then(|numbers| numbers.first().copied());
    let meaning = first(number(&mut file, Tag::PhotometricInterpretation)?);
    let samples = first(number(&mut file, Tag::SamplesPerPixel)?).unwrap_or(1);
    let bits = first(number(&mut file, Tag::BitsPerSample)?).unwrap_or(1);
    let is_palette = (meaning, samples, bits) == (Some(PALETTE), 1, 8);
    let is_grey = meaning == Some(BLACK_IS_ZERO) && samples > 1 && matches!(bits, 8 | 16);
    if !(is_palette || is_grey) {
        return Ok(None);
    }
    let (width, height) = file.dimensions().map_err(refuse)?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels > most_pixels {
        return Err(format!("it is {width}×{height}, but at most {most_pixels} pixels are read"));
    }
    // All samples of up to 16 bits, and the picture.
    let taken = take(pixels * (2 * u64::from(samples) + 3));
    let orientation = first(number(&mut file, Tag::Orientation)?).and_then(|turn| u8::try_from(turn).ok());
    let orientation = orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);

    let picture = if is_palette {
        let colours = file.get_tag_u16_vec(Tag::ColorMap).map_err(refuse)?;
        let grey = called_grey(bytes).ok_or("its directory cannot be followed")?;
        let numbers = first_samples(&mut open(&grey, memory).map_err(refuse)?, width, height)?;
        let pixels = numbers.into_iter().flat_map(|number| colour(&colours, number)).collect();
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        let shades = first_samples(&mut file, width, height)?;
        GrayImage::from_raw(width, height, shades).map(DynamicImage::from)
    };
    picture
        .map(|picture| Some((picture, orientation, taken)))
        .ok_or_else(|| "it has too few samples".to_owned())
}

type File<'a> = Decoder<Cursor<&'a [u8]>>;

fn open(bytes: &[u8], memory: u64) -> TiffResult<File<'_>> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(memory).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    Ok(Decoder::new(Cursor::new(bytes))?.with_limits(limits))
}

/// The first sample of each pixel, of 16 bits the upper eight.
fn first_samples(file: &mut File, width: u32, height: u32) -> Result<Vec<u8>, String> {
    let pixels = width as usize * height as usize;
    // Of samples that lie in planes, the decoder gives the first plane alone.
    let every = |values: usize| (values / pixels.max(1)).max(1);
    match file.read_image().map_err(|error| error.to_string())? {
        DecodingResult::U8(values) => Ok(values.iter().step_by(every(values.len())).copied().collect()),
        DecodingResult::U16(values) => {
            Ok(values.iter().step_by(every(values.len())).map(|value| value.to_be_bytes()[0]).collect())
        }
        _ => Err("its samples are no whole numbers".to_owned()),
    }
}

/// A colour of a palette, which holds all reds, then all greens, then all blues, of 16 bits.
fn colour(colours: &[u16], number: u8) -> [u8; 3] {
    let each = colours.len() / 3;
    [0, 1, 2].map(|channel| {
        let place = channel * each + usize::from(number);
        colours.get(place).filter(|_| usize::from(number) < each).map_or(0, |value| value.to_be_bytes()[0])
    })
}

/// A copy whose first directory says that the samples are shades of grey.
fn called_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_big = bytes.starts_with(b"MM");
    let short = |at: usize| {
        let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let word: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
    let directory = if is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) } as usize;
    let entries = usize::from(short(directory)?);
    // An entry has twelve bytes: its tag and its type of two, a count of four, then the value.
    let entry =
        (0..entries).map(|entry| directory + 2 + 12 * entry).find(|at| short(*at) == Some(MEANING))?;
    let mut copy = bytes.to_vec();
    let value = if is_big { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
    copy.get_mut(entry + 8..entry + 10)?.copy_from_slice(&value);
    Some(copy)
}
