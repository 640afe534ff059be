//! A pull that a client has asked for.

use std::cell::Cell;

use super::task::{Handle, Outcome};
use super::{Kind, LibraryError, LibrarySettings, Served, refused, sentence, users};
use crate::domain::Clock;
use crate::hub::{Hub, HubError, ModelRef, ModelsDir, PullProgress, Pulled, is_lora, sha256_text};
use crate::size_text::size_text;

/// What is to be pulled, checked as far as that is possible without the network.
pub(super) struct Order {
    hub: Hub,
    reference: ModelRef,
    kind: Kind,
    sha256: Option<String>,
    folder: ModelsDir,
}

/// The most bytes of one pull. Single precision with all that a trainer keeps is half of it.
const MOST_BYTES: u64 = 16 << 30;
/// What stays free on the disk, for jobs and their pictures.
const RESERVE: u64 = 1 << 30;
/// After so many bytes the free space is looked at again.
const LOOK_EVERY: u64 = 16 << 20;

impl Order {
    pub fn new(
        settings: &LibrarySettings,
        kind: Kind,
        name: &str,
        sha256: Option<&str>,
    ) -> Result<Self, LibraryError> {
        let hub = Hub::from_environment().and_then(|hub| hub.for_clients(settings.allowed.clone()));
        let hub = hub.map_err(|error| {
            tracing::error!(%error, "the settings for hubs cannot be used");
            LibraryError::Invalid(
                "The server's settings for hubs cannot be used: its log says why.".to_owned(),
            )
        })?;
        let reference = ModelRef::parse(name, hub.base()).map_err(refused)?;
        let sha256 = match sha256 {
            None => None,
            Some(text) => Some(sha256_text(text).ok_or_else(|| {
                LibraryError::Invalid(
                    "sha256 does not meet the constraints. It should be 64 hexadecimal digits.".to_owned(),
                )
            })?),
        };
        let hub = if kind == Kind::ControlNet { hub.for_controlnets() } else { hub };
        Ok(Self { hub, reference, kind, sha256, folder: settings.folder(kind) })
    }

    /// The name that clients see before more is known.
    pub fn shown(&self) -> String {
        self.reference.to_string()
    }

    pub fn run(self, handle: &Handle, served: &[Served]) -> Outcome {
        let progress =
            Progress { handle, served, folder: &self.folder, stop: Cell::new(None), looked: Cell::new(0) };
        let now_ms = Clock::system().now().0;
        let pulled = self.hub.pull(&self.reference, self.sha256.as_deref(), &self.folder, now_ms, &progress);
        let (model, verb) = match pulled {
            Ok(Pulled::New(model)) => (model, "has been pulled"),
            Ok(Pulled::Current(model)) => (model, "is up to date"),
            Err(HubError::Cancelled) => return Outcome::Cancelled,
            Err(error) => {
                tracing::warn!(%error, "a pull failed");
                return Outcome::Failed(sentence(&error));
            }
        };
        let (name, bytes) = (model.manifest.name.clone(), model.manifest.bytes());
        if self.kind == Kind::Model && is_lora(&model.path()) {
            if let Err(error) = self.folder.remove(&name) {
                tracing::warn!(%error, "a LoRA stays among the models");
            }
            return Outcome::Failed(format!("{name} is a LoRA and no model: pull it with the kind lora."));
        }
        handle.update(|task| {
            task.name.clone_from(&name);
            (task.bytes, task.total) = (bytes, Some(bytes));
        });
        let use_it = match self.kind {
            Kind::Model => {
                format!("start the server with --model '{name}', or add an endpoint with it, to draw with it")
            }
            Kind::ControlNet | Kind::Lora | Kind::Upscaler => "requests can use it now".to_owned(),
        };
        Outcome::Done(format!("{name} {verb}: {use_it}."))
    }
}

/// Tells the task how its pull goes, and ends the pull where it must not go on.
struct Progress<'a> {
    handle: &'a Handle,
    served: &'a [Served],
    folder: &'a ModelsDir,
    /// Why the pull should end.
    stop: Cell<Option<HubError>>,
    /// Where the free space was looked at.
    looked: Cell<u64>,
}

impl Progress<'_> {
    /// Ends the pull if it is too large for this server.
    fn check_size(&self, bytes: u64) {
        // If the system does not tell the free space, a full disk fails the download.
        let free = fs4::available_space(self.folder.path()).ok();
        if let Some(reason) = too_large(bytes, free) {
            self.stop.set(Some(HubError::Refused(reason)));
        }
    }
}

/// Why a pull of so many bytes must not go on, with so many bytes free on the disk.
pub(super) fn too_large(bytes: u64, free: Option<u64>) -> Option<String> {
    if bytes > MOST_BYTES {
        let most = size_text(MOST_BYTES);
        return Some(format!(
            "it is larger than {most}, which is more than any model that this server draws with"
        ));
    }
    let free = free.filter(|free| *free < RESERVE)?;
    Some(format!(
        "the disk of this server has only {} free, and the last {} are for its jobs: make room and pull again",
        size_text(free),
        size_text(RESERVE)
    ))
}

impl PullProgress for Progress<'_> {
    fn begin(&self, name: &str, _files: usize, bytes: Option<u64>) {
        self.handle.update(|task| {
            name.clone_into(&mut task.name);
            task.total = bytes;
        });
        let endpoints = match self.folder.find(name) {
            Ok(Some(model)) => users(self.served, &model.path()),
            _ => Vec::new(),
        };
        self.check_size(bytes.unwrap_or(0));
        if !endpoints.is_empty() {
            self.stop.set(Some(HubError::Refused(format!(
                "there is a new version of {name}, but {} draws with the one that is here: pull it when the server is stopped",
                endpoints.join(" and ")
            ))));
        }
    }

    fn position(&self, bytes: u64) {
        self.handle.update(|task| task.bytes = bytes);
        if bytes.abs_diff(self.looked.get()) >= LOOK_EVERY {
            self.looked.set(bytes);
            self.check_size(bytes);
        }
    }

    fn file(&self, _path: &str, _bytes: u64) {}

    fn note(&self, sentence: &str) {
        self.handle.update(|task| task.note = Some(sentence.to_owned()));
    }

    fn stop(&self) -> Option<HubError> {
        self.stop.take().or_else(|| self.handle.is_cancelled().then_some(HubError::Cancelled))
    }
}
