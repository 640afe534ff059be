//! A model's files, embedded in the binary or in a folder, and what its config files say.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{ModelError, Tokenizer, TokenizerFiles};
use crate::diffusion::schedulers::SchedulerConfig;
use crate::domain::{InputRules, SchedulerKind};
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
];

const GRAPHS: [&str; 3] = ["text_encoder", "unet", "vae_decoder"];

/// What a model's config files state, with SD v1's values where they are silent.
#[derive(Debug, Clone)]
pub struct ModelDescription {
    pub name: String,
    /// Pixels along one side of a latent.
    pub vae_scale_factor: u32,
    pub latent_channels: u32,
    /// What the VAE's latents are multiplied with before the UNet sees them.
    pub scaling_factor: f32,
    pub rules: InputRules,
    /// The side that the model was trained at, in pixels.
    pub native_side: u32,
    /// The largest side that it draws well, where `stablehand.json` states one.
    pub max_side: Option<u32>,
    pub scheduler: SchedulerConfig,
}

#[derive(Deserialize, Default)]
struct UNetConfig {
    sample_size: Option<u32>,
    down_block_types: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
struct VaeConfig {
    block_out_channels: Option<Vec<u32>>,
    latent_channels: Option<u32>,
    scaling_factor: Option<f32>,
}

/// Our own file beside the others: what their formats have no word for.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct StablehandConfig {
    /// The largest side that the model draws well, in pixels.
    max_side: Option<u32>,
    /// The scheduler that suits it, where a request names none.
    scheduler: Option<String>,
}

impl ModelFolder {
    /// The folder at `path`, or the built-in model where none is named.
    pub fn of(path: Option<&Path>) -> Result<Self, ModelError> {
        path.map_or(Ok(Self::Embedded), Self::open)
    }

    /// The folder at `path`, if it has the parts of a model.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let refuse = |reason: String| Err(ModelError::NotAModel { path: path.to_owned(), reason });
        match fs::metadata(path) {
            Err(error) => return refuse(error.to_string()),
            Ok(metadata) if !metadata.is_dir() => {
                return refuse("it is a file; name the folder that holds model_index.json".to_owned());
            }
            Ok(_) => {}
        }
        let graphs = GRAPHS.map(|part| format!("{part}/model.onnx"));
        let wanted = ["model_index.json", "tokenizer", "scheduler/scheduler_config.json"];
        for file in wanted.into_iter().chain(graphs.iter().map(String::as_str)) {
            if !path.join(file).exists() {
                return refuse(format!("it has no {file}"));
            }
        }
        Ok(Self::Directory(path.to_owned()))
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

    /// Reads the config files.
    pub fn describe(&self) -> Result<ModelDescription, ModelError> {
        let unet: UNetConfig = self.config("unet/config.json")?.unwrap_or_default();
        let vae: VaeConfig = self.config("vae_decoder/config.json")?.unwrap_or_default();
        let own: StablehandConfig = self.config("stablehand.json")?.unwrap_or_default();
        let halvings = |levels: usize| 1 << u32::try_from(levels.saturating_sub(1)).unwrap_or(0).min(8);
        let vae_scale_factor = halvings(vae.block_out_channels.map_or(4, |channels| channels.len()));
        let grid = vae_scale_factor * halvings(unet.down_block_types.map_or(4, |blocks| blocks.len()));
        let file = "scheduler/scheduler_config.json";
        let scheduler = SchedulerConfig::from_json(&self.text(file)?.unwrap_or_else(|| "{}".to_owned()))
            .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })?;
        let rules = InputRules::default();
        let (default_scheduler, karras) = match own.scheduler {
            None => (rules.scheduler, rules.karras),
            Some(name) => SchedulerKind::parse(&name).ok_or_else(|| ModelError::File {
                file: "stablehand.json".to_owned(),
                reason: format!("'{name}' is no scheduler"),
            })?,
        };
        Ok(ModelDescription {
            name: self.name(),
            vae_scale_factor,
            latent_channels: vae.latent_channels.unwrap_or(4),
            scaling_factor: vae.scaling_factor.unwrap_or(0.18215),
            rules: InputRules { grid, scheduler: default_scheduler, karras, ..rules },
            native_side: unet.sample_size.unwrap_or(64) * vae_scale_factor,
            max_side: own.max_side.map(|side| side.max(grid)),
            scheduler,
        })
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

    /// Hands the graph of `part` to `load`.
    pub fn with_graph<T>(
        &self,
        part: &str,
        load: impl FnOnce(GraphSource<'_>) -> T,
    ) -> Result<T, ModelError> {
        let file = format!("{part}/model.onnx");
        match self {
            Self::Embedded => {
                let bytes = self.read(&file)?.unwrap_or_default();
                Ok(load(GraphSource::Bytes(&bytes)))
            }
            Self::Directory(path) => Ok(load(GraphSource::File(&path.join(file)))),
        }
    }

    fn config<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, ModelError> {
        let parse = |text: String| {
            serde_json::from_str(&text)
                .map_err(|error| ModelError::File { file: file.to_owned(), reason: error.to_string() })
        };
        self.text(file)?.map(parse).transpose()
    }

    fn text(&self, file: &str) -> Result<Option<String>, ModelError> {
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
