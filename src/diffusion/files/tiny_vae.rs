//! The tiny VAE of a model: its own, or one from the operator's folder, for models with Stable Diffusion v1's latents.
//!
//! Its weights have TAESD's architecture, under the names of diffusers or of the original. They are checked before a request
//! is taken; the folder is looked at on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::add_on_folder::{AddOnFolder, Listing};
use super::refreshed::Refreshed;
use super::{AddOnFile, FileError, ModelFiles, ModelPlace, PartFiles, TensorFile, VaeConfig};
use crate::domain::{ModelPart, TinyVaeShelf};

/// Pixels along a side of a latent: three doublings.
const SCALE: u32 = 8;
/// A weight that every tiny decoder has. It reads the latents.
const FIRST: &str = "decoder.layers.0.weight";

/// Where a model's tiny VAE is looked for.
pub struct TinyVae(Source);

enum Source {
    Own(TinyVaeFile),
    /// For all models of Stable Diffusion v1.
    Folder(Refreshed<Found>),
    /// The end of a sentence that says why it has none.
    None(String),
}

/// A tiny VAE that can be used.
#[derive(Clone)]
pub struct TinyVaeFile {
    pub files: PartFiles,
    /// What tells it from another one; none for a model's own.
    pub file: Option<AddOnFile>,
}

/// What a tiny VAE must fit.
#[derive(Clone, Copy)]
struct Latents {
    channels: usize,
    /// Pixels along a side of one.
    scale: u32,
}

impl Latents {
    fn of(vae: &VaeConfig) -> Self {
        Self { channels: vae.latent_channels() as usize, scale: vae.scale_factor() }
    }
}

/// What the folder holds.
#[derive(Default)]
struct Found {
    listing: Listing,
    usable: Option<TinyVaeFile>,
    /// Why the first file cannot be used.
    fault: Option<String>,
}

impl TinyVae {
    /// That of the model with these files. `folder` holds those for all models, and how old the knowledge of it may be.
    pub fn find(model: &ModelFiles, folder: Option<(PathBuf, Duration)>) -> Self {
        let vae = &model.configs.vae;
        if let Some(files) = model.part(ModelPart::TinyVae) {
            return Self(Source::Own(TinyVaeFile { files: files.clone(), file: None }));
        }
        if let Some(fault) = &model.tiny_vae_fault {
            return Self(Source::None(format!("this model's tiny VAE cannot be used: {fault}")));
        }
        // The very number that files of Stable Diffusion v1 hold, and those of other models do not.
        let has_usual_latents = vae.latent_channels() == 4
            && vae.scale_factor() == SCALE
            && vae.scaling_factor() == VaeConfig::SD_V1_SCALING_FACTOR;
        if !has_usual_latents {
            let reason = "this model has none, and its latents are not Stable Diffusion v1's";
            return Self(Source::None(reason.to_owned()));
        }
        let Some((path, look_every)) = folder else {
            return Self(Source::None("this model has none".to_owned()));
        };
        let (place, latents) = (model.place.clone(), Latents::of(vae));
        let folder = AddOnFolder::new(path, Duration::ZERO);
        Self(Source::Folder(Refreshed::new(look_every, move |before: &Found| {
            look(&folder.list(), before, &place, latents)
        })))
    }

    /// The tiny VAE, or the end of a sentence that says why there is none.
    pub fn file(&self) -> Result<TinyVaeFile, String> {
        match &self.0 {
            Source::Own(own) => Ok(own.clone()),
            Source::None(reason) => Err(reason.clone()),
            Source::Folder(folder) => {
                let found = folder.get();
                found.usable.clone().ok_or_else(|| match &found.fault {
                    Some(fault) => {
                        format!("the tiny VAE in the folder (--tiny-vae-dir) cannot be used: {fault}")
                    }
                    None => "there is no tiny VAE for this model: \
                             `stablehand models pull --tiny-vae madebyollin/taesd` fetches one"
                        .to_owned(),
                })
            }
        }
    }
}

impl TinyVaeShelf for TinyVae {
    fn check(&self) -> Result<(), String> {
        self.file().map(drop)
    }
}

impl std::fmt::Debug for TinyVae {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TinyVae").field(&self.file().map(|found| found.file)).finish()
    }
}

/// The first file in the folder, by name, that is a tiny VAE.
fn look(listing: &Listing, before: &Found, place: &ModelPlace, latents: Latents) -> Found {
    if *listing == before.listing {
        let (usable, fault) = (before.usable.clone(), before.fault.clone());
        return Found { listing: Arc::clone(listing), usable, fault };
    }
    let mut fault = None;
    for file in listing.values() {
        match open(file, place, latents) {
            Ok(files) => {
                let usable = Some(TinyVaeFile { files, file: Some(file.clone()) });
                return Found { listing: Arc::clone(listing), usable, fault: None };
            }
            Err(reason) => fault = fault.or(Some(reason)),
        }
    }
    Found { listing: Arc::clone(listing), usable: None, fault }
}

fn open(file: &AddOnFile, place: &ModelPlace, latents: Latents) -> Result<PartFiles, String> {
    let files = TensorFile::open(&file.path)
        .map(|opened| PartFiles::tiny_vae(Arc::new(opened), place))
        .map_err(|error| flat(&error))?;
    check(&files, latents).map(|()| files)
}

/// Why the tiny VAE with these files cannot be used in a model with this VAE. None if it can.
pub(super) fn tiny_vae_fault(files: &PartFiles, vae: &VaeConfig) -> Option<String> {
    check(files, Latents::of(vae)).err()
}

/// Reads names and shapes, and no weights.
fn check(files: &PartFiles, latents: Latents) -> Result<(), String> {
    files.check_weights().map_err(|error| flat(&error))?;
    let channels = files.shape(FIRST).and_then(|shape| shape.get(1).copied()).unwrap_or(0);
    if channels == latents.channels && latents.scale == SCALE {
        return Ok(());
    }
    Err(format!(
        "it decodes {channels} channels of latents to {SCALE} pixels a side, and this model has {} and {}",
        latents.channels, latents.scale
    ))
}

/// An error as the end of a sentence.
fn flat(error: &FileError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}
