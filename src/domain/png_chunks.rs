//! The chunks of a PNG file that its pixels need.
//!
//! A colour profile or a text is compressed on its own: half a megabyte of a stranger's file can unfold to half a
//! gigabyte, and a decoder unfolds it before it shows the size of the picture. Nothing here uses such chunks, so no decoder
//! sees them.

use std::borrow::Cow;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// A chunk's length and name before its data, and its checksum behind.
const AROUND: usize = 12;
/// The chunks that decide about pixels: those that every decoder must know, transparency, and which way is up.
const KEPT: [&[u8; 4]; 6] = [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"];
/// An orientation takes some ten bytes; a camera adds a thumbnail.
const MAX_EXIF: usize = 1 << 20;

/// The file without all other chunks and without what lies behind its end. What is no PNG file, or is damaged, comes back as
/// it is from the damage on.
pub fn pixel_chunks(file: &[u8]) -> Cow<'_, [u8]> {
    let length: usize = Chunks::of(file).filter(Chunk::is_kept).map(|chunk| chunk.bytes.len()).sum();
    if !file.starts_with(SIGNATURE) || SIGNATURE.len() + length == file.len() {
        return Cow::Borrowed(file);
    }
    let mut kept = Vec::with_capacity(SIGNATURE.len() + length);
    kept.extend_from_slice(SIGNATURE);
    for chunk in Chunks::of(file).filter(Chunk::is_kept) {
        kept.extend_from_slice(chunk.bytes);
    }
    Cow::Owned(kept)
}

struct Chunk<'a> {
    /// The whole chunk; the rest of the file behind the last whole one.
    bytes: &'a [u8],
    is_whole: bool,
}

impl Chunk<'_> {
    fn is_kept(&self) -> bool {
        let Some(name) = self.bytes.get(4..8).filter(|_| self.is_whole) else { return true };
        let is_too_long = name == b"eXIf" && self.bytes.len() > MAX_EXIF;
        KEPT.iter().any(|kept| *kept == name) && !is_too_long
    }
}

struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    fn of(file: &'a [u8]) -> Self {
        Self(file.strip_prefix(SIGNATURE).unwrap_or_default())
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let length = self.0.first_chunk().map(|length| u32::from_be_bytes(*length) as usize + AROUND);
        let whole = length.and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = whole.unwrap_or((self.0, &[]));
        // A file may go on behind its end, but not as a picture.
        self.0 = if bytes.get(4..8) == Some(b"IEND") { &[] } else { rest };
        Some(Chunk { bytes, is_whole: whole.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &str, data: &[u8]) -> Vec<u8> {
        // Nothing here looks at the checksum.
        [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], name.as_bytes(), data, b"crc!"].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [SIGNATURE.to_vec(), chunks.concat()].concat()
    }

    #[test]
    fn only_chunks_that_decide_about_pixels_are_left() {
        let kept =
            [chunk("IHDR", b"size"), chunk("tRNS", b"t"), chunk("IDAT", b"pixels"), chunk("IEND", b"")];
        assert!(matches!(pixel_chunks(&file(&kept)), Cow::Borrowed(_)));
        let [header, transparency, pixels, end] = kept.clone();
        let more = [
            header,
            chunk("iCCP", b"x\0\0unfolds"),
            transparency,
            chunk("zTXt", b""),
            pixels,
            chunk("iTXt", b"a"),
            chunk("eXIf", &vec![0; MAX_EXIF]),
            end,
        ];
        assert_eq!(*pixel_chunks(&file(&more)), *file(&kept));
    }

    #[test]
    fn what_is_damaged_or_no_png_file_stays_as_it_is() {
        for bytes in [
            &b""[..],
            b"GIF89a",
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffiCCP",
            b"\x89PNG\r\n\x1a\n\0\0",
        ] {
            assert_eq!(*pixel_chunks(bytes), *bytes);
        }
        let cut = [file(&[chunk("iCCP", b"x")]), b"\0\0\0\x09IDATcut".to_vec()].concat();
        assert_eq!(*pixel_chunks(&cut), *b"\x89PNG\r\n\x1a\n\0\0\0\x09IDATcut");
    }
}
