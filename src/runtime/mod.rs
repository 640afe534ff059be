//! ONNX Runtime: where its library comes from, and on which device its sessions run.
//!
//! Knows nothing of models or pictures: it is given a graph and returns a session.

mod attention;
mod cgroup;
mod cores;
mod cpu;
mod cuda_libraries;
mod device;
mod driver;
#[cfg(feature = "embed-onnxruntime")]
mod embedded;
mod install;
mod installed;
mod library;
mod memory;
mod message;
mod packages;
mod pip;
mod remembered;
mod telemetry;
mod trust;
mod turns;

use std::env;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use crate::kernels;

pub use attention::Attention;
pub use cpu::{CpuSettings, CpuSpeed};
pub use cuda_libraries::{CudaLibrary, LibraryPlace, cuda_libraries};
pub use device::{CardSettings, Device, DeviceChoice, OnCard};
pub use driver::{Card, Driver, has_card_node};
#[cfg(feature = "embed-onnxruntime")]
pub use embedded::notices;
pub use install::{InstallError, InstallProgress, Installed, download_bytes, install_cuda, installed_bytes};
pub use installed::{InstalledRuntime, RuntimesDir, RuntimesDirError};
pub use library::{Library, Origin, Planned, use_installed, why_no_card};
pub use memory::{MemoryUse, card_memory, driver_version, machine_memory, machine_memory_use};
pub use message::{is_out_of_memory, reason};
pub use packages::{CUDA_MINIMUM, CUDA_PACKAGES, CUDA_VERSION, DRIVER_MINIMUM, Licence, Package, serves};
pub use remembered::Remembered;
pub use telemetry::disable_telemetry;
pub use turns::{CoreTurn, take_cores};

/// Why ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "cannot unpack ONNX Runtime to {path}: {reason}; make that folder writable or name another with STABLEHAND_CACHE_DIR"
    )]
    Cache { path: PathBuf, reason: String },
    #[error("cannot load ONNX Runtime from {path}: {reason}; STABLEHAND_ORT_DYLIB names the library to use")]
    Library { path: PathBuf, reason: String },
    #[error(
        "cannot load ONNX Runtime from {path}: {reason}; name another folder with STABLEHAND_CACHE_DIR, on a file system \
         that lets programs run"
    )]
    Unloadable { path: PathBuf, reason: String },
    #[error(
        "this stablehand was built without ONNX Runtime; set STABLEHAND_ORT_DYLIB to its shared library (such as libonnxruntime.so)"
    )]
    NoLibrary,
    #[error("{0}")]
    Device(String),
    #[error("{0}")]
    Graph(String),
}

/// A loaded ONNX Runtime with the device that its sessions are made for.
#[derive(Clone)]
pub struct Runtime {
    environment: Environment,
    library: Arc<Library>,
    device: Device,
    note: Option<String>,
    cpu: CpuSettings,
    threads: usize,
    /// Where sessions write their profiles, if they do.
    profiles: Option<PathBuf>,
    on_card: CardSettings,
}

impl Runtime {
    /// Loads the library (once a process) and settles on a device.
    pub fn load(choice: DeviceChoice) -> Result<Self, RuntimeError> {
        let loaded = loaded()?;
        let (device, note) = device::settle(choice, &loaded)?;
        if let Some(note) = &note {
            // Every model asks for its device; once is enough to hear it.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| tracing::warn!("{note}"));
        }
        let Loaded { environment, library, .. } = loaded;
        Ok(Self {
            environment,
            library,
            device,
            note,
            cpu: CpuSettings::default(),
            threads: cores::physical_cores(),
            profiles: None,
            on_card: CardSettings::default(),
        })
    }

    /// The ONNX Runtime of this process.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// For sessions of another form than [`Runtime::session`] makes, in measurements.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Why a card that is there is not used, a sentence.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Sessions made from now on use the processor in this way.
    #[must_use]
    pub fn with_cpu(self, cpu: CpuSettings) -> Self {
        Self { cpu, threads: cpu.thread_count(), ..self }
    }

    pub fn cpu(&self) -> CpuSettings {
        self.cpu
    }

    /// Threads that work on one operator.
    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Sessions made from now on write ONNX Runtime's profile into this folder when they are dropped: every node
    /// that ran, on which device, and for how long.
    #[must_use]
    pub fn with_profiles(self, folder: &Path) -> Self {
        Self { profiles: Some(folder.to_owned()), ..self }
    }

    /// Sessions made from now on use a card in this way. For measurements: the loader's own choice is the best known.
    #[must_use]
    pub fn with_card_settings(self, on_card: CardSettings) -> Self {
        Self { on_card, ..self }
    }

    pub fn card_settings(&self) -> CardSettings {
        self.on_card
    }

    /// A session for the graph in `source`.
    pub fn session(&self, source: GraphSource<'_>) -> Result<Session, RuntimeError> {
        self.session_on_card(source, OnCard::default())
    }

    /// The same; `on_card` says what it may do where the device is one.
    pub fn session_on_card(&self, source: GraphSource<'_>, on_card: OnCard) -> Result<Session, RuntimeError> {
        let on_card = OnCard { captures: on_card.captures && !self.on_card.no_captures, ..on_card };
        let build = || -> ort::Result<Session> {
            let mut builder = self.builder(on_card)?;
            match source {
                GraphSource::File(path) => builder.commit_from_file(path),
                GraphSource::Memory(onnx) => builder.commit_from_memory(onnx),
                GraphSource::Weightless { onnx, files } => {
                    for (location, weights) in files {
                        builder = builder
                            .with_external_initializer_file_in_memory(location, Arc::clone(weights))?;
                    }
                    // Read where they are: ONNX Runtime would copy them otherwise.
                    builder = builder
                        .with_config_entry("session.use_external_initializer_file_buffers_directly", "1")?;
                    if self.device.is_cpu() {
                        // Repacked matrices are a second copy, and at these sizes no faster (measured). On CUDA
                        // nothing is copied, and `NhwcConv` learns the layout of its weights while it prepacks.
                        builder = builder
                            .with_config_entry("session.disable_prepacking", "1")?
                            .with_operators(kernels::operators(self.threads)?)?;
                    }
                    builder.commit_from_memory(onnx)
                }
            }
        };
        build().map_err(|error| RuntimeError::Graph(reason(&error)))
    }

    fn builder(&self, on_card: OnCard) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_intra_op_spinning(false)?
            .with_memory_pattern(false)?;
        let builder = match self.device.execution_provider(on_card, self.on_card.fuse_conv_bias) {
            Some(provider) => builder.with_execution_providers([provider])?,
            // Weights of a graph's own, among the results of a run, would keep the memory of that run from being given
            // back.
            None => builder.with_config_entry("session.use_device_allocator_for_initializers", "1")?,
        };
        Ok(match &self.profiles {
            Some(folder) => {
                // ONNX Runtime adds the time, to the second.
                static SESSION: AtomicUsize = AtomicUsize::new(0);
                let session = SESSION.fetch_add(1, Ordering::Relaxed);
                builder.with_profiling(folder.join(format!("session-{session}")))?
            }
            None => builder,
        })
    }
}

/// Where a graph's bytes are.
#[derive(Debug, Clone, Copy)]
pub enum GraphSource<'a> {
    /// By path, so that weights in files beside it are found.
    File(&'a Path),
    /// A graph without weights, in memory.
    Memory(&'a [u8]),
    /// A graph whose weights would be in files beside it, and are in memory: the files' names and bytes. Whoever holds the
    /// session holds them as long.
    Weightless { onnx: &'a [u8], files: &'a [(&'a str, &'a Arc<[u8]>)] },
}

/// Whether the processor's own instructions multiply numbers of eight bits.
pub fn multiplies_int8() -> bool {
    kernels::multiplies_int8()
}

/// The process's one ONNX Runtime.
#[derive(Clone)]
struct Loaded {
    environment: Environment,
    library: Arc<Library>,
    /// Why an installed CUDA runtime, or the lack of one, leaves a card unused.
    unused_card: Option<String>,
}

/// Loads the library at the first call. The environment lives as long as somebody holds it, so it is kept here.
fn loaded() -> Result<Loaded, RuntimeError> {
    static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    telemetry::check_disabled();
    Ok(loaded.insert(load_first()?).clone())
}

/// The library that the user names, else an installed CUDA runtime that can be used, else the embedded one.
fn load_first() -> Result<Loaded, RuntimeError> {
    if let Some(library) = library::named()? {
        return load_library(library, None);
    }
    let unused_card = match library::installed() {
        library::Candidate::No(reason) => reason,
        library::Candidate::Use(library) => match load_library(library, None) {
            Ok(loaded) => return Ok(loaded),
            Err(error) => Some(format!("the installed CUDA runtime does not load: {error}")),
        },
    };
    load_embedded(unused_card)
}

fn load_library(library: Library, unused_card: Option<String>) -> Result<Loaded, RuntimeError> {
    load_from(&library.path.clone(), library, unused_card)
}

/// Loads `library`. `path` is where the loader finds it.
fn load_from(path: &Path, library: Library, unused_card: Option<String>) -> Result<Loaded, RuntimeError> {
    let failed = |message: &str| {
        // The loader's own words name the path that it was given.
        let reason =
            message::plain(&message.replace(&*path.to_string_lossy(), &library.path.to_string_lossy()));
        let path = library.path.clone();
        match library.origin {
            Origin::Embedded => RuntimeError::Unloadable { path, reason },
            Origin::Named | Origin::Installed => RuntimeError::Library { path, reason },
        }
    };
    let builder = ort::init_from(path).map_err(|error| failed(&loader_reason(&error)))?;
    let builder = builder.with_name("stablehand").with_telemetry(false).with_logger(Arc::new(log));
    let environment = builder.build().map_err(|error| failed(&error.to_string()))?;
    if library.origin != Origin::Embedded {
        cuda_libraries::preload(&library.path);
    }
    environment.set_log_level(LogLevel::Error);
    Ok(Loaded { environment, library: Arc::new(library), unused_card })
}

/// Why the system's loader refuses a library, in its own words.
fn loader_reason(error: &ort::LoadDynamicError) -> String {
    let ort::LoadDynamicError::Dlopen { error, .. } = error else { return error.to_string() };
    let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    // What glibc says of a file system that is mounted `noexec`.
    match reason.contains("failed to map segment") {
        true => format!("{reason} (the file system may be mounted noexec)"),
        false => reason,
    }
}

/// What ONNX Runtime logs goes into our log. Its errors also come back from the call that failed, and whoever made
/// that call reports them, so here they are for debugging only.
fn log(level: LogLevel, _category: &str, _id: &str, _location: &str, message: &str) {
    let message = message::plain(message);
    match level {
        LogLevel::Fatal => tracing::error!("ONNX Runtime: {message}"),
        LogLevel::Error => tracing::debug!("ONNX Runtime: {message}"),
        LogLevel::Verbose | LogLevel::Info | LogLevel::Warning => {}
    }
}

/// Unpacks the library inside this binary and loads it.
fn load_embedded(unused_card: Option<String>) -> Result<Loaded, RuntimeError> {
    #[cfg(feature = "embed-onnxruntime")]
    {
        let unpacked = embedded::unpack(&cache_dir())?;
        let library = Library { path: unpacked.path.clone(), origin: Origin::Embedded };
        load_from(&unpacked.loader_path(), library, unused_card)
    }
    #[cfg(not(feature = "embed-onnxruntime"))]
    {
        let _ = unused_card;
        Err(RuntimeError::NoLibrary)
    }
}

/// The embedded library where an earlier start unpacked it, if it may be loaded from there.
pub fn unpacked(cache: &Path) -> Option<PathBuf> {
    #[cfg(feature = "embed-onnxruntime")]
    return embedded::unpacked(cache).map(|unpacked| unpacked.path);
    #[cfg(not(feature = "embed-onnxruntime"))]
    {
        let _ = cache;
        None
    }
}

/// Where unpacked files live: `STABLEHAND_CACHE_DIR`, else the user's cache folder. A user without a home gets a folder
/// among the temporary files.
pub fn cache_dir() -> PathBuf {
    if let Some(path) = env::var_os("STABLEHAND_CACHE_DIR").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    directories::ProjectDirs::from("", "", "stablehand")
        .map_or_else(|| env::temp_dir().join(temporary_name()), |dirs| dirs.cache_dir().to_owned())
}

/// The name of the cache among the temporary files, which all users share.
fn temporary_name() -> String {
    #[cfg(unix)]
    return format!("stablehand-{}", trust::user());
    #[cfg(not(unix))]
    "stablehand".to_owned()
}
