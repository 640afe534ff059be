//! The secrets in the data folder: the key that signs image URLs, and, unless the operator sets them, the secret that
//! signs webhooks and the API key. The first start creates them, in files that only their owner can read.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::webhooks::WebhookSecret;

const SIGNING_KEY_FILE: &str = "signing-key";
const WEBHOOK_SECRET_FILE: &str = "webhook-secret";
const API_KEY_FILE: &str = "api-key";
const API_KEY_PREFIX: &str = "sh_";

/// The files of all secrets.
pub const FILES: [&str; 3] = [SIGNING_KEY_FILE, WEBHOOK_SECRET_FILE, API_KEY_FILE];

/// An error with a secret, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot use the key file {path}: {source}")]
    File { path: String, source: io::Error },
    #[error("the key file {path} holds no valid key: delete it, and the next start creates a new one")]
    Damaged { path: String },
    #[error("cannot get random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// The API key of this data folder.
pub struct OwnApiKey {
    pub key: String,
    /// Whether this start created it.
    pub is_new: bool,
}

/// The key that signs image URLs. The first start creates it.
pub fn signing_key(data_dir: &Path) -> Result<[u8; 32], SecretError> {
    let path = data_dir.join(SIGNING_KEY_FILE);
    let (text, _) = read_or_make(&path, |bytes| URL_SAFE_NO_PAD.encode(bytes))?;
    let key = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    key.ok_or_else(|| SecretError::Damaged { path: path.display().to_string() })
}

/// The API key, for a server without configured keys. The first start creates it.
pub fn own_api_key(data_dir: &Path) -> Result<OwnApiKey, SecretError> {
    let path = data_dir.join(API_KEY_FILE);
    let make = |bytes| format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let (key, is_new) = read_or_make(&path, make)?;
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err(SecretError::Damaged { path: path.display().to_string() });
    }
    Ok(OwnApiKey { key, is_new })
}

/// The secret that signs webhooks. The first start creates it; the operator copies it from its file to the receivers.
pub fn webhook_secret(data_dir: &Path) -> Result<WebhookSecret, SecretError> {
    let path = data_dir.join(WEBHOOK_SECRET_FILE);
    let make = |bytes| format!("{}{}", WebhookSecret::PREFIX, STANDARD.encode(bytes));
    let (secret, _) = read_or_make(&path, make)?;
    secret.parse().map_err(|_| SecretError::Damaged { path: path.display().to_string() })
}

/// The secrets that the data folder has, each with the name of its file.
pub fn all(data_dir: &Path) -> Result<Vec<(String, String)>, SecretError> {
    let mut found = Vec::new();
    for name in FILES {
        let path = data_dir.join(name);
        match read(&path) {
            Ok(secret) => found.push((name.to_owned(), secret)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SecretError::File { path: path.display().to_string(), source }),
        }
    }
    Ok(found)
}

/// Writes the files of secrets that another data folder had. Names that no secret has are ignored.
pub fn put_back(data_dir: &Path, secrets: &[(String, String)]) -> Result<(), SecretError> {
    for (name, secret) in secrets.iter().filter(|(name, _)| FILES.contains(&name.as_str())) {
        let path = data_dir.join(name);
        let failed = |source| SecretError::File { path: path.display().to_string(), source };
        write_new(&path, secret).map_err(failed)?;
    }
    Ok(())
}

/// Reads the one line of a file. If there is no file, creates it with `make` from 32 random bytes, and returns true.
fn read_or_make(path: &Path, make: impl Fn([u8; 32]) -> String) -> Result<(String, bool), SecretError> {
    let failed = |source| SecretError::File { path: path.display().to_string(), source };
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map(|text| (text, false)).map_err(failed),
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let secret = make(bytes);
    match write_new(path, &secret) {
        Ok(()) => Ok((secret, true)),
        // Another process was faster, so its secret counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read(path).map(|text| (text, false)).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    close_to_others(path)?;
    Ok(text.trim().to_owned())
}

/// Writes a new file. It appears complete or not at all, and only its owner can ever read it.
fn write_new(path: &Path, secret: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?; // mode 0600
    writeln!(file, "{secret}")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    Ok(())
}

/// Takes away read access from other users, which a copy or a restored backup may have given.
fn close_to_others(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(file = %path.display(), "other users could read a key file; its permissions are now 0600");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_created_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = own_api_key(dir.path()).unwrap();
        assert!(first.is_new && first.key.starts_with("sh_") && first.key.len() == 46, "{}", first.key);
        let second = own_api_key(dir.path()).unwrap();
        assert!(!second.is_new && second.key == first.key);
        assert_eq!(signing_key(dir.path()).unwrap(), signing_key(dir.path()).unwrap());
        assert!(webhook_secret(dir.path()).unwrap() == webhook_secret(dir.path()).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_key_files() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_KEY_FILE);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        own_api_key(dir.path()).unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        own_api_key(dir.path()).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn secrets_move_to_another_folder_and_replace_none() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = own_api_key(dir.path()).unwrap().key;
        signing_key(dir.path()).unwrap();
        let mut secrets = all(dir.path()).unwrap();
        secrets.push(("../elsewhere".to_owned(), "no secret's name".to_owned()));
        put_back(other.path(), &secrets).unwrap();
        assert_eq!(own_api_key(other.path()).unwrap().key, key);
        assert_eq!(signing_key(other.path()).unwrap(), signing_key(dir.path()).unwrap());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2);
        assert!(put_back(other.path(), &secrets).is_err());
    }

    #[test]
    fn a_damaged_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SIGNING_KEY_FILE), "short").unwrap();
        let error = signing_key(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("holds no valid key: delete it, and the next start creates a new one"));
    }
}
