//! A pull from beginning to end: it keeps the files that are there already and downloads the others.

use std::fs;
use std::path::Path;

use super::client::{Access, Answer};
use super::download::{Download, DownloadProgress, Source, is_whole};
use super::manifest::{Manifest, PulledFile};
use super::models_dir::{ModelsDir, PulledModel};
use super::partial_file::sha256_of;
use super::plan::{Plan, PlannedFile};
use super::staging::Staging;
use super::{Checksum, Hub, HubError, ModelRef};
use crate::size_text::size_text;

/// Is told how a pull goes.
pub trait PullProgress {
    /// What will be pulled, and the total size if it is known.
    fn begin(&self, name: &str, files: usize, bytes: Option<u64>);
    /// The bytes so far. The number can go back.
    fn position(&self, bytes: u64);
    /// A file is complete.
    fn file(&self, path: &str, bytes: u64);
    /// Something went wrong, but the pull continues.
    fn note(&self, sentence: &str);
    /// Whether the pull should end here, and why. It is asked often.
    fn stop(&self) -> Option<HubError> {
        None
    }
}

/// The outcome of a pull.
#[derive(Debug)]
pub enum Pulled {
    /// The model is new or has been updated.
    New(PulledModel),
    /// The model was there and up to date already.
    Current(PulledModel),
}

/// Bytes that a pull leaves free on the disk.
const RESERVE: u64 = 64 << 20;

impl Hub {
    /// Pulls a model into the models folder. `sha256` is the checksum that its only file must have.
    pub fn pull(
        &self,
        reference: &ModelRef,
        sha256: Option<&str>,
        models: &ModelsDir,
        now_ms: i64,
        progress: &dyn PullProgress,
    ) -> Result<Pulled, HubError> {
        let plan = self.plan(reference, sha256)?;
        let before = models.at(&plan.place);
        if let Some(before) = &before {
            plan.check_same_source(before)?;
            if plan.is_current(before) {
                return Ok(Pulled::Current(before.clone()));
            }
        }
        progress.begin(&plan.name, plan.files.len(), plan.bytes());
        plan.notes.iter().for_each(|note| progress.note(note));
        go_on(progress)?;
        let staging = models.stage(plan.place.clone(), &plan.name)?;
        let files = match self.gather(&plan, before.as_ref(), models, &staging, progress) {
            Ok(files) => files,
            Err(error) => {
                staging.abandon();
                return Err(error);
            }
        };
        let manifest = Manifest {
            name: plan.name,
            source: plan.source,
            commit: plan.commit,
            kind: plan.kind,
            pulled_at_ms: now_ms,
            files,
        };
        staging.finish(manifest).map(Pulled::New)
    }

    fn gather(
        &self,
        plan: &Plan,
        before: Option<&PulledModel>,
        models: &ModelsDir,
        staging: &Staging,
        progress: &dyn PullProgress,
    ) -> Result<Vec<PulledFile>, HubError> {
        plan.keep_from(before, staging)?;
        plan.check_space(models, staging)?;
        let mut done = 0;
        let mut files = Vec::with_capacity(plan.files.len());
        for file in &plan.files {
            go_on(progress)?;
            let pulled =
                self.fetch(plan, file, &file.path.under(&staging.folder), &Offset { progress, done })?;
            done += pulled.size;
            progress.position(done);
            progress.file(&pulled.path, pulled.size);
            files.push(pulled);
        }
        go_on(progress)?;
        Ok(files)
    }

    fn fetch(
        &self,
        plan: &Plan,
        file: &PlannedFile,
        target: &Path,
        progress: &dyn DownloadProgress,
    ) -> Result<PulledFile, HubError> {
        let pulled = |size, sha256| PulledFile {
            path: file.path.to_string(),
            size,
            sha256,
            version: file.version().map(str::to_owned),
        };
        if let Some(size) = file.size.filter(|size| is_whole(target, *size, file.checksum.as_ref())) {
            let sha256 = match &file.checksum {
                Some(Checksum::Sha256(sha256)) => sha256.clone(),
                _ => sha256_of(target).map_err(|error| HubError::disk(target, error))?,
            };
            return Ok(pulled(size, sha256));
        }
        let refusal = |answer: &Answer| match &plan.repository {
            Some(repository) => self.refusal(answer, repository, Some(&file.origin)),
            None => self.url_refusal(answer, &file.url),
        };
        let source = Source {
            url: file.url.clone(),
            access: if plan.repository.is_some() { Access::Hub } else { Access::Given },
            name: file.origin.to_string(),
            size: file.size,
            checksum: file.checksum.clone(),
            validator: file.validator.clone(),
        };
        let download = Download { source, target, client: &self.client, refusal: &refusal, progress };
        let fetched = download.run()?;
        Ok(pulled(fetched.size, fetched.sha256))
    }
}

/// Fails if the pull should end here.
fn go_on(progress: &dyn PullProgress) -> Result<(), HubError> {
    progress.stop().map_or(Ok(()), Err)
}

impl Plan {
    /// Refuses to overwrite a model from another source.
    fn check_same_source(&self, before: &PulledModel) -> Result<(), HubError> {
        let Manifest { name, source, .. } = &before.manifest;
        // A repository may come from one mirror today and another tomorrow.
        if *name == self.name && (self.repository.is_some() || *source == self.source) {
            return Ok(());
        }
        Err(HubError::Refused(format!(
            "{name} from {source} is already in the folder of this model: remove it first with `stablehand models rm {name}`"
        )))
    }

    /// Whether `before` has exactly these versions of all files.
    fn is_current(&self, before: &PulledModel) -> bool {
        let count = before.manifest.files.len();
        count == self.files.len() && self.files.iter().all(|file| file.is_in(before))
    }

    /// Takes over the files that have not changed since the last pull.
    fn keep_from(&self, before: Option<&PulledModel>, staging: &Staging) -> Result<(), HubError> {
        let Some(before) = before else { return Ok(()) };
        for file in self.files.iter().filter(|file| file.is_in(before)) {
            let (from, to) = (before.file(file.path.as_str()), file.path.under(&staging.folder));
            let keep = || {
                fs::create_dir_all(to.parent().unwrap_or(&to))?;
                match fs::hard_link(&from, &to) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                    // Not every file system supports hard links.
                    Err(_) => fs::copy(&from, &to).map(drop),
                    Ok(()) => Ok(()),
                }
            };
            keep().map_err(|error| HubError::disk(&to, error))?;
        }
        Ok(())
    }

    fn check_space(&self, models: &ModelsDir, staging: &Staging) -> Result<(), HubError> {
        let needed = self.bytes().unwrap_or(0).saturating_sub(staging.bytes());
        match fs4::available_space(models.path()) {
            Ok(free) if needed > 0 && free < needed.saturating_add(RESERVE) => Err(HubError::NoSpace {
                name: self.name.clone(),
                dir: models.path().to_owned(),
                needed: size_text(needed),
                free: size_text(free),
            }),
            // If the system does not tell the free space, a full disk will fail the download.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

impl PlannedFile {
    /// Whether `model` has this version of the file, with the right size.
    fn is_in(&self, model: &PulledModel) -> bool {
        let path = self.path.as_str();
        let known = model.manifest.files.iter().find(|file| file.path == path);
        known.is_some_and(|known| {
            let is_same = match &self.checksum {
                Some(Checksum::Sha256(sha256)) => known.sha256 == *sha256,
                _ => self.version().is_some() && known.version.as_deref() == self.version(),
            };
            let on_disk = fs::symlink_metadata(model.file(path));
            is_same && on_disk.is_ok_and(|metadata| metadata.is_file() && metadata.len() == known.size)
        })
    }
}

/// Reports the progress of one file as progress of the whole pull.
struct Offset<'a> {
    progress: &'a dyn PullProgress,
    done: u64,
}

impl DownloadProgress for Offset<'_> {
    fn position(&self, bytes: u64) {
        self.progress.position(self.done + bytes);
    }

    fn note(&self, sentence: &str) {
        self.progress.note(sentence);
    }

    fn stop(&self) -> Option<HubError> {
        self.progress.stop()
    }
}
