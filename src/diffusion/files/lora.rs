//! LoRAs: small files that change a model's weights by products of two thin matrices.
//!
//! A file is looked through as a whole before anything is changed: which weights it means ([`modules`]), whether its
//! matrices fit them ([`product`]), whether it is a LoRA for this model at all ([`ModelFamily`]). Merging then reads a module at a
//! time. What holds the weights is not known here, only that it can be added to.

mod keys;
mod modules;
mod peft_config;
mod product;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::keys::Key;
pub use self::keys::Role;
pub use self::modules::{ModuleNames, Target};
use self::peft_config::Adapter;
use self::product::{Fit, Misfit, Shapes};
use super::SafetensorsFile;
use super::textual_inversion::short_hash;
use crate::domain::{ModelFamily, ModelPart};

/// Why a LoRA cannot be used: it names the LoRA and, where it is one, the tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the LoRA {name} cannot be used: {reason}")]
pub struct LoraError {
    pub name: String,
    pub reason: String,
}

/// What weights can be added to.
pub trait AddTo {
    /// Adds `delta`, in the order of the checkpoint's own shape, to the parameter of this name.
    fn add(&mut self, parameter: &str, delta: &[f32]) -> Result<(), String>;
}

/// A LoRA that fits a model.
pub struct LoraFile {
    name: String,
    path: PathBuf,
    file: SafetensorsFile,
    adapter: Adapter,
    modules: Vec<Module>,
}

struct Module {
    target: Target,
    fit: Fit,
    tensors: Tensors,
}

/// The names of a module's tensors.
#[derive(Debug, Default)]
struct Tensors {
    down: Option<String>,
    up: Option<String>,
    mid: Option<String>,
    alpha: Option<String>,
}

impl LoraFile {
    /// Opens the file at `path` and sees that it is a LoRA for the model whose modules are `names`. Modules that the model
    /// lacks are left out with a warning, as long as it has any.
    pub fn open(name: &str, path: &Path, names: &ModuleNames) -> Result<Self, LoraError> {
        let refuse = |reason: String| LoraError { name: name.to_owned(), reason };
        let file = SafetensorsFile::open(path).map_err(|error| refuse(error.to_string()))?;
        let adapter = Adapter::read(path, file.note(Adapter::metadata_key())).map_err(refuse)?;
        let found = sort(&file).map_err(refuse)?;
        if let Some(reason) = found.text_width(&file).and_then(|width| other_width(width, names)) {
            return Err(refuse(reason));
        }
        let (mut modules, mut unknown) = (Vec::new(), found.unknown);
        let count = found.modules.len();
        for (module, tensors) in found.modules {
            match names.find(&module) {
                Some(target) => {
                    let fit = tensors.fit(&module, target, &file).map_err(refuse)?;
                    modules.push(Module { target: target.clone(), fit, tensors });
                }
                None => unknown.push(module),
            }
        }
        if modules.is_empty() {
            return Err(refuse(match (count, first_few(&unknown)) {
                (0, few) if few.is_empty() => "it is empty".to_owned(),
                (0, few) => format!("it holds no LoRA, but tensors such as {few}"),
                (count, few) => {
                    format!("this model has none of the {count} modules that it is for, such as {few}")
                }
            }));
        }
        if !unknown.is_empty() {
            tracing::warn!(
                lora = name,
                "this model lacks {} of what the LoRA is for, which is left out: {}",
                unknown.len(),
                first_few(&unknown)
            );
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned(), file, adapter, modules })
    }

    /// Whether it changes anything in a part of the model.
    pub fn touches(&self, part: ModelPart) -> bool {
        self.modules.iter().any(|module| module.target.part == part)
    }

    /// The first digits of the file's hash: as its trainer noted it, or of all that follows the header, which is what
    /// trainers hash (`sshs_model_hash`).
    pub fn short_hash(&self) -> String {
        let noted = self.file.note("sshs_model_hash");
        let noted =
            noted.filter(|hash| hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        noted.map_or_else(|| short_hash(&self.path, self.file.data_start()), |hash| hash[..12].to_owned())
    }

    /// Adds `scale` times itself to the weights of a part.
    pub fn merge(&self, part: ModelPart, scale: f32, weights: &mut dyn AddTo) -> Result<(), LoraError> {
        let modules = self.modules.iter().filter(|module| module.target.part == part);
        for Module { target, fit, tensors } in modules {
            self.product(target, *fit, tensors, scale)
                .and_then(|delta| weights.add(&target.weight, &delta))
                .map_err(|reason| self.refuse(reason))?;
        }
        self.file.check_unchanged().map_err(|error| self.refuse(error.to_string()))
    }

    fn refuse(&self, reason: String) -> LoraError {
        LoraError { name: self.name.clone(), reason }
    }

    fn product(&self, target: &Target, fit: Fit, tensors: &Tensors, scale: f32) -> Result<Vec<f32>, String> {
        let read = |name: &Option<String>| name.as_deref().map(|name| self.read(name)).transpose();
        let (down, up, mid) = (read(&tensors.down)?, read(&tensors.up)?, read(&tensors.mid)?);
        #[allow(clippy::cast_precision_loss)] // ranks are small
        let scaling = if let Some(name) = &tensors.alpha {
            let alpha = self.read(name)?;
            let [alpha] = alpha[..] else { return Err(format!("its {name} is no single number")) };
            alpha / fit.rank() as f32
        } else {
            let module = target.weight.trim_end_matches(".weight");
            self.adapter.scaling(target.part, module, fit.rank())
        };
        let (down, up) = (down.unwrap_or_default(), up.unwrap_or_default());
        let product = fit.product(&down, &up, mid.as_deref());
        let mut product = product.ok_or_else(|| format!("its tensors for {} are cut off", target.weight))?;
        let scale = scale * scaling;
        let mut is_finite = true;
        for value in &mut product {
            *value *= scale;
            is_finite &= value.is_finite();
        }
        if !is_finite {
            return Err(format!("what it adds to {} is not finite", target.weight));
        }
        Ok(product)
    }

    fn read(&self, tensor: &str) -> Result<Vec<f32>, String> {
        let values = self.file.values(tensor).map_err(|error| error.to_string())?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(format!("its tensor {tensor} has values that are no numbers (NaN or infinite)"))
    }
}

impl Tensors {
    fn place(&mut self, role: Role) -> &mut Option<String> {
        match role {
            Role::Down => &mut self.down,
            Role::Up => &mut self.up,
            Role::Mid => &mut self.mid,
            Role::Alpha => &mut self.alpha,
        }
    }

    /// Whether there is all of them, and of the right shapes.
    fn fit(&self, module: &str, target: &Target, file: &SafetensorsFile) -> Result<Fit, String> {
        let (down, up) = match (&self.down, &self.up) {
            (Some(down), Some(up)) => (down, up),
            (Some(one), None) => return Err(format!("it has {one}, and no matrix up to go with it")),
            (None, Some(one)) => return Err(format!("it has {one}, and no matrix down to go with it")),
            (None, None) => return Err(format!("it has an alpha for {module}, and no matrices")),
        };
        let shape = |name: &str| file.shape(name).unwrap_or_default().to_vec();
        let shapes = Shapes { down: shape(down), up: shape(up), mid: self.mid.as_deref().map(shape) };
        Fit::new(&target.shape, &shapes).map_err(|Misfit { role, found, wanted }| {
            let tensor = match role {
                Role::Down => down,
                Role::Up => up,
                Role::Mid | Role::Alpha => self.mid.as_ref().unwrap_or(down),
            };
            format!(
                "its tensor {tensor} has the shape {found:?}, and {wanted:?} would fit this model's {}",
                target.weight
            )
        })
    }
}

/// The tensors of a file by the modules that they are for.
struct Sorted {
    modules: BTreeMap<String, Tensors>,
    unknown: Vec<String>,
}

impl Sorted {
    /// The width of the text embeddings that the LoRA's model reads, if it changes how they are read.
    fn text_width(&self, file: &SafetensorsFile) -> Option<usize> {
        let reads_text =
            |module: &str| module.contains("attn2") && (module.ends_with("to_k") || module.ends_with("to_v"));
        let mut readers = self.modules.iter().filter(|(module, _)| reads_text(module));
        let shape = readers.find_map(|(_, tensors)| file.shape(tensors.down.as_deref()?))?;
        shape.get(1).copied()
    }
}

fn sort(file: &SafetensorsFile) -> Result<Sorted, String> {
    let (mut modules, mut unknown) = (BTreeMap::<String, Tensors>::new(), Vec::new());
    for name in file.tensor_names() {
        if let Some(family) = ModelFamily::from_lora_tensor(&name) {
            return Err(format!(
                "it is for {family}, by its tensor {name}; this is a Stable Diffusion v1 model"
            ));
        }
        if name.starts_with(COMFY_UI) {
            return Err(format!("it has ComfyUI's names, such as {name}, which are not supported"));
        }
        match Key::read(&name) {
            Key::Foreign(kind) => {
                return Err(format!("it is {kind}, by its tensor {name}; LoRA and LoCon are what is read"));
            }
            Key::Unknown => unknown.push(name),
            Key::Lora { module, role } => {
                let tensors = modules.entry(module).or_default();
                if let Some(other) = tensors.place(role).replace(name.clone()) {
                    return Err(format!("its tensors {other} and {name} are for the same"));
                }
            }
        }
    }
    Ok(Sorted { modules, unknown })
}

/// How ComfyUI's own names begin.
const COMFY_UI: &str = "diffusion_model.";

/// Why a LoRA that reads text embeddings of this width is not for the model; none where the model's are as wide.
fn other_width(width: usize, names: &ModuleNames) -> Option<String> {
    let own = names.embedding_width().filter(|own| *own != width)?;
    let family = ModelFamily::from_embedding_width(width).map_or("another model", ModelFamily::name);
    Some(format!("it is for {family}, whose text embeddings are {width} wide; this model's are {own}"))
}

/// A few of many names, shortened, for a sentence.
fn first_few(names: &[String]) -> String {
    let few: Vec<String> = names.iter().take(3).map(|name| name.chars().take(100).collect()).collect();
    let more = if names.len() > few.len() { ", …" } else { "" };
    format!("{}{more}", few.join(", "))
}

#[cfg(test)]
mod tests;
