//! The flags that several commands share: of the processor, and of folders. Each has a variable in the environment.

use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;

use super::{ConfigError, MAX_THREADS, default_data_dir, models_dir_in};
use crate::runtime::{CpuSettings, CpuSpeed};

/// The flags for the processor, of all commands that draw.
#[derive(Debug, Args, Clone, Copy, Default)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct CpuArgs {
    /// Convolutions on a CPU: auto takes the faster ones, timed once for each processor; fast takes stablehand's own, and
    /// memory ONNX Runtime's, which need less memory. Pictures differ in the last bits
    #[arg(long, env = "STABLEHAND_CPU_SPEED", value_name = "auto|fast|memory", default_value_t)]
    cpu_speed: CpuSpeed,
    #[command(flatten)]
    threads: ThreadArgs,
}

/// The flag for the processor's threads, of commands that have no choice of convolutions.
#[derive(Debug, Args, Clone, Copy, Default)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct ThreadArgs {
    /// Threads that draw on a CPU, for each worker [default: one for each physical core; the workers of an endpoint
    /// share them]
    #[arg(long, env = "STABLEHAND_THREADS", value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_THREADS)))]
    threads: Option<u32>,
}

impl ThreadArgs {
    pub fn settings(self) -> CpuSettings {
        let threads = self.threads.and_then(|threads| NonZero::new(threads as usize));
        CpuSettings { threads, ..CpuSettings::default() }
    }
}

impl CpuArgs {
    pub fn settings(self) -> CpuSettings {
        CpuSettings { speed: self.cpu_speed, ..self.threads.settings() }
    }
}

/// The flags for the folder of pulled models, for all commands except `serve`.
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

/// The flags for the folder of ControlNets, for all commands except `serve` and `generate`.
#[derive(Debug, Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct ControlNetDirArgs {
    /// Folder of ControlNets [default: controlnets in the data folder]
    #[arg(long, env = "STABLEHAND_CONTROLNET_DIR", value_name = "DIR")]
    controlnet_dir: Option<PathBuf>,
    /// The server's data folder [default: this user's data folder]
    #[arg(long, env = "STABLEHAND_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ControlNetDirArgs {
    pub fn controlnet_dir(&self) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.controlnet_dir {
            return Ok(path.clone());
        }
        let data_dir = self.data_dir.clone().map_or_else(default_data_dir, Ok)?;
        Ok(super::usual_add_ons(&data_dir).controlnets)
    }
}

/// Where tiny VAEs are.
#[derive(Debug, Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct TinyVaeDirArgs {
    /// Folder of tiny VAEs, with --tiny-vae [default: tiny-vaes in the data folder]
    #[arg(long, env = "STABLEHAND_TINY_VAE_DIR", value_name = "DIR")]
    tiny_vae_dir: Option<PathBuf>,
}

impl TinyVaeDirArgs {
    /// `data_dir` tells where the data folder is.
    pub fn tiny_vae_dir(
        &self,
        data_dir: impl FnOnce() -> Result<PathBuf, ConfigError>,
    ) -> Result<PathBuf, ConfigError> {
        match &self.tiny_vae_dir {
            Some(path) => Ok(path.clone()),
            None => Ok(super::usual_add_ons(&data_dir()?).tiny_vaes),
        }
    }
}

/// Where the data folder is, for commands that need no other.
#[derive(Debug, Args, Clone)]
#[command(mut_args(|arg| arg.hide_env_values(true)))]
pub struct DataDirArgs {
    /// The server's data folder [default: this user's data folder]
    #[arg(long, env = "STABLEHAND_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDirArgs {
    pub fn data_dir(&self) -> Result<PathBuf, ConfigError> {
        self.data_dir.clone().map_or_else(default_data_dir, Ok)
    }
}
