//! The operator's upscaler models as a pipeline uses them: loaded while a job needs them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::DiffusionError;
use crate::diffusion::files::{AddOnFile, UpscalerFile, UpscalerFolder};
use crate::diffusion::nets::{ModelError, UpscalerNet, upscaler_memory};
use crate::domain::{Upscaler, UpscalerShelf};
use crate::runtime::Runtime;

/// A loaded upscaler, which several jobs may use in turn.
pub(super) type SharedUpscaler = Rc<RefCell<UpscalerNet>>;

pub struct Upscalers {
    /// None if there is no folder for them.
    folder: Option<Arc<UpscalerFolder>>,
    runtime: Runtime,
    /// Those that a job holds.
    loaded: BTreeMap<String, Weak<RefCell<UpscalerNet>>>,
    /// What was read of their headers, as long as the files are the same.
    known: RefCell<BTreeMap<String, (AddOnFile, Known)>>,
}

/// What a header says.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub scale: usize,
    /// Bytes that it holds, with those of a run.
    pub memory: u64,
}

impl Upscalers {
    /// Those in the folder at `path`, or the one file there.
    pub fn open(path: PathBuf, runtime: &Runtime) -> Self {
        Self::new(Some(Arc::new(UpscalerFolder::new(path, Duration::from_secs(1)))), runtime)
    }

    /// The names that requests may use.
    pub fn shelf(&self) -> Option<Arc<dyn UpscalerShelf>> {
        self.folder.as_ref().map(|folder| Arc::clone(folder) as _)
    }

    pub(super) fn new(folder: Option<Arc<UpscalerFolder>>, runtime: &Runtime) -> Self {
        Self { folder, runtime: runtime.clone(), loaded: BTreeMap::new(), known: RefCell::default() }
    }

    /// Reads the header of the file that `name` means, once.
    pub(super) fn look_at(&self, name: &str) -> Result<Known, DiffusionError> {
        let place = self.file(name)?;
        if let Some((_, known)) = self.known.borrow().get(name).filter(|(read, _)| *read == place) {
            return Ok(*known);
        }
        let file = UpscalerFile::open(&place.path).map_err(ModelError::from)?;
        let (held, run) = upscaler_memory(&file, !self.runtime.device().is_cpu());
        let known = Known { scale: file.shape().scale, memory: held + run };
        self.known.borrow_mut().insert(name.to_owned(), (place, known));
        Ok(known)
    }

    /// Which file an upscaler model is. A file that is changed has another one. None if there is none, or no model is needed.
    pub(super) fn stamp(&self, upscaler: &Upscaler) -> Option<(u64, Option<SystemTime>)> {
        let Upscaler::Model(name) = upscaler else { return None };
        self.file(name).ok().map(|file| (file.bytes, file.modified))
    }

    /// The upscaler, loaded. It stays so as long as somebody holds it.
    pub(super) fn get(&mut self, name: &str) -> Result<SharedUpscaler, DiffusionError> {
        self.loaded.retain(|_, net| net.strong_count() > 0);
        if let Some(net) = self.loaded.get(name).and_then(Weak::upgrade) {
            return Ok(net);
        }
        let net = UpscalerNet::load(name, &self.file(name)?.path, &self.runtime)?;
        let net = Rc::new(RefCell::new(net));
        self.loaded.insert(name.to_owned(), Rc::downgrade(&net));
        Ok(net)
    }

    fn file(&self, name: &str) -> Result<AddOnFile, DiffusionError> {
        let none = || Err(format!("There is no upscaler {name}."));
        self.folder.as_ref().map_or_else(none, |folder| folder.file(name)).map_err(DiffusionError::Upscaling)
    }
}
