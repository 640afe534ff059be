//! The ONNX Runtime library that this binary carries, and its place in the cache.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;

use super::RuntimeError;

include!(concat!(env!("OUT_DIR"), "/library.rs"));

/// The raw deflate stream of the library, straight from its wheel.
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/library.deflate"));
static NOTICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/notices.deflate"));

/// The licences of what ONNX Runtime is made of.
pub fn notices() -> String {
    let mut text = Vec::new();
    // The stream was checked when it was embedded.
    let _ = DeflateDecoder::new(NOTICES).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The library's path under `cache`, if it has been unpacked there.
pub fn unpacked(cache: &Path) -> Option<PathBuf> {
    let library = place(cache);
    fs::metadata(&library).is_ok_and(|metadata| metadata.len() == SIZE).then_some(library)
}

fn place(cache: &Path) -> PathBuf {
    cache.join(format!("onnxruntime-{VERSION}-{}", &SHA256[..16])).join(FILE_NAME)
}

/// The library's path under `cache`, unpacked there if it is not yet.
///
/// The folder is named after the content, and a file gets its name only once it is whole, so what
/// is found there is good, also while several processes start at once.
pub fn unpack(cache: &Path) -> Result<PathBuf, RuntimeError> {
    if let Some(library) = unpacked(cache) {
        return Ok(library);
    }
    let library = place(cache);
    write_whole(library.parent().unwrap_or(cache), &library)
        .map_err(|error| RuntimeError::Cache { path: cache.to_owned(), reason: error.to_string() })?;
    Ok(library)
}

fn write_whole(folder: &Path, library: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let written = io::copy(&mut DeflateDecoder::new(LIBRARY), file.as_file_mut())?;
    if written != SIZE {
        return Err(io::Error::other("the embedded library is damaged; build stablehand again"));
    }
    file.as_file_mut().flush()?;
    file.as_file().sync_all()?;
    file.persist(library)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_unpacked_once_and_mended_when_it_is_cut_short() {
        let cache = tempfile::tempdir().unwrap();
        let library = unpack(cache.path()).unwrap();
        let first = fs::metadata(&library).unwrap().modified().unwrap();
        assert_eq!(unpack(cache.path()).unwrap(), library);
        assert_eq!(fs::metadata(&library).unwrap().modified().unwrap(), first);

        fs::write(&library, b"cut short").unwrap();
        unpack(cache.path()).unwrap();
        assert_eq!(fs::metadata(&library).unwrap().len(), SIZE);
        assert_eq!(
            fs::read_dir(library.parent().unwrap()).unwrap().count(),
            1,
            "nothing else is left behind"
        );
    }

    #[test]
    fn an_unusable_cache_is_one_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sentence = unpack(file.path()).unwrap_err().to_string();
        assert!(sentence.contains("STABLEHAND_CACHE_DIR") && !sentence.contains('\n'), "{sentence}");
    }

    #[test]
    fn the_notices_travel_with_the_library() {
        assert!(notices().contains("THIRD PARTY"));
    }
}
