//! Every setting of the server once: its flag, its environment twin, its default, unit and check.
//!
//! A flag comes before the environment, that before the configuration file ([`file`]), and that before the default.

mod file;
mod values;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use crate::diffusion::AddOnFolders;
use crate::domain::EndpointId;
use crate::fetch::AllowedAddresses;
use crate::http::{HttpSettings, MetricsAccess, RateLimits};
use crate::queue::QueueSettings;
use crate::runtime::DeviceChoice;
use crate::webhooks::WebhookSecret;

use values::{address, budget, grace, interval, origin, public_url, retention, unload_after};

pub use file::{ConfigFile, EndpointTable};
pub use values::size;

/// Workers of one endpoint.
const MAX_WORKERS: u32 = 64;
/// Two sets of LoRAs in Stable Diffusion v1 in single precision, four in half.
const DEFAULT_LORA_MEMORY: u64 = 8 << 30;

/// The flags of `stablehand serve`, each with its twin in the environment.
#[derive(Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
#[allow(clippy::doc_markdown)] // the help text is for a terminal
pub struct ServeArgs {
    /// TOML file with settings by the names of these flags, which come before it, and with endpoints
    #[arg(long, env = "STABLEHAND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the file says of endpoints.
    #[arg(skip)]
    pub endpoints: Vec<EndpointTable>,

    /// Address and port to listen on
    #[arg(long, env = "STABLEHAND_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8000",
        value_parser = address, help_heading = "Network")]
    pub listen: SocketAddr,
    /// Base of the image URLs that clients get, such as https://pictures.example; otherwise the
    /// Host that each client used
    #[arg(long, env = "STABLEHAND_PUBLIC_URL", value_name = "URL", value_parser = public_url,
        help_heading = "Network")]
    pub public_url: Option<String>,
    /// Networks and hosts, separated by commas, that init_image, webhook and s3Config may reach although
    /// they are not public, such as 10.1.2.0/24
    #[arg(
        long,
        env = "STABLEHAND_ALLOW_ADDRESSES",
        value_name = "NETWORKS",
        default_value_t,
        hide_default_value = true,
        help_heading = "Network"
    )]
    pub allow_addresses: AllowedAddresses,

    /// Pages of other sites that may read answers in a browser: origins such as
    /// https://gallery.example, separated by commas, or * for all
    #[arg(long, env = "STABLEHAND_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',',
        value_parser = origin, help_heading = "Network")]
    pub cors_origins: Vec<String>,

    /// API keys, separated by commas; better in the environment, where `ps` does not show them
    #[arg(long, env = "STABLEHAND_API_KEYS", value_name = "KEYS", help_heading = "Access")]
    pub api_keys: Option<String>,
    /// File with API keys, one a line, # for comments
    #[arg(long, env = "STABLEHAND_API_KEYS_FILE", value_name = "FILE", help_heading = "Access")]
    pub api_keys_file: Option<PathBuf>,
    /// Whether clients need an API key; `off` is for loopback only
    #[arg(
        long,
        env = "STABLEHAND_AUTH",
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true,
        help_heading = "Access"
    )]
    pub auth: AuthMode,

    /// Limits of requests by key: off, or exceptions from the hosted service's, in 10 seconds / at
    /// once, such as run=500/50,cancel=off,unauthorized=20
    #[arg(
        long,
        env = "STABLEHAND_RATE_LIMITS",
        value_name = "off|LIMITS",
        default_value = "",
        hide_default_value = true,
        help_heading = "Access"
    )]
    pub rate_limits: RateLimits,
    /// Who may read /metrics: who has an API key (`key`), or everybody (`open`)
    #[arg(
        long,
        env = "STABLEHAND_METRICS",
        value_name = "key|open",
        default_value = "key",
        hide_possible_values = true,
        help_heading = "Access"
    )]
    pub metrics: MetricsAccess,

    /// Model: a .safetensors checkpoint, a folder, or the name of a pulled model; otherwise the one inside this binary
    #[arg(long, env = "STABLEHAND_MODEL", value_name = "MODEL", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Folder of pulled models; otherwise models in the data folder
    #[arg(long, env = "STABLEHAND_MODELS_DIR", value_name = "DIR", help_heading = "Model")]
    pub models_dir: Option<PathBuf>,
    /// What draws: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", value_name = "DEVICE", default_value_t, help_heading = "Model")]
    pub device: DeviceChoice,
    /// Whether models are loaded at the start, as far as there is room; otherwise each for its first job
    #[arg(long, env = "STABLEHAND_PRELOAD", value_name = "true|false", default_value_t = true,
        action = ArgAction::Set, hide_possible_values = true, help_heading = "Model")]
    pub preload: bool,
    /// Memory that models may take of each device, such as 12GiB: the one unused for longest makes room
    /// [default: 90 % of a card's, 80 % of the machine's]
    #[arg(long, env = "STABLEHAND_MEMORY_BUDGET", value_name = "SIZE", value_parser = budget,
        help_heading = "Model")]
    pub memory_budget: Option<u64>,
    /// How long a model stays loaded without a job [default: until another needs the room]
    #[arg(long, env = "STABLEHAND_UNLOAD_AFTER", value_name = "TIME", value_parser = unload_after,
        help_heading = "Model")]
    pub unload_after: Option<Duration>,
    /// Folder of LoRAs (.safetensors), which requests name; otherwise `loras` in the data folder
    #[arg(long, env = "STABLEHAND_LORA_DIR", value_name = "DIR", help_heading = "Model")]
    pub lora_dir: Option<PathBuf>,
    /// Folder of textual inversions (.safetensors), whose names are words for prompts; otherwise
    /// `embeddings` in the data folder
    #[arg(long, env = "STABLEHAND_EMBEDDINGS_DIR", value_name = "DIR", help_heading = "Model")]
    pub embeddings_dir: Option<PathBuf>,
    /// What each worker may hold in models with LoRAs merged in, besides the model itself, such as 8GiB, the default
    #[arg(long, env = "STABLEHAND_LORA_MEMORY", value_name = "SIZE",
        default_value_t = DEFAULT_LORA_MEMORY, value_parser = size, hide_default_value = true, help_heading = "Model")]
    pub lora_memory: u64,
    /// Workers, each with an engine of its own; 0 takes jobs in and works on none
    #[arg(long, env = "STABLEHAND_WORKERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_WORKERS)), help_heading = "Model")]
    pub workers: u32,

    /// Folder for jobs, pictures and keys; otherwise this user's data folder
    #[arg(long, env = "STABLEHAND_DATA_DIR", value_name = "DIR", help_heading = "Jobs")]
    pub data_dir: Option<PathBuf>,
    /// How long an ended job is kept, such as 30m
    #[arg(long, env = "STABLEHAND_RETENTION", value_name = "TIME", default_value = "30m",
        value_parser = retention, help_heading = "Jobs")]
    pub retention: Duration,
    /// The same for runsync jobs [default: 1m, and 5m where the client gave ?wait]
    #[arg(long, env = "STABLEHAND_SYNC_RETENTION", value_name = "TIME", value_parser = retention,
        help_heading = "Jobs")]
    pub sync_retention: Option<Duration>,
    /// How often forgotten jobs are swept out [default: 30s, sooner for short retentions]
    #[arg(long, env = "STABLEHAND_SWEEP_INTERVAL", value_name = "TIME", value_parser = interval,
        help_heading = "Jobs")]
    pub sweep_interval: Option<Duration>,
    /// Jobs that may wait at once for an endpoint; more are refused
    #[arg(long, env = "STABLEHAND_QUEUE_LIMIT", value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..), help_heading = "Jobs")]
    pub queue_limit: u64,
    /// How long a stop waits for the running job before it goes back to the queue
    #[arg(long, env = "STABLEHAND_SHUTDOWN_GRACE", value_name = "TIME", default_value = "10s",
        value_parser = grace, help_heading = "Jobs")]
    pub shutdown_grace: Duration,

    /// What signs webhooks, whsec_ and base64; better in the environment, where `ps` does not show it
    /// [default: made by the first start, in the file webhook-secret of the data folder]
    #[arg(long, env = "STABLEHAND_WEBHOOK_SECRET", value_name = "SECRET", help_heading = "Webhooks")]
    pub webhook_secret: Option<String>,
    /// Webhooks under way at once
    #[arg(long, env = "STABLEHAND_WEBHOOKS_AT_ONCE", value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Webhooks")]
    pub webhooks_at_once: u32,

    /// What is logged to stderr: off, error, warn, info, debug, trace, or a filter such as
    /// stablehand=debug
    #[arg(long, env = "STABLEHAND_LOG", value_name = "FILTER", default_value = "info", help_heading = "Log")]
    pub log: String,
    /// Log lines for people (`text`) or for programs (`json`)
    #[arg(
        long,
        env = "STABLEHAND_LOG_FORMAT",
        value_name = "text|json",
        default_value = "text",
        hide_possible_values = true,
        help_heading = "Log"
    )]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthMode {
    On,
    Off,
}

/// Where pulled models are, for commands that serve nothing.
#[derive(Debug, Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct ModelsDirArgs {
    /// Folder of pulled models [default: models in the data folder]
    #[arg(long, env = "STABLEHAND_MODELS_DIR", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// The server's data folder [default: this user's data folder]
    #[arg(long, env = "STABLEHAND_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ModelsDirArgs {
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        self.data_dir.clone().map_or_else(default_data_dir, Ok)
    }

    pub fn models_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.models_dir {
            return Ok(path.clone());
        }
        Ok(models_dir_in(&self.data_dir()?))
    }
}

/// Who is let in.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    Everybody,
    Keys(Vec<String>),
    /// The key in the data folder, made by the first start.
    OwnKey,
}

/// One endpoint: an id in the paths, a model, and workers of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointConfig {
    pub id: EndpointId,
    /// A path, or the name of a pulled model; none is the model inside this binary.
    pub model: Option<PathBuf>,
    pub device: DeviceChoice,
    pub workers: u32,
    /// Whether its model is loaded at the start.
    pub preload: bool,
}

/// The usual folders of what operators lay beside models, below the data folder, and what it may cost.
pub fn usual_add_ons(data_dir: &Path) -> AddOnFolders {
    AddOnFolders {
        loras: data_dir.join("loras"),
        embeddings: data_dir.join("embeddings"),
        lora_memory: DEFAULT_LORA_MEMORY,
        look_every: Duration::from_secs(1),
    }
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// At least one.
    pub endpoints: Vec<EndpointConfig>,
    /// Bytes that models may take of each device; otherwise a share of what there is.
    pub memory_budget: Option<u64>,
    /// How long a model stays loaded without a job; otherwise until another needs the room.
    pub unload_after: Option<Duration>,
    pub add_ons: AddOnFolders,
    pub listen: SocketAddr,
    /// Without a slash at its end.
    pub public_url: Option<String>,
    /// What clients' URLs may reach besides public addresses.
    pub allow_addresses: AllowedAddresses,
    pub access: Access,
    pub http: HttpSettings,
    pub data_dir: PathBuf,
    /// Where pulled models are.
    pub models_dir: PathBuf,
    pub queue: QueueSettings,
    pub sweep_interval: Duration,
    pub shutdown_grace: Duration,
    /// Otherwise the one in the data folder.
    pub webhook_secret: Option<WebhookSecret>,
    pub webhooks_at_once: u32,
}

/// What is wrong with the settings taken together, as a sentence for the operator.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ServeArgs {
    /// Checks what no flag can check alone, and fills in what depends on others.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let access = self.access()?;
        if access == Access::Everybody && !self.listen.ip().is_loopback() {
            return Err(ConfigError(format!(
                "--auth off would let everybody in who reaches {}: listen on 127.0.0.1, or leave authentication on",
                self.listen
            )));
        }
        let defaults = QueueSettings::default();
        let queue = QueueSettings {
            retention: self.retention,
            sync_retention: self.sync_retention.unwrap_or(defaults.sync_retention),
            sync_waited_retention: self.sync_retention.unwrap_or(defaults.sync_waited_retention),
            queue_limit: self.queue_limit,
            ..defaults
        };
        // Not by clap, whose refusal would repeat it.
        let webhook_secret = self.webhook_secret.as_ref().map(|secret| secret.parse()).transpose();
        let webhook_secret =
            webhook_secret.map_err(|error| ConfigError(format!("the webhook secret is none: {error}")))?;
        let sweep_interval = self.sweep_interval.unwrap_or_else(|| sweep_interval_for(&queue));
        let endpoints = self.endpoint_configs();
        let data_dir = self.data_dir.map_or_else(default_data_dir, Ok)?;
        let usual = usual_add_ons(&data_dir);
        Ok(Config {
            endpoints,
            memory_budget: self.memory_budget,
            unload_after: self.unload_after,
            add_ons: AddOnFolders {
                loras: self.lora_dir.unwrap_or(usual.loras),
                embeddings: self.embeddings_dir.unwrap_or(usual.embeddings),
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
            },
            models_dir: self.models_dir.unwrap_or_else(|| models_dir_in(&data_dir)),
            data_dir,
            queue,
            sweep_interval,
            shutdown_grace: self.shutdown_grace,
            webhook_secret,
            webhooks_at_once: self.webhooks_at_once,
        })
    }

    /// The endpoints of the file; without any, the one that the flags alone make.
    fn endpoint_configs(&self) -> Vec<EndpointConfig> {
        let of = |table: &EndpointTable| EndpointConfig {
            id: table.id.clone(),
            model: table.model.clone().or_else(|| self.model.clone()),
            device: table.device.unwrap_or(self.device),
            workers: table.workers.unwrap_or(self.workers),
            preload: table.preload.unwrap_or(self.preload),
        };
        if self.endpoints.is_empty() {
            let id = EndpointId::default();
            return vec![of(&EndpointTable { id, model: None, device: None, workers: None, preload: None })];
        }
        self.endpoints.iter().map(of).collect()
    }

    fn access(&self) -> Result<Access, ConfigError> {
        if self.auth == AuthMode::Off {
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
                return Err(ConfigError(format!("there is no API key in the file {}", path.display())));
            }
        }
        keys.retain(|key| !key.is_empty());
        if keys.iter().any(|key| !key.chars().all(|c| c.is_ascii_graphic())) {
            return Err(ConfigError(
                "an API key may hold letters, digits and signs of ASCII only, and no spaces".to_owned(),
            ));
        }
        Ok(if keys.is_empty() { Access::OwnKey } else { Access::Keys(keys) })
    }
}

/// A third of the shortest retention, so that what is forgotten is soon gone; 30 s at most.
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
