//! What is here: models, whoever brought them, and what was pulled to be used with them.

use std::path::Path;

use serde::Serialize;

use super::{BUILT_IN, Kind, Library, LibraryError, Served, refused, users};
use crate::hub::{HubCache, ModelsDir, PulledModel, Unfinished};

/// All that is here.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The models, then what was pulled to be used with them.
    pub items: Vec<Item>,
    pub unfinished: Vec<Part>,
}

/// One model, ControlNet, LoRA or upscaler.
#[derive(Debug, Serialize)]
pub struct Item {
    pub kind: Kind,
    /// For a model, the name for `--model`.
    pub name: String,
    /// Such as `safetensors file`.
    pub form: String,
    pub bytes: u64,
    pub place: Place,
    /// In milliseconds since 1970.
    pub pulled_at: Option<i64>,
    /// The endpoints that serve it.
    pub endpoints: Vec<String>,
}

/// Where it lies, which says who may remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Inside the binary.
    Binary,
    /// Pulled into the folder.
    Pulled,
    /// Copied into the folder by somebody.
    Copied,
    /// In the cache of the hub's own programs.
    Cache,
}

/// An unfinished pull.
#[derive(Debug, Serialize)]
pub struct Part {
    pub kind: Kind,
    pub name: String,
    pub bytes: u64,
}

impl Place {
    pub const ALL: [Self; 4] = [Self::Binary, Self::Pulled, Self::Copied, Self::Cache];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Pulled => "pulled",
            Self::Copied => "copied",
            Self::Cache => "cache",
        }
    }
}

impl Library {
    /// Looks at the disk. What other programs keep for this user is shown only to those who may use it here.
    pub fn list(&self) -> Result<Listing, LibraryError> {
        let served = &self.0.served;
        let (mut items, mut unfinished) = (vec![built_in(served)], Vec::new());
        for kind in Kind::ALL {
            let folder = self.0.settings.folder(kind);
            items.extend(folder.list().map_err(refused)?.iter().map(|model| pulled(kind, model, served)));
            if kind == Kind::Model {
                items.extend(copied(&folder, served));
                if self.may_change() {
                    items.extend(cached(served));
                }
            }
            let parts = folder.unfinished().map_err(refused)?;
            unfinished.extend(parts.into_iter().map(|Unfinished { name, bytes, .. }| Part {
                kind,
                name,
                bytes,
            }));
        }
        Ok(Listing { items, unfinished })
    }
}

fn pulled(kind: Kind, model: &PulledModel, served: &[Served]) -> Item {
    let manifest = &model.manifest;
    Item {
        kind,
        name: manifest.name.clone(),
        form: manifest.form(),
        bytes: manifest.bytes(),
        place: Place::Pulled,
        pulled_at: Some(manifest.pulled_at_ms),
        endpoints: users(served, &model.path()),
    }
}

fn copied(folder: &ModelsDir, served: &[Served]) -> impl Iterator<Item = Item> {
    folder.copied().into_iter().map(|model| {
        let form = if model.path.is_dir() { "folder" } else { "file" }.to_owned();
        brought(model.name, form, model.bytes, Place::Copied, &model.path, served)
    })
}

fn cached(served: &[Served]) -> impl Iterator<Item = Item> {
    let models = HubCache::of_this_user().map(|cache| cache.list()).unwrap_or_default();
    models.into_iter().filter(|model| model.problem.is_none()).map(|model| {
        let form = model.form();
        brought(model.name, form, model.bytes, Place::Cache, &model.path, served)
    })
}

/// A model that others brought.
fn brought(name: String, form: String, bytes: u64, place: Place, path: &Path, served: &[Served]) -> Item {
    Item { kind: Kind::Model, name, form, bytes, place, pulled_at: None, endpoints: users(served, path) }
}

fn built_in(served: &[Served]) -> Item {
    let endpoints = served.iter().filter(|own| own.path.is_none()).map(|own| own.endpoint.to_string());
    Item {
        kind: Kind::Model,
        name: BUILT_IN.to_owned(),
        form: "inside the binary".to_owned(),
        bytes: 0,
        place: Place::Binary,
        pulled_at: None,
        endpoints: endpoints.collect(),
    }
}
