//! The ONNX Runtime library that this binary contains, and its place in the cache.
//!
//! A cache folder may be shared by several users, or open to all. The library is loaded only from a folder and a file that
//! nobody but this user and root can write to, and only with the right SHA-256.

use std::fmt::Write as _;
#[cfg(unix)]
use std::fs::Permissions;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use sha2::{Digest as _, Sha256};

use super::{RuntimeError, trust};

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

/// The library in the cache. Its owner, its mode and its SHA-256 were checked.
#[derive(Debug)]
pub struct Unpacked {
    pub path: PathBuf,
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has paths of open files"))]
    file: File,
}

/// Why a folder of the cache has no library to load.
enum Lack {
    /// This user can put it there.
    Missing,
    /// Another user can change what is there. The text continues a sentence that begins with the path.
    Distrusted(String),
    Unreadable(io::Error),
}

impl Unpacked {
    /// The path for the system's loader. On Linux it names the open file that was checked, so that nobody can put another
    /// file in its place meanwhile, whatever the folders above it allow.
    pub fn loader_path(&self) -> PathBuf {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd as _;
            let opened = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
            if opened.exists() {
                return opened;
            }
        }
        self.path.clone()
    }
}

/// The library under `cache`, if it has been unpacked there and may be loaded.
pub fn unpacked(cache: &Path) -> Option<Unpacked> {
    places(cache).iter().find_map(|folder| find(folder).ok())
}

/// The folders under `cache` that may have the library. They are named after its content. Users who share a cache do not
/// trust each other's files, so each of them may need a folder of their own.
fn places(cache: &Path) -> Vec<PathBuf> {
    let name = format!("onnxruntime-{VERSION}-{}", &SHA256[..16]);
    #[cfg(unix)]
    let own = Some(cache.join(format!("{name}-{}", trust::user())));
    #[cfg(not(unix))]
    let own = None;
    [cache.join(name)].into_iter().chain(own).collect()
}

/// The library in `folder`.
fn find(folder: &Path) -> Result<Unpacked, Lack> {
    let lack = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => Lack::Missing,
        _ => Lack::Unreadable(error),
    };
    let metadata = fs::symlink_metadata(folder).map_err(lack)?;
    if !metadata.is_dir() {
        return Err(Lack::Unreadable(ErrorKind::NotADirectory.into()));
    }
    if let Some(why) = trust::who_else(&metadata).filter(|_| !narrowed(folder, &metadata)) {
        return Err(Lack::Distrusted(why));
    }
    let path = folder.join(FILE_NAME);
    let mut file = File::open(&path).map_err(lack)?;
    let metadata = file.metadata().map_err(lack)?;
    if trust::who_else(&metadata).is_some() || metadata.len() != SIZE || !has_our_bytes(&mut file) {
        // In a folder that only this user and root can write to, it may be replaced.
        return Err(Lack::Missing);
    }
    Ok(Unpacked { path, file })
}

/// Closes this user's folder to others, if earlier versions left it open. Says whether it is closed now.
fn narrowed(folder: &Path, metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        trust::is_own(metadata) && fs::set_permissions(folder, Permissions::from_mode(0o755)).is_ok()
    }
    #[cfg(not(unix))]
    trust::is_own(metadata)
}

fn has_our_bytes(file: &mut File) -> bool {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(&buffer[..read]),
            Err(_) => return false,
        }
    }
    let digest = hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    digest == SHA256
}

/// The library under `cache`, unpacked there if it is not yet. A file gets its name only when it is complete, so several
/// processes can start at once.
pub fn unpack(cache: &Path) -> Result<Unpacked, RuntimeError> {
    let places = places(cache);
    let mut reasons = Vec::new();
    for folder in &places {
        match find(folder) {
            Ok(unpacked) => return Ok(unpacked),
            Err(lack) => reasons.push(lack),
        }
    }
    let mut last = String::new();
    let mut distrusted = String::new();
    for (folder, lack) in places.iter().zip(reasons) {
        let written = match lack {
            Lack::Distrusted(why) => {
                distrusted = format!("{} {why}", folder.display());
                Err(distrusted.clone())
            }
            Lack::Unreadable(error) => Err(error.to_string()),
            Lack::Missing => write_whole(folder).map_err(|error| error.to_string()),
        };
        let found =
            written.and_then(|()| find(folder).map_err(|_| "the file does not stay as written".to_owned()));
        match found {
            Ok(unpacked) => return Ok(unpacked),
            Err(reason) => last = reason,
        }
    }
    // Why this user needs a copy, and why there is none.
    if !distrusted.is_empty() && distrusted != last {
        last = format!("{distrusted}, and this user cannot write a copy: {last}");
    }
    Err(RuntimeError::Cache { path: cache.to_owned(), reason: last })
}

/// Unpacks the library into `folder`. Other users may read it, since root may unpack it for all of them.
fn write_whole(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder.parent().unwrap_or(folder))?;
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let written = io::copy(&mut DeflateDecoder::new(LIBRARY), file.as_file_mut())?;
    if written != SIZE {
        return Err(io::Error::other("the embedded library is damaged; build stablehand again"));
    }
    file.as_file_mut().flush()?;
    #[cfg(unix)]
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE_NAME))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_unpacked_once_and_mended_when_it_is_damaged() {
        let cache = tempfile::tempdir().unwrap();
        let library = unpack(cache.path()).unwrap().path;
        let modified = || fs::metadata(&library).unwrap().modified().unwrap();
        let first = modified();
        assert_eq!(unpack(cache.path()).unwrap().path, library);
        assert_eq!(modified(), first);

        let whole = fs::read(&library).unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [b"cut short".to_vec(), other] {
            fs::write(&library, damaged).unwrap();
            assert!(unpacked(cache.path()).is_none());
            assert_eq!(unpack(cache.path()).unwrap().path, library);
            assert!(fs::read(&library).unwrap() == whole);
        }
        let count = fs::read_dir(library.parent().unwrap()).unwrap().count();
        assert_eq!(count, 1, "nothing else is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn everyone_may_read_it_and_what_others_may_write_is_replaced() {
        use std::os::unix::fs::PermissionsExt as _;
        let cache = tempfile::tempdir().unwrap();
        let library = unpack(cache.path()).unwrap().path;
        let folder = library.parent().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder), mode(&library)), (0o755, 0o644));
        for (path, wide) in [(folder, 0o777), (&*library, 0o666)] {
            fs::set_permissions(path, Permissions::from_mode(wide)).unwrap();
            assert_eq!(unpack(cache.path()).unwrap().path, library);
            assert_eq!((mode(folder), mode(&library)), (0o755, 0o644));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_loader_gets_the_file_that_was_checked() {
        let cache = tempfile::tempdir().unwrap();
        let unpacked = unpack(cache.path()).unwrap();
        let folder = unpacked.path.parent().unwrap();
        fs::rename(folder, cache.path().join("moved")).unwrap();
        fs::create_dir(folder).unwrap();
        fs::write(&unpacked.path, "another library").unwrap();
        assert_eq!(fs::metadata(unpacked.loader_path()).unwrap().len(), SIZE);
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
