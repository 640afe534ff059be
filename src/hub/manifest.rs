//! The manifest of a pulled model, `.pulled.json`: written into its folder when the model is complete.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::RepoPath;

/// The form of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    File,
    Diffusers,
    Onnx,
    /// A ControlNet as diffusers writes it. One in a single file is a file.
    ControlNet,
    /// The same of a tiny VAE.
    TinyVae,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name, in the models folder and for another pull.
    pub name: String,
    /// The URL that it came from, without the query, which may hold a key.
    pub source: String,
    /// The hub's commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    pub kind: ModelKind,
    pub pulled_at_ms: i64,
    /// If the model is one file, that file comes first, before what lies beside it.
    pub files: Vec<PulledFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledFile {
    pub path: String,
    pub size: u64,
    pub sha256: String,
    /// The hub's or the server's identifier of this version of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

pub const FILE_NAME: &str = ".pulled.json";
/// Old exporters wrote one file per tensor, and the manifest lists each file.
const MAX_SIZE: u64 = 16 << 20;

impl Manifest {
    /// Reads the manifest of a folder, if there is a valid one.
    pub fn read(folder: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(folder.join(FILE_NAME)).ok()?.take(MAX_SIZE).read_to_string(&mut text).ok()?;
        let manifest: Self = serde_json::from_str(&text).ok()?;
        let are_paths = manifest.files.iter().all(|file| file.path.parse::<RepoPath>().is_ok());
        (are_paths && !manifest.files.is_empty()).then_some(manifest)
    }

    pub fn write(&self, folder: &Path) -> std::io::Result<()> {
        let path = folder.join(FILE_NAME);
        fs::write(&path, serde_json::to_string_pretty(self)?)?;
        File::open(path)?.sync_all()
    }

    /// The form of the model as people call it.
    pub fn form(&self) -> String {
        self.kind.form_of(self.files.first().map_or("", |file| &file.path))
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl ModelKind {
    /// The form of a model as people call it. `path` is the path of its file, if it is one file.
    pub(super) fn form_of(self, path: &str) -> String {
        let is_pickle = path.parse().is_ok_and(|path: RepoPath| path.is_pickle());
        match self {
            Self::File if is_pickle => "pickle file".to_owned(),
            kind => kind.to_string(),
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "safetensors file",
            Self::Diffusers => "diffusers folder",
            Self::Onnx => "ONNX folder",
            Self::ControlNet => "ControlNet folder",
            Self::TinyVae => "tiny VAE folder",
        })
    }
}
