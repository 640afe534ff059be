//! The data folder, and the secrets that are kept in it.

use std::io;
use std::path::Path;

use super::{AppError, DrainFile};
use crate::config::{Access, Config};
use crate::http::ApiKeys;
use crate::private_dir;
use crate::secrets::{self, OwnApiKey, SecretError};
use crate::webhooks::WebhookSecret;

/// Makes the folder, readable by its owner only, and checks that files can be written in it.
pub(super) fn prepare(path: &Path) -> Result<(), AppError> {
    let failed = |error: io::Error| AppError::DataDir {
        path: path.display().to_string(),
        reason: format!("{error}; name another with --data-dir"),
    };
    private_dir::create(path).map_err(failed)?;
    tempfile::tempfile_in(path).map_err(failed)?;
    Ok(())
}

/// The keys that clients may use. If none are configured, one is made and kept in the data folder.
pub(super) fn api_keys(config: &Config) -> Result<(ApiKeys, Option<OwnApiKey>), SecretError> {
    Ok(match &config.access {
        Access::Everybody => (ApiKeys::off(), None),
        Access::Keys(keys) => (ApiKeys::new(keys.iter().map(String::as_str)), None),
        Access::OwnKey => {
            let own = secrets::own_api_key(&config.data_dir)?;
            (ApiKeys::new([own.key.as_str()]), Some(own))
        }
    })
}

/// The key that signs image URLs. If none is configured, one is made and kept in the data folder.
pub(super) fn signing_key(config: &Config) -> Result<[u8; 32], SecretError> {
    config.signing_key.map_or_else(|| secrets::signing_key(&config.data_dir), Ok)
}

/// A server that starts takes new jobs.
pub(super) fn forget_drain(path: &Path) -> Result<(), AppError> {
    let removed = DrainFile::new(path).remove();
    removed.map(|_| ()).map_err(|error| AppError::DataDir {
        path: path.display().to_string(),
        reason: format!("its file drain cannot be removed: {error}"),
    })
}

/// The secret that signs webhooks. If none is configured, one is made and kept in the data folder.
pub(super) fn webhook_secret(config: &Config) -> Result<WebhookSecret, SecretError> {
    match &config.webhook_secret {
        Some(secret) => Ok(secret.clone()),
        None => secrets::webhook_secret(&config.data_dir),
    }
}
