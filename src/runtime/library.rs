//! Chooses the ONNX Runtime that a process loads. A process can load only one, so the choice considers all devices that it
//! will use.
//!
//! A library that the user names comes first. Otherwise an installed CUDA runtime is chosen if a session may run on a card
//! and the driver shows a card that the runtime supports. In all other cases the embedded library is chosen.

use std::env;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::driver::{Driver, has_card_node};
use super::installed::{InstalledRuntime, RuntimesDir};
use super::packages::{CUDA_MINIMUM, DRIVER_MINIMUM, serves};
use super::{DeviceChoice, RuntimeError, trust};

/// The library of an ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub path: PathBuf,
    pub origin: Origin,
}

/// Where a library comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `STABLEHAND_ORT_DYLIB` names it.
    Named,
    /// `stablehand runtime install cuda` installed it.
    Installed,
    /// This binary contains it.
    Embedded,
}

impl Library {
    /// The version, if the file's name contains it or the library is the embedded one.
    pub fn version(&self) -> Option<String> {
        let name = self.path.file_name()?.to_str()?;
        let version = name.trim_start_matches("libonnxruntime").trim_start_matches(".so");
        let version = version.trim_end_matches(".dylib").trim_start_matches('.');
        if version.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(version.to_owned());
        }
        #[cfg(feature = "embed-onnxruntime")]
        if self.origin == Origin::Embedded {
            return Some(super::embedded::VERSION.to_owned());
        }
        None
    }
}

/// Where installed runtimes are, and the devices that the process will use.
#[derive(Debug, Clone)]
struct Wish {
    runtimes: RuntimesDir,
    choices: Vec<DeviceChoice>,
}

static WISH: Mutex<Option<Wish>> = Mutex::new(None);

/// Allows installed runtimes: states where they are and on which devices sessions will run. Call this before the first
/// [`Runtime::load`](super::Runtime::load). Without this call, no installed runtime is used.
pub fn use_installed(runtimes: RuntimesDir, choices: impl IntoIterator<Item = DeviceChoice>) {
    let wish = Wish { runtimes, choices: choices.into_iter().collect() };
    *WISH.lock().unwrap_or_else(PoisonError::into_inner) = Some(wish);
}

/// The installed CUDA runtime, if it should be loaded.
#[derive(Debug)]
pub(super) enum Candidate {
    Use(Library),
    /// It should not be loaded. The reason is for the user, if there is one worth reading.
    No(Option<String>),
}

/// The library that `STABLEHAND_ORT_DYLIB` names, if it names one.
pub(super) fn named() -> Result<Option<Library>, RuntimeError> {
    let Some(path) = env::var_os("STABLEHAND_ORT_DYLIB").filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    match path.is_file() {
        // ONNX Runtime looks for its providers beside this path, so a link must be resolved.
        true => Ok(Some(Library { path: path.canonicalize().unwrap_or(path), origin: Origin::Named })),
        false => Err(RuntimeError::Library { path, reason: "there is no such file".to_owned() }),
    }
}

/// Whether to load the installed CUDA runtime.
pub(super) fn installed() -> Candidate {
    let wish = WISH.lock().unwrap_or_else(PoisonError::into_inner).clone();
    wish.map_or(Candidate::No(None), |wish| candidate(&wish.runtimes, &wish.choices))
}

fn candidate(runtimes: &RuntimesDir, choices: &[DeviceChoice]) -> Candidate {
    if choices.iter().all(|choice| *choice == DeviceChoice::Cpu) {
        return Candidate::No(None);
    }
    let runtime = runtimes.cuda();
    let found = runtime.as_ref().and_then(InstalledRuntime::library);
    let usable = usable(Driver::get(), has_card_node());
    match (found, usable) {
        (Some(path), Usable::Yes) => {
            let mut files = runtime.iter().flat_map(InstalledRuntime::paths);
            if let Some(why) = files.find_map(|file| trust::who_else_under(runtimes.path(), &file)) {
                return Candidate::No(Some(format!(
                    "the installed CUDA runtime is not loaded, because {why}; `stablehand runtime rm cuda` and `stablehand \
                     runtime install cuda` install it again for this user"
                )));
            }
            // ONNX Runtime looks for its providers beside this path.
            let path = path.canonicalize().unwrap_or(path);
            Candidate::Use(Library { path, origin: Origin::Installed })
        }
        (None, Usable::Yes) => Candidate::No(Some(NOT_INSTALLED.to_owned())),
        (_, Usable::No(reason)) => Candidate::No(reason),
    }
}

/// The library that a process would load.
#[derive(Debug)]
pub enum Planned {
    /// This library.
    Library(Library),
    /// The library inside this binary. If a card exists but cannot be used, this has the reason.
    Embedded { unused_card: Option<String> },
}

impl Planned {
    /// Chooses the library for these devices. Nothing is loaded or unpacked.
    pub fn for_devices(runtimes: &RuntimesDir, choices: &[DeviceChoice]) -> Result<Self, RuntimeError> {
        if let Some(library) = named()? {
            return Ok(Self::Library(library));
        }
        Ok(match candidate(runtimes, choices) {
            Candidate::Use(library) => Self::Library(library),
            Candidate::No(unused_card) => Self::Embedded { unused_card },
        })
    }
}

/// The reason why no card can be used, even with the CUDA runtime installed. `None` if a card can be used.
pub fn why_no_card() -> Option<String> {
    match usable(Driver::get(), true) {
        Usable::Yes => None,
        Usable::No(reason) => reason,
    }
}

pub(super) const NOT_INSTALLED: &str =
    "the CUDA runtime is not installed; `stablehand runtime install cuda` installs it";

/// Whether the driver has a card that the pinned runtime supports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Usable {
    Yes,
    /// It has none. There is a reason only on a machine where the user expects a card.
    No(Option<String>),
}

/// Judges the driver. `has_node` is whether the kernel shows a card.
pub(super) fn usable(driver: &Driver, has_node: bool) -> Usable {
    let expected = |reason: String| Usable::No(has_node.then_some(reason));
    match driver {
        Driver::Missing => expected(format!(
            "the NVIDIA driver's library {} is missing; install the driver, version {DRIVER_MINIMUM} or newer",
            Driver::library()
        )),
        Driver::Broken(reason) => Usable::No(Some(format!("the NVIDIA driver does not work: {reason}"))),
        Driver::Silent => Usable::Yes,
        Driver::Works { cards, .. } if cards.is_empty() => {
            expected("the NVIDIA driver shows no card (CUDA_VISIBLE_DEVICES may hide it)".to_owned())
        }
        Driver::Works { cuda: (major, minor), .. } if (*major, *minor) < CUDA_MINIMUM => {
            Usable::No(Some(format!(
                "the NVIDIA driver supports CUDA {major}.{minor}, and {}.{} is needed; update the driver to version \
                 {DRIVER_MINIMUM} or newer",
                CUDA_MINIMUM.0, CUDA_MINIMUM.1
            )))
        }
        Driver::Works { cards, .. } => match cards.iter().any(|card| serves(card.compute_capability)) {
            true => Usable::Yes,
            false => Usable::No(Some(not_served(&cards[0].name, cards[0].compute_capability))),
        },
    }
}

/// Why a card cannot be used.
pub(super) fn not_served(name: &str, (major, minor): (u32, u32)) -> String {
    format!("the CUDA runtime has no machine code for {name} (compute capability {major}.{minor})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::driver::Card;

    fn driver(cuda: (u32, u32), capabilities: &[(u32, u32)]) -> Driver {
        let card = |&compute_capability| Card { name: "a card".to_owned(), compute_capability, memory: 1 };
        Driver::Works { cuda, cards: capabilities.iter().map(card).collect() }
    }

    #[test]
    fn a_machine_without_a_card_gets_no_message_about_cuda() {
        for driver in [Driver::Missing, driver((13, 0), &[])] {
            assert_eq!(usable(&driver, false), Usable::No(None), "{driver:?}");
            assert!(matches!(usable(&driver, true), Usable::No(Some(_))), "{driver:?}");
        }
    }

    #[test]
    fn a_card_is_used_if_driver_and_runtime_support_it() {
        assert_eq!(usable(&driver((13, 0), &[(9, 0)]), true), Usable::Yes);
        assert_eq!(usable(&driver((13, 2), &[(10, 0), (8, 6)]), false), Usable::Yes);
        assert_eq!(usable(&Driver::Silent, false), Usable::Yes);
        for (driver, part) in [
            (driver((12, 9), &[(9, 0)]), "update the driver to version 580"),
            (driver((13, 0), &[(10, 0)]), "no machine code for a card (compute capability 10.0)"),
            (Driver::Broken("cuInit answers error 803".to_owned()), "803"),
        ] {
            let Usable::No(Some(reason)) = usable(&driver, false) else { panic!("{driver:?}") };
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn the_version_is_read_from_the_file_s_name() {
        let version = |name: &str| Library { path: name.into(), origin: Origin::Named }.version();
        assert_eq!(version("/a/libonnxruntime.so.1.31.1").as_deref(), Some("1.31.1"));
        assert_eq!(version("/a/libonnxruntime.1.32.0.dylib").as_deref(), Some("1.32.0"));
        assert_eq!(version("/a/libonnxruntime.so"), None);
        assert_eq!(version("/a/onnxruntime.dll"), None);
    }
}
