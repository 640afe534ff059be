//! A model's files: embedded in the binary, in a folder, or all in one. What they say is `description`'s; where
//! its weights are when its graphs come without them, `weights_of_parts`'.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::embedded::{EmbeddedFiles, SD_V1, TINY_SD};
use super::{Architecture, SafetensorsFile, refusal};
use crate::diffusion::nets::ModelError;
use crate::diffusion::text::{Tokenizer, TokenizerFiles};
use crate::domain::ModelPart;

/// Where a model's files are.
#[derive(Debug, Clone)]
pub enum ModelFolder {
    /// tiny-sd, inside the binary.
    Embedded,
    Directory(PathBuf),
    /// A checkpoint in one file. What it lacks is inside the binary.
    Checkpoint {
        path: PathBuf,
        architecture: Architecture,
    },
}

/// What exporters call a part's graph, the usual first.
const GRAPH_NAMES: [&str; 3] = ["model.onnx", "model_fp16.onnx", "model.fp16.onnx"];

impl ModelFolder {
    /// The folder at `path`, or the built-in model where none is named.
    pub fn of(path: Option<&Path>) -> Result<Self, ModelError> {
        path.map_or(Ok(Self::Embedded), Self::open)
    }

    /// The folder at `path`, if it has the parts of a model.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::NotAModel { path: path.to_owned(), reason });
        if let Err(error) = fs::metadata(path) {
            return refuse(error.to_string());
        }
        if path.is_file() && has_extension(&path.to_string_lossy().to_lowercase(), "safetensors") {
            let architecture = Architecture::recognise(&SafetensorsFile::open(path)?);
            return match architecture {
                Ok(architecture) => Ok(Self::Checkpoint { path: path.to_owned(), architecture }),
                Err(what) => refuse(format!("it is {what}")),
            };
        }
        let folder = Self::Directory(path.to_owned());
        if let Some(reason) = refusal::reason(path, &folder)? {
            return refuse(reason);
        }
        if !path.join("tokenizer").is_dir() {
            return refuse("it has no folder tokenizer".to_owned());
        }
        for part in ModelPart::REQUIRED {
            if !folder.has(part) {
                folder.graph_file(part)?;
            }
        }
        Ok(folder)
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded => "tiny-sd".to_owned(),
            Self::Directory(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                path.file_name()
                    .map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
            }
            Self::Checkpoint { path, .. } => {
                path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// The tokenizer, made from its files.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let read = |file: &str| self.read(&format!("tokenizer/{file}"));
        let (vocab, merges) = (read("vocab.json")?, read("merges.txt")?);
        let (config, special_tokens_map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        let tokenizer_json = read("tokenizer.json")?;
        Ok(Tokenizer::new(TokenizerFiles {
            vocab: vocab.as_deref(),
            merges: merges.as_deref(),
            config: config.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
            tokenizer_json: tokenizer_json.as_deref(),
        })?)
    }

    /// Whether the model has `part` (a subfolder such as `vae_encoder`).
    pub fn has(&self, part: ModelPart) -> bool {
        self.has_weights_alone(part) || self.graph_file(part).is_ok()
    }

    /// The graph of `part`, relative to the model: by one of its usual names, else the only `.onnx` there.
    pub fn graph_file(&self, part: ModelPart) -> Result<String, ModelError> {
        let name = match self {
            Self::Embedded | Self::Checkpoint { .. } => None,
            Self::Directory(path) => {
                let names = onnx_files(&path.join(part.name()));
                let usual = GRAPH_NAMES.iter().find(|usual| names.iter().any(|name| name == *usual));
                match (usual, names.as_slice()) {
                    (Some(usual), _) => Some((*usual).to_owned()),
                    (None, [only]) => Some(only.clone()),
                    (None, _) => None,
                }
            }
        };
        let file = name.map(|name| format!("{part}/{name}"));
        file.ok_or_else(|| self.refuse(format!("it has no {part}/{}", GRAPH_NAMES[0])))
    }

    /// The files with the weights of `part`, and its graph where that comes with them, each with its size in bytes.
    pub fn files_of(&self, part: ModelPart) -> Vec<(String, u64)> {
        if let Ok(Some(checkpoint)) = self.checkpoint(part) {
            return checkpoint.files().iter().map(|file| (file.name().to_owned(), file.length())).collect();
        }
        let Self::Directory(path) = self else { return Vec::new() };
        let entries = fs::read_dir(path.join(part.name())).into_iter().flatten().filter_map(Result::ok);
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                // By path: a folder of a download cache is made of links.
                let metadata = fs::metadata(entry.path()).ok()?;
                (metadata.is_file() && !is_text(&name)).then_some((name, metadata.len()))
            })
            .collect();
        files.sort();
        files
    }

    /// The graph of `part`, where it comes with its weights.
    pub(in crate::diffusion) fn graph_path(&self, part: ModelPart) -> Result<PathBuf, ModelError> {
        let file = self.graph_file(part)?;
        match self {
            Self::Directory(path) => Ok(path.join(file)),
            _ => Err(self.refuse(format!("it has no {file}"))),
        }
    }

    /// A config file's fields, if there is such a file.
    pub(in crate::diffusion) fn config<T: DeserializeOwned>(
        &self,
        file: &str,
    ) -> Result<Option<T>, ModelError> {
        let parse = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })
        };
        self.text(file)?.map(parse).transpose()
    }

    pub(in crate::diffusion) fn refuse(&self, reason: impl Into<String>) -> ModelError {
        let path = match self {
            Self::Embedded => PathBuf::from(self.name()),
            Self::Directory(path) | Self::Checkpoint { path, .. } => path.clone(),
        };
        ModelError::NotAModel { path, reason: reason.into() }
    }

    pub(in crate::diffusion) fn text(&self, file: &str) -> Result<Option<String>, ModelError> {
        let decode = |bytes: Cow<'static, [u8]>| {
            String::from_utf8(bytes.into_owned())
                .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })
        };
        self.read(file)?.map(decode).transpose()
    }

    /// The files inside the binary that stand in for those of a folder.
    pub(super) fn embedded(&self) -> Option<&'static EmbeddedFiles> {
        match self {
            Self::Embedded | Self::Checkpoint { architecture: Architecture::TinySd, .. } => Some(&TINY_SD),
            Self::Checkpoint { architecture: Architecture::StableDiffusionV1, .. } => Some(&SD_V1),
            Self::Directory(_) => None,
        }
    }

    /// A file's bytes, or nothing where the model has no such file.
    pub(in crate::diffusion) fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
        let Self::Directory(path) = self else {
            return Ok(self.embedded().and_then(|files| files.get(file)).map(Cow::Borrowed));
        };
        match fs::read(path.join(file)) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ModelError::File { file: file.to_owned(), reason: error.to_string() }),
        }
    }
}

/// The names of the ONNX files in a folder; none where it cannot be read.
pub(in crate::diffusion) fn onnx_files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // macOS leaves `._model.onnx` beside the file on foreign disks.
    let mut names: Vec<_> =
        names.filter(|name| has_extension(name, "onnx") && !name.starts_with('.')).collect();
    names.sort();
    names
}

/// Whether a file is configuration, by its name.
fn is_text(name: &str) -> bool {
    ["json", "txt", "md"].iter().any(|extension| has_extension(name, extension)) || name.starts_with('.')
}

pub(in crate::diffusion) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}
