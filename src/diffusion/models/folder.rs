//! A model's files, embedded in the binary or in a folder. What they say is `description`'s.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{ModelError, Tokenizer, TokenizerFiles, refusal};
use crate::runtime::GraphSource;

/// Where a model's files are.
#[derive(Debug, Clone)]
pub enum ModelFolder {
    /// tiny-sd, inside the binary.
    Embedded,
    Directory(PathBuf),
}

macro_rules! embedded {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd/", $file)))),*]
    };
}

static EMBEDDED: &[(&str, &[u8])] = embedded![
    "model_index.json",
    "stablehand.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "text_encoder/model.onnx",
    "unet/config.json",
    "unet/model.onnx",
    "vae_decoder/config.json",
    "vae_decoder/model.onnx",
    "vae_encoder/config.json",
    "vae_encoder/model.onnx",
];

/// What nothing can be drawn without.
const GRAPHS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

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
        let folder = Self::Directory(path.to_owned());
        if let Some(reason) = refusal::reason(path, &folder)? {
            return refuse(reason);
        }
        if !path.join("tokenizer").is_dir() {
            return refuse("it has no folder tokenizer".to_owned());
        }
        for part in GRAPHS {
            folder.graph_file(part)?;
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
    pub fn has(&self, part: &str) -> bool {
        self.graph_file(part).is_ok()
    }

    /// The graph of `part`, relative to the model: by one of its usual names, else the only `.onnx` there.
    pub fn graph_file(&self, part: &str) -> Result<String, ModelError> {
        let name = match self {
            Self::Embedded => {
                let file = format!("{part}/{}", GRAPH_NAMES[0]);
                EMBEDDED.iter().any(|(name, _)| *name == file).then_some(GRAPH_NAMES[0].to_owned())
            }
            Self::Directory(path) => {
                let names = onnx_files(&path.join(part));
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

    /// The graph of `part` and the files with its weights, each with its size in bytes.
    pub fn files_of(&self, part: &str) -> Vec<(String, u64)> {
        match self {
            Self::Embedded => {
                let files = EMBEDDED.iter().filter_map(|(name, bytes)| {
                    let name = name.strip_prefix(part)?.strip_prefix('/')?;
                    (!is_text(name)).then(|| (name.to_owned(), bytes.len() as u64))
                });
                files.collect()
            }
            Self::Directory(path) => {
                let entries = fs::read_dir(path.join(part)).into_iter().flatten().filter_map(Result::ok);
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
        }
    }

    /// Hands the graph of `part` to `load`.
    pub fn with_graph<T>(
        &self,
        part: &str,
        load: impl FnOnce(GraphSource<'_>) -> T,
    ) -> Result<T, ModelError> {
        let file = self.graph_file(part)?;
        match self {
            Self::Embedded => {
                let bytes = self.read(&file)?.unwrap_or_default();
                Ok(load(GraphSource::Bytes(&bytes)))
            }
            Self::Directory(path) => Ok(load(GraphSource::File(&path.join(file)))),
        }
    }

    /// A config file's fields, if there is such a file.
    pub(super) fn config<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, ModelError> {
        let parse = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })
        };
        self.text(file)?.map(parse).transpose()
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) -> ModelError {
        let path = match self {
            Self::Embedded => PathBuf::from(self.name()),
            Self::Directory(path) => path.clone(),
        };
        ModelError::NotAModel { path, reason: reason.into() }
    }

    pub(super) fn text(&self, file: &str) -> Result<Option<String>, ModelError> {
        let decode = |bytes: Cow<'static, [u8]>| {
            String::from_utf8(bytes.into_owned())
                .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })
        };
        self.read(file)?.map(decode).transpose()
    }

    /// A file's bytes, or nothing where the model has no such file.
    fn read(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, ModelError> {
        match self {
            Self::Embedded => {
                let found = EMBEDDED.iter().find(|(name, _)| *name == file);
                Ok(found.map(|(_, bytes)| Cow::Borrowed(*bytes)))
            }
            Self::Directory(path) => match fs::read(path.join(file)) {
                Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ModelError::File { file: file.to_owned(), reason: error.to_string() }),
            },
        }
    }
}

/// The names of the ONNX files in a folder; none where it cannot be read.
pub(super) fn onnx_files(folder: &Path) -> Vec<String> {
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

pub(super) fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}
