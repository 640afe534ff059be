//! A download in progress: it is written beside its final name, hashed as it grows, and renamed when it is complete.
//!
//! The file name holds a hash of the file's version (`model.safetensors.0123456789abcdef.part`), so a later run resumes
//! the download only if the file on the server has not changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{Checksum, hex};

#[derive(Debug)]
pub struct PartialFile {
    path: PathBuf,
    file: File,
    size: u64,
    sha256: Sha256,
}

const BUFFER: usize = 256 * 1024;
pub const EXTENSION: &str = "part";

impl PartialFile {
    /// Opens the partial file for `target`, with the bytes that an earlier run has received. `identity` names the version
    /// of the file; without it the partial file starts empty. Partial files of other versions are removed.
    pub fn open(target: &Path, identity: Option<&str>) -> io::Result<Self> {
        let folder = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let own = match identity {
            Some(identity) => {
                format!("{name}.{}.{EXTENSION}", &hex(&Sha256::digest(identity.as_bytes()))[..16])
            }
            None => format!("{name}.{EXTENSION}"),
        };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let found = entry.file_name().to_string_lossy().into_owned();
            let is_partial = found.strip_prefix(&*name).is_some_and(is_partial_suffix);
            // A symbolic link here would redirect our writes to another file.
            if is_partial && (found != own || !entry.file_type()?.is_file()) {
                fs::remove_file(entry.path())?;
            }
        }
        let path = folder.join(own);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(identity.is_none())
            .open(&path)?;
        let mut partial = Self { path, file, size: 0, sha256: Sha256::new() };
        partial.size = hash_all(&mut partial.sha256, &partial.file)?;
        Ok(partial)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Removes all bytes.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.sha256 = Sha256::new();
        self.size = 0;
        Ok(())
    }

    pub fn sha256(&self) -> String {
        hex(&self.sha256.clone().finalize())
    }

    /// The checksum of the bytes so far, of the same kind as `like`.
    pub fn checksum(&mut self, like: &Checksum) -> io::Result<Checksum> {
        match like {
            Checksum::Sha256(_) => Ok(Checksum::Sha256(self.sha256())),
            Checksum::GitBlob(_) => {
                self.file.seek(SeekFrom::Start(0))?;
                git_blob(&self.file, self.size)
            }
        }
    }

    /// Reads the first bytes into `into`. Returns how many there were.
    pub fn head(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(0))?;
        let length = into.len() as u64;
        let read = Read::by_ref(&mut self.file).take(length).read(into)?;
        self.file.seek(SeekFrom::End(0))?;
        Ok(read)
    }

    /// Flushes the file to disk and renames it to `target`.
    pub fn finish(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_folder(target.parent().unwrap_or(target))
    }

    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(self.path)
    }
}

/// Whether `rest` is `.part` or `.IDENTITY.part`. A longer suffix of `model.onnx` belongs to another file, such as
/// `model.onnx.data`.
fn is_partial_suffix(rest: &str) -> bool {
    let inner = rest.strip_suffix(EXTENSION).and_then(|rest| rest.strip_suffix('.'));
    inner.is_some_and(|inner| inner.is_empty() || inner.len() == 17 && !inner[1..].contains('.'))
}

/// The checksum of the file at `path`, of the same kind as `like`.
pub fn checksum_of(path: &Path, like: &Checksum) -> io::Result<Checksum> {
    let file = File::open(path)?;
    match like {
        Checksum::Sha256(_) => {
            let mut sha256 = Sha256::new();
            hash_all(&mut sha256, &file)?;
            Ok(Checksum::Sha256(hex(&sha256.finalize())))
        }
        Checksum::GitBlob(_) => {
            let size = file.metadata()?.len();
            git_blob(&file, size)
        }
    }
}

pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    hash_all(&mut sha256, &File::open(path)?)?;
    Ok(hex(&sha256.finalize()))
}

/// Flushes a folder to disk, so that a rename in it survives a crash.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

fn git_blob(file: &File, size: u64) -> io::Result<Checksum> {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {size}\0").as_bytes());
    hash_all(&mut sha1, file)?;
    Ok(Checksum::GitBlob(hex(&sha1.finalize())))
}

/// Hashes from the current position to the end of the file. Returns the number of bytes.
fn hash_all(hash: &mut impl sha2::Digest, file: &File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(size);
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_partial_file_resumes_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("unet/model.safetensors");
        let mut partial = PartialFile::open(&target, Some("one")).unwrap();
        assert_eq!((partial.size(), partial.sha256().as_str()), (0, NOTHING));
        partial.append(b"ab").unwrap();
        drop(partial);
        let mut partial = PartialFile::open(&target, Some("one")).unwrap();
        assert_eq!(partial.size(), 2);
        partial.append(b"c").unwrap();
        assert_eq!(partial.sha256(), ABC);
        let git = partial.checksum(&Checksum::GitBlob(String::new())).unwrap();
        assert_eq!(git, Checksum::GitBlob("f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f".to_owned()));
        partial.finish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abc");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn only_partial_files_of_other_versions_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.safetensors");
        fs::write(folder.path().join("model.safetensors.index.json"), "{}").unwrap();
        let other = "model.safetensors.data.0123456789abcdef.part";
        fs::write(folder.path().join(other), "").unwrap();
        PartialFile::open(&target, Some("one")).unwrap().append(b"ab").unwrap();
        assert_eq!(PartialFile::open(&target, Some("two")).unwrap().size(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn without_an_identity_it_starts_empty() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.safetensors");
        PartialFile::open(&target, None).unwrap().append(b"ab").unwrap();
        assert_eq!(PartialFile::open(&target, None).unwrap().size(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_is_replaced_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model.safetensors");
        let victim = folder.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let partial = PartialFile::open(&target, Some("one")).unwrap();
        fs::remove_file(&partial.path).unwrap();
        std::os::unix::fs::symlink(&victim, &partial.path).unwrap();
        PartialFile::open(&target, Some("one")).unwrap().append(b"ab").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }
}
