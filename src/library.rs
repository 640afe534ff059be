//! The models of a running server, and what they are used with: what is here, and one change at a time.
//!
//! A pull or a check is a [`Task`] on a thread of its own. Clients name what is pulled, so a pull calls only public
//! addresses, leaves room on the disk, and ends at a largest size. A restart forgets tasks; what a pull has collected
//! stays, and the next pull of the same name resumes it. A model that an endpoint serves is never changed or removed.
//! All calls block but for the time of a few looks at the disk.

mod check;
mod listing;
mod pull;
mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use listing::{Item, Listing, Part, Place};
pub use task::{Status, Task, Work};

use crate::domain::{EndpointId, Node};
use crate::fetch::AllowedAddresses;
use crate::hub::{HubCache, HubError, ModelsDir, PulledModel, Unfinished};
use task::Tasks;

/// What a name in the library stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Model,
    ControlNet,
    Lora,
    Upscaler,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Model, Self::ControlNet, Self::Lora, Self::Upscaler];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::ControlNet => "controlnet",
            Self::Lora => "lora",
            Self::Upscaler => "upscaler",
        }
    }
}

/// Where things lie, and what clients may do.
#[derive(Debug, Clone)]
pub struct LibrarySettings {
    pub models: PathBuf,
    pub controlnets: PathBuf,
    pub loras: PathBuf,
    pub upscalers: PathBuf,
    /// Whether clients may pull, check and remove.
    pub may_change: bool,
    /// Which of several servers this is. The ids of tasks say it.
    pub node: Option<Node>,
    /// The addresses that a pull may reach besides public ones.
    pub allowed: AllowedAddresses,
}

impl LibrarySettings {
    fn folder(&self, kind: Kind) -> ModelsDir {
        let path = match kind {
            Kind::Model => &self.models,
            Kind::ControlNet => &self.controlnets,
            Kind::Lora => &self.loras,
            Kind::Upscaler => &self.upscalers,
        };
        ModelsDir::new(path.clone())
    }
}

/// A model that an endpoint serves. The built-in model has no path.
#[derive(Debug, Clone)]
pub struct Served {
    pub endpoint: EndpointId,
    pub path: Option<PathBuf>,
}

/// Why the library does not do what was asked. Clients see the sentence.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("This server does not let clients change its models: start it with --manage-models on.")]
    ReadOnly,
    #[error("The server is at work on {name}: wait until it is done, or cancel that.")]
    Busy { name: String },
    #[error(
        "{name} is in use by {}: serve another model there and restart the server, then remove it.",
        endpoints.join(" and ")
    )]
    InUse { name: String, endpoints: Vec<String> },
    #[error("There is no {name} here.")]
    Missing { name: String },
    #[error("{0}")]
    Invalid(String),
    #[error("The server cannot use its folder of models: its log says why.")]
    Disk,
}

/// The library. Clones share its tasks.
#[derive(Clone)]
pub struct Library(Arc<Inner>);

struct Inner {
    settings: LibrarySettings,
    served: Vec<Served>,
    tasks: Tasks,
}

/// The name of the model inside the binary.
const BUILT_IN: &str = "tiny-sd";
/// The most characters of a name or URL.
const LONGEST_NAME: usize = 2048;

impl Library {
    pub fn new(settings: LibrarySettings, served: Vec<Served>) -> Self {
        Self(Arc::new(Inner { settings, served, tasks: Tasks::default() }))
    }

    /// Whether clients may pull, check and remove.
    pub fn may_change(&self) -> bool {
        self.0.settings.may_change
    }

    /// The task that runs, or else the last one.
    pub fn last_task(&self) -> Option<Task> {
        self.0.tasks.last()
    }

    /// A task of the last few.
    pub fn task(&self, id: &str) -> Option<Task> {
        self.0.tasks.find(id)
    }

    /// Asks a task to end. Returns it as it is then; one that has ended stays as it is.
    pub fn cancel(&self, id: &str) -> Result<Option<Task>, LibraryError> {
        self.check_rights()?;
        Ok(self.0.tasks.cancel(id))
    }

    /// Begins to pull what `name` means: `ORG/NAME`, one of its forms, or a URL.
    pub fn pull(&self, kind: Kind, name: &str, sha256: Option<&str>) -> Result<Task, LibraryError> {
        self.check_rights()?;
        let order = pull::Order::new(&self.0.settings, kind, checked(name)?, sha256)?;
        let served = self.0.served.clone();
        let task = Task::new(Work::Pull, kind, order.shown()).at(self.0.settings.node);
        self.0.tasks.begin(task, move |handle| order.run(handle, &served))
    }

    /// Begins to check whether a model draws.
    pub fn check(&self, name: &str) -> Result<Task, LibraryError> {
        self.check_rights()?;
        let (name, path) = self.model(checked(name)?)?;
        let folder = self.0.settings.models.clone();
        let task = Task::new(Work::Check, Kind::Model, name).at(self.0.settings.node);
        self.0.tasks.begin(task, move |handle| check::run(path.as_deref(), &folder, handle))
    }

    /// Removes what was pulled, or an unfinished pull. Returns its full name and the freed bytes.
    pub fn remove(&self, kind: Kind, name: &str) -> Result<(String, u64), LibraryError> {
        self.check_rights()?;
        let folder = self.0.settings.folder(kind);
        let found = pulled(&folder, checked(name)?)?;
        let name = match &found {
            Found::Whole(model) => model.manifest.name.clone(),
            Found::Part(unfinished) => unfinished.name.clone(),
        };
        if let Some(running) = self.0.tasks.running().filter(|task| task.name == name) {
            return Err(LibraryError::Busy { name: running.name });
        }
        if let Found::Whole(model) = &found {
            let endpoints = users(&self.0.served, &model.path());
            if !endpoints.is_empty() {
                return Err(LibraryError::InUse { name, endpoints });
            }
        }
        folder.remove(&name).map_err(refused)
    }

    /// Asks the running task to end, and waits a moment for it. What a pull has collected is kept.
    pub fn stop(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let asked = Instant::now();
        self.0.tasks.cancel_all();
        while self.0.tasks.running().is_some() && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn check_rights(&self) -> Result<(), LibraryError> {
        if self.may_change() { Ok(()) } else { Err(LibraryError::ReadOnly) }
    }

    /// The full name and the path of a model that is here. The built-in model has no path.
    fn model(&self, name: &str) -> Result<(String, Option<PathBuf>), LibraryError> {
        let folder = self.0.settings.folder(Kind::Model);
        if let Some(model) = folder.find(name).map_err(refused)? {
            let path = model.path();
            return Ok((model.manifest.name, Some(path)));
        }
        if let Some(copied) = folder.find_copied(name) {
            return Ok((copied.name, Some(copied.path)));
        }
        match in_cache(name) {
            Some(path) => Ok((name.to_owned(), Some(path))),
            None if name == BUILT_IN => Ok((name.to_owned(), None)),
            None => Err(LibraryError::Missing { name: name.to_owned() }),
        }
    }
}

/// What a name means that was pulled.
enum Found {
    Whole(PulledModel),
    Part(Unfinished),
}

/// What `name` means in a folder of what was pulled.
fn pulled(folder: &ModelsDir, name: &str) -> Result<Found, LibraryError> {
    if let Some(model) = folder.find(name).map_err(refused)? {
        return Ok(Found::Whole(model));
    }
    if let Some(part) = folder.unfinished().map_err(refused)?.into_iter().find(|part| part.name == name) {
        return Ok(Found::Part(part));
    }
    let is_elsewhere = folder.find_copied(name).is_some() || name == BUILT_IN;
    Err(match is_elsewhere || in_cache(name).is_some() {
        true => {
            LibraryError::Invalid(format!("{name} was not pulled by this server, so it does not remove it."))
        }
        false => LibraryError::Missing { name: name.to_owned() },
    })
}

fn in_cache(name: &str) -> Option<PathBuf> {
    HubCache::of_this_user()?.find(name).ok()?.map(|cached| cached.path)
}

/// The endpoints that serve what lies at `path`.
fn users(served: &[Served], path: &Path) -> Vec<String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let path = real(path);
    let uses = |own: &Served| own.path.as_deref().is_some_and(|own| real(own).starts_with(&path));
    served.iter().filter(|own| uses(own)).map(|own| own.endpoint.to_string()).collect()
}

/// A name of a sensible length, without control characters.
fn checked(name: &str) -> Result<&str, LibraryError> {
    let name = name.trim();
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(LibraryError::Invalid(format!(
            "name does not meet the constraints. It should be text of at most {LONGEST_NAME} bytes on one line."
        )));
    }
    Ok(name)
}

/// What clients may read of an error. Paths of this machine stay in the log.
fn refused(error: HubError) -> LibraryError {
    match error {
        HubError::NotPulled { name, .. } => LibraryError::Missing { name },
        HubError::Busy { name } => LibraryError::Busy { name },
        error if names_a_path(&error) => {
            tracing::error!(%error, "the folder of models cannot be used");
            LibraryError::Disk
        }
        error => LibraryError::Invalid(sentence(&error)),
    }
}

fn names_a_path(error: &HubError) -> bool {
    matches!(
        error,
        HubError::Disk { .. }
            | HubError::DiskFull(_)
            | HubError::Outside { .. }
            | HubError::Cached { .. }
            | HubError::IncompleteCache { .. }
    )
}

/// The error as a sentence: with a capital, where it does not begin with a name, and a full stop.
fn sentence(error: &HubError) -> String {
    let text = match error {
        HubError::NoSpace { name, needed, free, .. } => {
            format!("{name} needs {needed} more, but the disk has only {free} free.")
        }
        HubError::DiskFull(_) => "the disk is full; what can be resumed is kept".to_owned(),
        error if names_a_path(error) => LibraryError::Disk.to_string(),
        error => error.to_string(),
    };
    let mut characters = text.trim_end_matches('.').chars();
    let first = characters.next().map(|first| {
        let starts_a_name = text.split(' ').next().is_some_and(|word| word.contains(['.', '/', ':']));
        if starts_a_name { first.to_string() } else { first.to_uppercase().to_string() }
    });
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}

#[cfg(test)]
mod tests;
