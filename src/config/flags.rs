//! The flags of `stablehand serve`. Each has a variable in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::values::{
    address, agent_address, body_memory, budget, collector, grace, host, interval, origin, public_url,
    queue_bytes, retention, size, unload_after,
};
use super::{CpuArgs, DEFAULT_LORA_MEMORY, DEFAULT_QUEUE_BYTES, EndpointTable, MAX_WORKERS};
use crate::domain::Node;
use crate::fetch::AllowedAddresses;
use crate::http::{MetricsAccess, OpenSurfaces, RateLimits, Surfaces, TrustedProxies};
use crate::runtime::DeviceChoice;

/// The flags of `stablehand serve`.
#[derive(Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
#[expect(clippy::doc_markdown, reason = "the help text is for a terminal")]
pub struct ServeArgs {
    /// TOML file with settings (named like these flags) and endpoints; flags and the environment win over it
    #[arg(long, env = "STABLEHAND_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The endpoints from the configuration file.
    #[arg(skip)]
    pub endpoints: Vec<EndpointTable>,

    /// Address and port to listen on; port 0 takes a free port
    #[arg(long, env = "STABLEHAND_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8000",
        value_parser = address, help_heading = "Network")]
    pub listen: SocketAddr,
    /// Base of the image URLs, such as https://pictures.example [default: the Host header of each request]
    #[arg(long, env = "STABLEHAND_PUBLIC_URL", value_name = "URL", value_parser = public_url,
        help_heading = "Network")]
    pub public_url: Option<String>,
    /// Networks and hosts that the URLs in requests may reach although they are not public, separated by commas, such
    /// as 10.1.2.0/24,minio.internal
    #[arg(
        long,
        env = "STABLEHAND_ALLOW_ADDRESSES",
        value_name = "NETWORKS",
        default_value_t,
        hide_default_value = true,
        help_heading = "Network"
    )]
    pub allow_addresses: AllowedAddresses,

    /// Origins of web pages that may use the API in a browser, separated by commas, such as https://gallery.example;
    /// * allows all
    #[arg(long, env = "STABLEHAND_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',',
        value_parser = origin, help_heading = "Network")]
    pub cors_origins: Vec<String>,

    /// Host names of this server for requests that need no key, separated by commas, such as draw.example; addresses and
    /// local names (localhost, mypc, mypc.local) are always known
    #[arg(long, env = "STABLEHAND_HOSTS", value_name = "NAMES", value_delimiter = ',',
        value_parser = host, help_heading = "Network")]
    pub hosts: Vec<String>,

    /// Networks of the reverse proxies whose X-Forwarded headers count, separated by commas; none trusts no proxy
    #[arg(
        long,
        env = "STABLEHAND_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        default_value = "127.0.0.0/8,::1",
        help_heading = "Network"
    )]
    pub trusted_proxies: TrustedProxies,
    /// Memory for the bodies of requests that arrive at the same time, such as 256MiB [default: 1/64 of the machine's,
    /// from 64MiB to 1GiB]
    #[arg(long, env = "STABLEHAND_BODY_MEMORY", value_name = "SIZE", value_parser = body_memory,
        help_heading = "Network")]
    pub body_memory: Option<u64>,
    /// Number of this server among several behind one balancer, from 0 to 65535; the ids of its jobs carry it
    #[arg(long, env = "STABLEHAND_NODE", value_name = "N", help_heading = "Network")]
    pub node: Option<Node>,
    /// Port on 127.0.0.1, or address and port, at which HAProxy's agent check asks how busy this server is, such as 9101
    #[arg(long, env = "STABLEHAND_AGENT_LISTEN", value_name = "PORT|ADDRESS", value_parser = agent_address,
        help_heading = "Network")]
    pub agent_listen: Option<SocketAddr>,

    /// API keys, separated by commas; safer in the environment, because `ps` shows flags
    #[arg(long, env = "STABLEHAND_API_KEYS", value_name = "KEYS", help_heading = "Access")]
    pub api_keys: Option<String>,
    /// File with API keys, one per line; # starts a comment
    #[arg(long, env = "STABLEHAND_API_KEYS_FILE", value_name = "FILE", help_heading = "Access")]
    pub api_keys_file: Option<PathBuf>,
    /// Key that signs image URLs: base64 of 32 bytes; safer in the environment, because `ps` shows flags
    /// [default: created at the first start, in the file signing-key of the data folder]
    #[arg(long, env = "STABLEHAND_SIGNING_KEY", value_name = "KEY", help_heading = "Access")]
    pub signing_key: Option<String>,
    /// File with that key
    #[arg(long, env = "STABLEHAND_SIGNING_KEY_FILE", value_name = "FILE", help_heading = "Access")]
    pub signing_key_file: Option<PathBuf>,
    /// Whether clients need an API key; off works only on a loopback address
    #[arg(
        long,
        env = "STABLEHAND_AUTH",
        value_name = "on|off",
        default_value = "on",
        hide_possible_values = true,
        help_heading = "Access"
    )]
    pub auth: Switch,

    /// Request limits per key: off, or changes to the hosted service's limits, as OPERATION=N/M (N in 10 seconds, M at
    /// the same time), such as run=500/50,cancel=off,unauthorized=20,keyless=500
    #[arg(
        long,
        env = "STABLEHAND_RATE_LIMITS",
        value_name = "off|LIMITS",
        default_value = "",
        hide_default_value = true,
        help_heading = "Access"
    )]
    pub rate_limits: RateLimits,
    /// Who may read /metrics: key (clients with an API key) or open (everybody)
    #[arg(
        long,
        env = "STABLEHAND_METRICS",
        value_name = "key|open",
        default_value = "key",
        hide_possible_values = true,
        help_heading = "Access"
    )]
    pub metrics: MetricsAccess,

    /// Other programs' APIs to serve, separated by commas: openai, a1111, huggingface, mcp; or all, or none
    #[arg(
        long,
        env = "STABLEHAND_SURFACES",
        value_name = "SURFACES",
        default_value = "all",
        help_heading = "Access"
    )]
    pub surfaces: Surfaces,
    /// Surfaces that need no API key, for clients that cannot send one: from this machine only, or from a network too, as
    /// SURFACE@NETWORK, such as a1111@192.168.1.0/24
    #[arg(
        long,
        env = "STABLEHAND_OPEN_SURFACES",
        value_name = "SURFACES",
        default_value = "",
        hide_default_value = true,
        help_heading = "Access"
    )]
    pub open_surfaces: OpenSurfaces,

    /// Model: a checkpoint (.safetensors, .ckpt), a folder (diffusers or ONNX), or the name of a pulled model
    /// [default: the built-in tiny-sd]
    #[arg(long, env = "STABLEHAND_MODEL", value_name = "MODEL", help_heading = "Model")]
    pub model: Option<PathBuf>,
    /// Folder of pulled models [default: models in the data folder]
    #[arg(long, env = "STABLEHAND_MODELS_DIR", value_name = "DIR", help_heading = "Model")]
    pub models_dir: Option<PathBuf>,
    /// Whether clients may pull, check and remove models through the API and the page: on or off. All keys are alike, so
    /// every client with a key could fill the disk [default: off; on with --auth off on a loopback address]
    #[arg(
        long,
        env = "STABLEHAND_MANAGE_MODELS",
        value_name = "on|off",
        hide_possible_values = true,
        help_heading = "Model"
    )]
    pub manage_models: Option<Switch>,
    /// Device to draw on: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", value_name = "DEVICE", default_value_t, help_heading = "Model")]
    pub device: DeviceChoice,
    #[command(flatten, next_help_heading = "Model")]
    pub cpu: CpuArgs,
    /// Load models at start, as far as memory allows; false loads each model for its first job
    #[arg(long, env = "STABLEHAND_PRELOAD", value_name = "true|false", default_value_t = true,
        action = ArgAction::Set, hide_possible_values = true, help_heading = "Model")]
    pub preload: bool,
    /// Memory that models, their LoRAs and their jobs may use on each device, such as 12GiB; beyond it, unused merged
    /// LoRAs leave first, and then the model that was unused for longest [default: 90 % of a card's memory, 80 % of the machine's]
    #[arg(long, env = "STABLEHAND_MEMORY_BUDGET", value_name = "SIZE", value_parser = budget,
        help_heading = "Model")]
    pub memory_budget: Option<u64>,
    /// How long a model stays loaded without a job, such as 10m [default: until another model needs the memory]
    #[arg(long, env = "STABLEHAND_UNLOAD_AFTER", value_name = "TIME", value_parser = unload_after,
        help_heading = "Model")]
    pub unload_after: Option<Duration>,
    /// Folder of LoRAs (.safetensors, .pt, .bin); requests use them by name [default: loras in the data folder]
    #[arg(long, env = "STABLEHAND_LORA_DIR", value_name = "DIR", help_heading = "Model")]
    pub lora_dir: Option<PathBuf>,
    /// Folder of ControlNets (.safetensors, .pth, or diffusers folders); requests use them by name
    /// [default: controlnets in the data folder]
    #[arg(long, env = "STABLEHAND_CONTROLNET_DIR", value_name = "DIR", help_heading = "Model")]
    pub controlnet_dir: Option<PathBuf>,
    /// Folder of textual inversions (.safetensors, .pt, .bin); prompts use them by name [default: embeddings in the data folder]
    #[arg(long, env = "STABLEHAND_EMBEDDINGS_DIR", value_name = "DIR", help_heading = "Model")]
    pub embeddings_dir: Option<PathBuf>,
    /// Folder of wildcards (.txt); prompts draw a line of one by __name__ [default: wildcards in the data folder]
    #[arg(long, env = "STABLEHAND_WILDCARD_DIR", value_name = "DIR", help_heading = "Model")]
    pub wildcard_dir: Option<PathBuf>,
    /// Folder of upscalers (.safetensors, .pth); requests use them by name [default: upscalers in the data folder]
    #[arg(long, env = "STABLEHAND_UPSCALER_DIR", value_name = "DIR", help_heading = "Model")]
    pub upscaler_dir: Option<PathBuf>,
    /// Folder of tiny VAEs (.safetensors, .pth); requests use one by "vae": "tiny" [default: tiny-vaes in the data folder]
    #[arg(long, env = "STABLEHAND_TINY_VAE_DIR", value_name = "DIR", help_heading = "Model")]
    pub tiny_vae_dir: Option<PathBuf>,
    /// The most memory that each worker keeps for merged LoRAs and int8, and as much again for ControlNets, within
    /// --memory-budget [default: 8GiB]
    #[arg(long, env = "STABLEHAND_LORA_MEMORY", value_name = "SIZE",
        default_value_t = DEFAULT_LORA_MEMORY, value_parser = size, hide_default_value = true, help_heading = "Model")]
    pub lora_memory: u64,
    /// Workers per endpoint, each with its own engine; 0 accepts jobs but runs none
    #[arg(long, env = "STABLEHAND_WORKERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_WORKERS)), help_heading = "Model")]
    pub workers: u32,

    /// Folder for jobs, pictures and keys [default: this user's data folder]
    #[arg(long, env = "STABLEHAND_DATA_DIR", value_name = "DIR", help_heading = "Jobs")]
    pub data_dir: Option<PathBuf>,
    /// How long a finished job is kept
    #[arg(long, env = "STABLEHAND_RETENTION", value_name = "TIME", default_value = "30m",
        value_parser = retention, help_heading = "Jobs")]
    pub retention: Duration,
    /// How long a finished runsync job is kept [default: 1m, or 5m if the client set ?wait]
    #[arg(long, env = "STABLEHAND_SYNC_RETENTION", value_name = "TIME", value_parser = retention,
        help_heading = "Jobs")]
    pub sync_retention: Option<Duration>,
    /// How often expired jobs are deleted [default: 30s, or less if a retention is short]
    #[arg(long, env = "STABLEHAND_SWEEP_INTERVAL", value_name = "TIME", value_parser = interval,
        help_heading = "Jobs")]
    pub sweep_interval: Option<Duration>,
    /// Most jobs that may wait for an endpoint; further jobs are refused
    #[arg(long, env = "STABLEHAND_QUEUE_LIMIT", value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..), help_heading = "Jobs")]
    pub queue_limit: u64,
    /// Most bytes on the disk that the inputs of an endpoint's waiting jobs may take; further jobs are refused [default: 4GiB]
    #[arg(long, env = "STABLEHAND_QUEUE_BYTES", value_name = "SIZE", default_value_t = DEFAULT_QUEUE_BYTES,
        value_parser = queue_bytes, hide_default_value = true, help_heading = "Jobs")]
    pub queue_bytes: u64,
    /// How often a running job saves where it is, to go on from there after a crash or a restart; 0s never saves
    #[arg(long, env = "STABLEHAND_SAVE_EVERY", value_name = "TIME", default_value = "10s",
        value_parser = grace, help_heading = "Jobs")]
    pub save_every: Duration,
    /// How long a stop waits for the running job; then the job goes back to the queue
    #[arg(long, env = "STABLEHAND_SHUTDOWN_GRACE", value_name = "TIME", default_value = "10s",
        value_parser = grace, help_heading = "Jobs")]
    pub shutdown_grace: Duration,

    /// Secret that signs webhooks: whsec_ and base64 of 24 to 64 bytes; safer in the environment, because `ps` shows
    /// flags [default: created at the first start, in the file webhook-secret of the data folder]
    #[arg(long, env = "STABLEHAND_WEBHOOK_SECRET", value_name = "SECRET", help_heading = "Webhooks")]
    pub webhook_secret: Option<String>,
    /// File with that secret
    #[arg(long, env = "STABLEHAND_WEBHOOK_SECRET_FILE", value_name = "FILE", help_heading = "Webhooks")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Webhook calls at the same time, at most half of them to one receiver
    #[arg(long, env = "STABLEHAND_WEBHOOKS_AT_ONCE", value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Webhooks")]
    pub webhooks_at_once: u32,

    /// Log level on stderr (off, error, warn, info, debug, trace), or a filter such as stablehand=debug
    #[arg(long, env = "STABLEHAND_LOG", value_name = "FILTER", default_value = "info", help_heading = "Log")]
    pub log: String,
    /// Format of log lines: text for people, json for programs
    #[arg(
        long,
        env = "STABLEHAND_LOG_FORMAT",
        value_name = "text|json",
        default_value = "text",
        hide_possible_values = true,
        help_heading = "Log"
    )]
    pub log_format: LogFormat,
    /// Collector of OpenTelemetry that gets the traces of requests and jobs, over HTTP, such as http://127.0.0.1:4318
    /// [default: none]
    #[arg(long, env = "STABLEHAND_OTLP", value_name = "URL", value_parser = collector, help_heading = "Log")]
    pub otlp: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}
