//! Every setting of the server, defined once: its flag, its environment variable, its default, unit and check.
//!
//! A flag ([`flags`]) wins over the environment, the environment over the configuration file ([`file`]), and the file
//! over the default. [`values`] reads the text of a value.

mod environment;
mod file;
mod flags;
mod oddities;
mod shared_flags;
mod values;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diffusion::AddOnFolders;
use crate::domain::EndpointId;
use crate::fetch::AllowedAddresses;
use crate::http::HttpSettings;
use crate::queue::QueueSettings;
use crate::runtime::{self, CpuSettings, DeviceChoice};
use crate::webhooks::WebhookSecret;

pub use environment::forget_empty_variables;
pub use file::{ConfigFile, EndpointTable};
pub use flags::{LogFormat, ServeArgs, Switch};
pub use shared_flags::{ControlNetDirArgs, CpuArgs, DataDirArgs, ModelsDirArgs, ThreadArgs, TinyVaeDirArgs};
pub use values::{address, server_url, size, time};

/// The most workers of one endpoint.
const MAX_WORKERS: u32 = 64;
/// More than any machine has cores.
const MAX_THREADS: u32 = 1024;
/// Enough for two sets of merged LoRAs of Stable Diffusion v1 in single precision, or four in half precision. The memory
/// budget may allow fewer.
const DEFAULT_LORA_MEMORY: u64 = 8 << 30;
/// A few thousand jobs that begin with a picture, or any number without one.
const DEFAULT_QUEUE_BYTES: u64 = 4 << 30;

/// Who may use the server.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    Everybody,
    Keys(Vec<String>),
    /// The key in the data folder, created at the first start.
    OwnKey,
}

/// One endpoint: its id in the URL path, its model and its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    pub id: EndpointId,
    /// A path, or the name of a pulled model. None means the built-in model.
    pub model: Option<PathBuf>,
    pub device: DeviceChoice,
    pub workers: u32,
    /// Whether the model is loaded at start.
    pub preload: bool,
}

/// The default folders of LoRAs, ControlNets and textual inversions in the data folder, with the default memory for them.
pub fn usual_add_ons(data_dir: &Path) -> AddOnFolders {
    AddOnFolders {
        loras: data_dir.join("loras"),
        controlnets: data_dir.join("controlnets"),
        embeddings: data_dir.join("embeddings"),
        wildcards: data_dir.join("wildcards"),
        upscalers: data_dir.join("upscalers"),
        tiny_vaes: data_dir.join("tiny-vaes"),
        lora_memory: DEFAULT_LORA_MEMORY,
        look_every: Duration::from_secs(1),
    }
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// At least one.
    pub endpoints: Vec<EndpointConfig>,
    /// How workers use the processor.
    pub cpu: CpuSettings,
    /// Bytes that models may use on each device. None means a share of the device's memory.
    pub memory_budget: Option<u64>,
    /// How long a model stays loaded without a job. None means until another model needs the memory.
    pub unload_after: Option<Duration>,
    /// How often a worker saves where a running job is. None means never.
    pub save_every: Option<Duration>,
    pub add_ons: AddOnFolders,
    pub listen: SocketAddr,
    /// Without a slash at the end.
    pub public_url: Option<String>,
    /// The addresses that clients' URLs may reach besides public ones.
    pub allow_addresses: AllowedAddresses,
    pub access: Access,
    pub http: HttpSettings,
    pub data_dir: PathBuf,
    /// The folder of pulled models.
    pub models_dir: PathBuf,
    /// Whether clients may pull, check and remove models.
    pub manage_models: bool,
    pub queue: QueueSettings,
    pub sweep_interval: Duration,
    pub shutdown_grace: Duration,
    /// None means the secret in the data folder.
    pub webhook_secret: Option<WebhookSecret>,
    /// None means the key in the data folder.
    pub signing_key: Option<[u8; 32]>,
    /// Where HAProxy's agent check asks how busy the server is.
    pub agent_listen: Option<SocketAddr>,
    pub webhooks_at_once: u32,
}

/// Each server would make a key of its own, and refuse the others'.
const NODE_WITHOUT_KEYS: &str = "--node says that this server is one of several, and they need the same API keys: give all of \
     them the same --api-keys-file or STABLEHAND_API_KEYS";

/// An error in the settings, as a sentence for the operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ServeArgs {
    /// Checks the combinations of flags, and fills in the defaults that depend on other flags.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let access = self.access()?;
        if access == Access::Everybody && !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "--auth off would let anybody who can reach {} use the server: listen on 127.0.0.1, or leave authentication on",
                self.listen
            )));
        }
        if self.node.is_some() && access == Access::OwnKey {
            return Err(ConfigError(NODE_WITHOUT_KEYS.to_owned()));
        }
        if let Some(off) = self.open_surfaces.iter().find(|open| !self.surfaces.contains(*open)) {
            return Err(ConfigError(format!(
                "--open-surfaces names {off}, which is not served: add it to --surfaces"
            )));
        }
        let defaults = QueueSettings::default();
        let queue = QueueSettings {
            retention: self.retention,
            sync_retention: self.sync_retention.unwrap_or(defaults.sync_retention),
            sync_waited_retention: self.sync_retention.unwrap_or(defaults.sync_waited_retention),
            queue_limit: self.queue_limit,
            queue_bytes: self.queue_bytes,
            node: self.node,
            ..defaults
        };
        // clap would repeat the secret in its error, so it is parsed here.
        let webhook_secret =
            secret("webhook-secret", self.webhook_secret.as_ref(), self.webhook_secret_file.as_ref())?;
        let webhook_secret = webhook_secret.map(|text| text.parse()).transpose();
        let webhook_secret =
            webhook_secret.map_err(|error| ConfigError(format!("invalid webhook secret: {error}")))?;
        let signing_key = secret("signing-key", self.signing_key.as_ref(), self.signing_key_file.as_ref())?;
        let signing_key = signing_key.map(|text| values::signing_key(&text)).transpose();
        let signing_key =
            signing_key.map_err(|error| ConfigError(format!("invalid signing key: {error}")))?;
        let sweep_interval = self.sweep_interval.unwrap_or_else(|| sweep_interval_for(&queue));
        // Whoever reaches a server without keys over a network may draw, but not fill its disk.
        let is_own_user = access == Access::Everybody && self.listen.ip().is_loopback();
        let manage_models = self.manage_models.map_or(is_own_user, |manage| manage == Switch::On);
        let endpoints = self.endpoint_configs();
        let data_dir = self.data_dir.map_or_else(default_data_dir, Ok)?;
        let usual = usual_add_ons(&data_dir);
        Ok(Config {
            endpoints,
            cpu: self.cpu.settings(),
            memory_budget: self.memory_budget,
            unload_after: self.unload_after,
            save_every: Some(self.save_every).filter(|every| !every.is_zero()),
            add_ons: AddOnFolders {
                loras: self.lora_dir.unwrap_or(usual.loras),
                controlnets: self.controlnet_dir.unwrap_or(usual.controlnets),
                embeddings: self.embeddings_dir.unwrap_or(usual.embeddings),
                wildcards: self.wildcard_dir.unwrap_or(usual.wildcards),
                upscalers: self.upscaler_dir.unwrap_or(usual.upscalers),
                tiny_vaes: self.tiny_vae_dir.unwrap_or(usual.tiny_vaes),
                lora_memory: self.lora_memory,
                ..usual
            },
            listen: self.listen,
            public_url: self.public_url,
            allow_addresses: self.allow_addresses,
            access,
            http: HttpSettings {
                rate_limits: self.rate_limits,
                metrics: self.metrics,
                cors_origins: self.cors_origins,
                hosts: self.hosts,
                surfaces: self.surfaces,
                open_surfaces: self.open_surfaces,
                trusted_proxies: self.trusted_proxies,
                body_memory: self.body_memory.unwrap_or_else(usual_body_memory),
                node: self.node,
            },
            manage_models,
            models_dir: self.models_dir.unwrap_or_else(|| models_dir_in(&data_dir)),
            data_dir,
            queue,
            sweep_interval,
            shutdown_grace: self.shutdown_grace,
            webhook_secret,
            signing_key,
            agent_listen: self.agent_listen,
            webhooks_at_once: self.webhooks_at_once,
        })
    }

    /// The endpoints from the file. Without any, the flags make one endpoint.
    fn endpoint_configs(&self) -> Vec<EndpointConfig> {
        let with_flags = |table: &EndpointTable| EndpointConfig {
            id: table.id.clone(),
            model: table.model.clone().or_else(|| self.model.clone()),
            device: table.device.unwrap_or(self.device),
            workers: table.workers.unwrap_or(self.workers),
            preload: table.preload.unwrap_or(self.preload),
        };
        if self.endpoints.is_empty() {
            let id = EndpointId::default();
            return vec![with_flags(&EndpointTable {
                id,
                model: None,
                device: None,
                workers: None,
                preload: None,
            })];
        }
        self.endpoints.iter().map(with_flags).collect()
    }

    fn access(&self) -> Result<Access, ConfigError> {
        if self.auth == Switch::Off {
            return Ok(Access::Everybody);
        }
        let mut keys: Vec<String> = Vec::new();
        keys.extend(self.api_keys.iter().flat_map(|keys| keys.split(',')).map(|key| key.trim().to_owned()));
        if let Some(path) = &self.api_keys_file {
            let text = fs::read_to_string(path).map_err(|error| {
                ConfigError(format!("cannot read the API keys file {}: {error}", path.display()))
            })?;
            let before = keys.len();
            keys.extend(text.lines().map(|line| line.split('#').next().unwrap_or("").trim().to_owned()));
            if keys[before..].iter().all(String::is_empty) {
                return Err(ConfigError(format!("the file {} holds no API key", path.display())));
            }
        }
        keys.retain(|key| !key.is_empty());
        if keys.iter().any(|key| !key.chars().all(|c| c.is_ascii_graphic())) {
            return Err(ConfigError(
                "an API key is invalid: use visible ASCII characters, without spaces".to_owned(),
            ));
        }
        Ok(if keys.is_empty() { Access::OwnKey } else { Access::Keys(keys) })
    }
}

/// A secret that comes as a setting or in a file of its own.
fn secret(name: &str, text: Option<&String>, file: Option<&PathBuf>) -> Result<Option<String>, ConfigError> {
    match (text, file) {
        (Some(_), Some(_)) => Err(ConfigError(format!("give --{name} or --{name}-file, not both"))),
        (None, Some(path)) => {
            let read = fs::read_to_string(path);
            read.map(|text| Some(text.trim().to_owned())).map_err(|error| {
                ConfigError(format!("cannot read the file {} of --{name}-file: {error}", path.display()))
            })
        }
        (text, None) => Ok(text.cloned()),
    }
}

/// A 64th of the machine's memory, from 64 MiB to 1 GiB. What is read of a body takes a few times its size for a moment.
fn usual_body_memory() -> u64 {
    let machine = runtime::machine_memory().unwrap_or(16 << 30);
    (machine / 64).clamp(64 << 20, 1 << 30)
}

/// A third of the shortest retention, and at most 30 s, so that expired jobs are deleted soon.
fn sweep_interval_for(queue: &QueueSettings) -> Duration {
    let shortest = queue.retention.min(queue.sync_retention).min(queue.sync_waited_retention);
    (shortest / 3).clamp(Duration::from_millis(250), Duration::from_secs(30))
}

fn models_dir_in(data_dir: &Path) -> PathBuf {
    data_dir.join("models")
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    directories::ProjectDirs::from("", "", "stablehand").map(|dirs| dirs.data_dir().to_owned()).ok_or_else(
        || ConfigError("this user has no home folder: name a data folder with --data-dir".to_owned()),
    )
}
