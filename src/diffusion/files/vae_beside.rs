//! The VAE that lies beside a checkpoint and replaces its own, as the web UI has it.

use std::path::{Path, PathBuf};

use super::EXTENSIONS;

/// `NAME.vae.safetensors` beside `NAME.safetensors`, or in one of torch's forms. Of several, the first one is used.
pub(super) fn vaes_beside(checkpoint: &Path) -> Vec<PathBuf> {
    let named = EXTENSIONS.map(|extension| checkpoint.with_extension(format!("vae.{extension}")));
    named.into_iter().filter(|path| path.is_file()).collect()
}
