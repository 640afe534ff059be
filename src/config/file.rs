//! The configuration file: settings (named like their flags) and endpoints.
//!
//! Each setting becomes the default of its flag. So the flags read and check all values, and flags and environment win
//! over the file. This module knows no setting by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use clap::{ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::domain::EndpointId;
use crate::runtime::DeviceChoice;

/// A configuration file. Its endpoints are checked; [`Self::lay_under`] checks its settings.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    settings: Vec<Setting>,
    pub endpoints: Vec<EndpointTable>,
}

#[derive(Debug, Clone)]
struct Setting {
    name: String,
    value: String,
    line: usize,
}

/// One `[endpoints.NAME]` table. The flags fill in what it leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointTable {
    pub id: EndpointId,
    pub model: Option<PathBuf>,
    pub device: Option<DeviceChoice>,
    pub workers: Option<u32>,
    pub preload: Option<bool>,
}

const ENDPOINTS: &str = "endpoints";
/// What comes after `/v1` in the routes of surfaces and of the library.
const RESERVED: [&str; 8] =
    ["controlnet", "huggingface", "images", "internal", "library", "models", "predictions", "sdapi"];
/// Flags that make no sense in a file.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];

impl ConfigFile {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError(format!("cannot read the configuration file {}: {error}", path.display()))
        })?;
        let reader = Reader { path, text: &text };
        let root = DeTable::parse(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| reader.line(span.start));
            reader.error(line, error.message().replace('\n', ", "))
        })?;
        let (mut settings, mut endpoints) = (Vec::new(), Vec::new());
        for (key, value) in root.get_ref() {
            if key.get_ref() == ENDPOINTS {
                endpoints = reader.endpoints(value)?;
            } else {
                let name = key.get_ref().to_string();
                let value = reader.text_of(&name, value)?;
                settings.push(Setting { name, value, line: reader.line(key.span().start) });
            }
        }
        settings.sort_by_key(|setting| setting.line);
        Ok(Self { path: path.to_owned(), settings, endpoints })
    }

    /// Makes the file's settings the defaults of the flags of `serve`.
    pub fn lay_under(&self, mut serve: Command) -> Result<Command, ConfigError> {
        // Each setting is parsed alone, so that an error names its line.
        let alone = serve.clone().no_binary_name(true);
        for Setting { name, value, line } in &self.settings {
            let refuse =
                |reason: String| ConfigError(format!("{}, line {line}: {reason}", self.path.display()));
            let flag = |name: &str| serve.get_arguments().find(|arg| arg.get_long() == Some(name));
            let Some(arg) = flag(name).filter(|_| !NOT_IN_FILES.contains(&name.as_str())) else {
                let dashed = name.replace('_', "-");
                let hint = if dashed != *name && flag(&dashed).is_some() {
                    format!("; did you mean {dashed}?")
                } else {
                    String::new()
                };
                return Err(refuse(format!("there is no setting {name}{hint}")));
            };
            let id = arg.get_id().clone();
            if matches!(arg.get_action(), ArgAction::Set) {
                alone
                    .clone()
                    .try_get_matches_from([format!("--{name}={value}")])
                    .map_err(|error| refuse(first_line(&error)))?;
            } else if !matches!(value.as_str(), "true" | "false") {
                return Err(refuse(format!("{name} should be true or false")));
            }
            let value = value.clone();
            serve = serve.mut_arg(id, |arg| arg.default_value(value));
        }
        Ok(serve)
    }
}

/// The text of a file, to find line numbers in.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error(&self, line: usize, reason: impl std::fmt::Display) -> ConfigError {
        ConfigError(format!("{}, line {line}: {reason}", self.path.display()))
    }

    /// A value, as it would be written after the flag.
    fn text_of(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Boolean(on) => Ok(on.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().replace('_', "")),
            DeValue::Float(number) => Ok(number.as_str().replace('_', "")),
            _ => {
                Err(self
                    .error(self.line(value.span().start), format!("{name} should be a string or a number")))
            }
        }
    }

    fn endpoints(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<EndpointTable>, ConfigError> {
        let line = self.line(value.span().start);
        let wanted = || self.error(line, "endpoints should be tables, such as [endpoints.my-model]");
        let mut endpoints = Vec::new();
        for (key, value) in value.get_ref().as_table().ok_or_else(wanted)? {
            let (name, line) = (key.get_ref().to_string(), self.line(key.span().start));
            let DeValue::Table(table) = value.get_ref() else { return Err(wanted()) };
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !(1..=64).contains(&name.len()) || !name.chars().all(plain) || name.starts_with('.') {
                return Err(self.error(
                    line,
                    format!(
                        "'{name}' is not a valid endpoint name: use up to 64 letters, digits, -, _ and ."
                    ),
                ));
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(self.error(
                    line,
                    format!("'{name}' cannot name an endpoint, because /v1/{name} is another route: choose another name"),
                ));
            }
            endpoints.push((line, self.endpoint(EndpointId::new(name), table)?));
        }
        if endpoints.is_empty() {
            return Err(wanted());
        }
        endpoints.sort_by_key(|(line, _)| *line);
        Ok(endpoints.into_iter().map(|(_, endpoint)| endpoint).collect())
    }

    fn endpoint(&self, id: EndpointId, table: &DeTable<'_>) -> Result<EndpointTable, ConfigError> {
        let mut endpoint = EndpointTable { id, model: None, device: None, workers: None, preload: None };
        for (key, value) in table {
            let line = self.line(key.span().start);
            let name = key.get_ref().as_ref();
            let refuse = |value: &str, reason: String| {
                self.error(line, format!("invalid value '{value}' for {name}: {reason}"))
            };
            match name {
                "model" => endpoint.model = Some(self.text_of(name, value)?.into()),
                "device" => {
                    let text = self.text_of(name, value)?;
                    let device = DeviceChoice::from_str(&text).map_err(|reason| refuse(&text, reason))?;
                    endpoint.device = Some(device);
                }
                "workers" => {
                    let text = self.text_of(name, value)?;
                    let workers = text.parse().ok().filter(|workers| *workers <= super::MAX_WORKERS);
                    let limit = || refuse(&text, format!("it should be from 0 to {}", super::MAX_WORKERS));
                    endpoint.workers = Some(workers.ok_or_else(limit)?);
                }
                "preload" => {
                    let text = self.text_of(name, value)?;
                    let preload = text.parse();
                    let wanted = |_| refuse(&text, "it should be true or false".to_owned());
                    endpoint.preload = Some(preload.map_err(wanted)?);
                }
                other => {
                    return Err(self.error(
                        line,
                        format!(
                            "an endpoint has no setting {other}: it has model, device, workers and preload"
                        ),
                    ));
                }
            }
        }
        Ok(endpoint)
    }
}

/// The sentence of a usage error, without the usage text after it.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let sentence = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = sentence.trim_start_matches("error:").split_whitespace().collect();
    words.join(" ")
}
