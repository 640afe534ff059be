//! What lies beside a checkpoint in one file and belongs to it: another VAE, as the web UI has it, and a tiny one.

use std::path::{Path, PathBuf};

use super::EXTENSIONS;

/// Stands between a name and its ending: the VAE that replaces the checkpoint's own.
pub(super) const VAE: &str = "vae";
/// The tiny VAE.
pub(super) const TINY_VAE: &str = "taesd";

/// `NAME.PART.safetensors` beside `NAME.safetensors`, or in one of torch's forms. Of several, the first one is used.
pub(super) fn beside(checkpoint: &Path, part: &str) -> Vec<PathBuf> {
    let named = EXTENSIONS.map(|extension| checkpoint.with_extension(format!("{part}.{extension}")));
    named.into_iter().filter(|path| path.is_file()).collect()
}
