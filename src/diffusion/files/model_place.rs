//! Where a model's files are, and the reading of the small ones.
//!
//! What the files say is for `configs` and the tokenizer; where the weights are, for `part_files`.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::embedded::{EmbeddedFiles, SD_V1, TINY_SD};
use super::{Architecture, ConfigFile, FileError, TensorFile, extension_rank, refusal};

/// The largest configuration or vocabulary, in bytes. A `tokenizer.json` has a few million.
const LARGEST_TEXT: u64 = 64 << 20;
/// What stands between the name and the ending of a file that is a part of the checkpoint beside it.
const BESIDE: [&str; 3] = ["vae", "safety_checker", "taesd"];
const BOM: &[u8] = "\u{feff}".as_bytes();

#[derive(Clone)]
pub enum ModelPlace {
    /// tiny-sd, inside the binary.
    Embedded,
    /// A folder of diffusers' or of ONNX exports.
    Folder(PathBuf),
    /// A checkpoint in one file. The files that it lacks are inside the binary.
    Checkpoint { path: PathBuf, file: Arc<TensorFile>, architecture: Architecture },
}

impl ModelPlace {
    /// The model at `path`, or the built-in one where no path is given. A checkpoint's header is read.
    pub fn find(path: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = path else { return Ok(Self::Embedded) };
        let refuse = |reason: String| Err(FileError::NotAModel { path: path.to_owned(), reason });
        if let Err(error) = fs::metadata(path) {
            return refuse(error.to_string());
        }
        if !path.is_file() {
            return match only_checkpoint(path) {
                Some(checkpoint) => Self::find(Some(&checkpoint)),
                None => Ok(Self::Folder(path.to_owned())),
            };
        }
        if extension_rank(&path.to_string_lossy()).is_none() {
            return refuse(refusal::reason_for_file(path));
        }
        let file = Arc::new(TensorFile::open(path)?);
        match Architecture::recognise(&file) {
            Ok(architecture) => Ok(Self::Checkpoint { path: path.to_owned(), file, architecture }),
            Err(what) => refuse(format!("it is {what}")),
        }
    }

    /// The model's path, where it is not inside the binary.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Embedded => None,
            Self::Folder(path) | Self::Checkpoint { path, .. } => Some(path),
        }
    }

    /// The model's name: that of its folder or file.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded => "tiny-sd".to_owned(),
            Self::Folder(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name =
                    cached_name(&path).or_else(|| Some(path.file_name()?.to_string_lossy().into_owned()));
                name.unwrap_or_else(|| "model".to_owned())
            }
            Self::Checkpoint { path, .. } => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    pub fn not_a_model(&self, reason: impl Into<String>) -> FileError {
        let path = self.path().map_or_else(|| PathBuf::from(self.name()), Path::to_owned);
        FileError::NotAModel { path, reason: reason.into() }
    }

    /// A configuration file, if there is such a file.
    pub fn config(&self, file: &str) -> Result<Option<ConfigFile>, FileError> {
        self.text(file)?.map(|text| ConfigFile::parse(file, &text)).transpose()
    }

    pub fn text(&self, file: &str) -> Result<Option<String>, FileError> {
        let decode = |bytes: Cow<'static, [u8]>| {
            String::from_utf8(bytes.into_owned())
                .map_err(|error| FileError::Config { file: file.to_owned(), reason: error.to_string() })
        };
        self.read(file)?.map(decode).transpose()
    }

    /// A file's bytes, or nothing where the model has no such file. Leaves out the mark (BOM) that Windows' editors write in
    /// front of a text, since no format here has one.
    pub fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, FileError> {
        #[cfg(test)]
        super::reads::note(file);
        let Self::Folder(path) = self else {
            return Ok(self.embedded().and_then(|files| files.get(file)).map(Cow::Borrowed));
        };
        match read_text(&path.join(file), LARGEST_TEXT) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::Config { file: file.to_owned(), reason: error.to_string() }),
        }
    }

    /// The files inside the binary that stand in for those of a folder.
    pub(super) fn embedded(&self) -> Option<&'static EmbeddedFiles> {
        match self {
            Self::Embedded | Self::Checkpoint { architecture: Architecture::TinySd, .. } => Some(&TINY_SD),
            Self::Checkpoint { architecture: Architecture::StableDiffusionV1, .. } => Some(&SD_V1),
            Self::Folder(_) => None,
        }
    }
}

/// The name of a model in the cache of the hub's own programs, `models--ORG--NAME/snapshots/COMMIT`. Its folder is called
/// after a commit.
fn cached_name(folder: &Path) -> Option<String> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(repository.rsplit("--").next().unwrap_or(repository).to_owned())
}

/// The checkpoint in a folder that holds no parts of a model and only this one file of weights (and perhaps a VAE for it).
fn only_checkpoint(folder: &Path) -> Option<PathBuf> {
    if folder.join("model_index.json").exists() || folder.join("unet").exists() {
        return None;
    }
    match checkpoints_in(folder).as_slice() {
        [only] => Some(folder.join(only)),
        _ => None,
    }
}

/// The names of the weights that lie in a folder itself, but for parts that belong to one of them.
pub(super) fn checkpoints_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names
        .filter(|name| {
            let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem).to_lowercase();
            // Files with torch's other endings are often something else.
            extension_rank(name).is_some_and(|rank| rank < 2)
                && !name.starts_with('.')
                && !BESIDE.iter().any(|part| has_extension(&stem, part))
                && folder.join(name).is_file()
        })
        .collect();
    names.sort();
    names
}

/// The bytes of a text of at most `largest` bytes, without the mark in front of it.
pub(super) fn read_text(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::Error::other(format!("it has more than {largest} bytes")));
    }
    if bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    Ok(bytes)
}

pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_beside_a_checkpoint_are_not_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "fox.safetensors",
            "fox.vae.safetensors",
            "fox.VAE.ckpt",
            "fox.safety_checker.safetensors",
            "fox.yaml",
            ".hidden.safetensors",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(checkpoints_in(folder.path()), ["fox.safetensors"]);
        assert_eq!(only_checkpoint(folder.path()), Some(folder.path().join("fox.safetensors")));
    }
}
