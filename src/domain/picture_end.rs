//! Whether a picture file has its end, as far as this shows without decoding.
//!
//! Decoders accept a JPEG without its end and paint the rest grey. What comes after the end does not matter: phones put
//! videos and further pictures there. So each format is followed from its beginning.

use std::io::Cursor;

use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use super::PictureFormat;

/// Whether the end of the file is missing.
pub(super) fn is_cut_short(format: PictureFormat, bytes: &[u8]) -> bool {
    let is_whole = match format {
        PictureFormat::Png => png(bytes),
        PictureFormat::Jpeg => jpeg(bytes),
        PictureFormat::WebP => webp(bytes),
        PictureFormat::Gif => gif(bytes),
        PictureFormat::Bmp => bmp(bytes),
        PictureFormat::Tiff => tiff(bytes),
    };
    is_whole.is_none()
}

/// PNG: chunks of a length, a name, that many bytes and a checksum, through `IEND`.
fn png(bytes: &[u8]) -> Option<()> {
    let mut at = 8;
    loop {
        let length = u32::from_be_bytes(array(bytes, at)?) as usize;
        if bytes.get(at + 4..at + 8)? == b"IEND" {
            return Some(());
        }
        at = at.checked_add(length)?.checked_add(12)?;
    }
}

/// JPEG (ITU T.81, B.1): segments with a length; after a scan's header come its data, in which only restart markers and
/// stuffed zeros follow an FF.
fn jpeg(bytes: &[u8]) -> Option<()> {
    let (mut at, mut has_scan) = (2, false);
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)? + 1;
        match *bytes.get(at)? {
            0xd9 if has_scan => return Some(()),
            0x00 | 0x01 | 0xd0..=0xd9 => at += 1,
            // The next FF is the one that counts.
            0xff => {}
            marker => {
                has_scan |= marker == 0xda;
                at += 1 + usize::from(u16::from_be_bytes(array(bytes, at + 1)?)).max(2);
            }
        }
    }
}

/// WebP: the RIFF header states the length.
fn webp(bytes: &[u8]) -> Option<()> {
    let stated = u32::from_le_bytes(array(bytes, 4)?) as usize;
    (bytes.len() >= stated.checked_add(8)?).then_some(())
}

/// GIF (89a, 20 to 22): tables of colours, and blocks that end with an empty one. The first picture is enough.
fn gif(bytes: &[u8]) -> Option<()> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + table(*bytes.get(10)?);
    loop {
        let is_picture = match *bytes.get(at)? {
            // The decoder says that there is no picture.
            0x3b => return Some(()),
            0x2c => {
                at += 11 + table(*bytes.get(at + 9)?);
                true
            }
            _ => {
                at += 2;
                false
            }
        };
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        if is_picture {
            return Some(());
        }
    }
}

/// BMP: rows of four-byte words at the place that the header states. Compressed rows have no stated end.
fn bmp(bytes: &[u8]) -> Option<()> {
    let word = |at| Some(u64::from(u32::from_le_bytes(array(bytes, at)?)));
    let half = |at| Some(u64::from(u16::from_le_bytes(array(bytes, at)?)));
    let (width, height, bits, is_plain) = if word(14)? == 12 {
        (half(18)?, half(20)?, half(24)?, true)
    } else {
        // A negative height means rows from the top.
        let height = i32::from_le_bytes(array(bytes, 22)?).unsigned_abs();
        (word(18)?, u64::from(height), half(28)?, matches!(word(30)?, 0 | 3 | 6))
    };
    let rows = width.checked_mul(bits)?.div_ceil(32).checked_mul(4)?.checked_mul(height)?;
    (!is_plain || bytes.len() as u64 >= word(10)?.checked_add(rows)?).then_some(())
}

/// TIFF: each strip or tile lies where its directory says. A file that cannot be followed is left to the decoder, which
/// says what is wrong.
fn tiff(bytes: &[u8]) -> Option<()> {
    let mut file = match Decoder::new(Cursor::new(bytes)) {
        Ok(file) => file,
        // The directory may lie at the end.
        Err(TiffError::IoError(_)) => return None,
        Err(_) => return Some(()),
    };
    for (places, lengths) in
        [(Tag::StripOffsets, Tag::StripByteCounts), (Tag::TileOffsets, Tag::TileByteCounts)]
    {
        let mut list = |tag| file.get_tag_u64_vec(tag).unwrap_or_default();
        for (place, length) in list(places).into_iter().zip(list(lengths)) {
            if place.saturating_add(length) > bytes.len() as u64 {
                return None;
            }
        }
    }
    Some(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
