//! LoRAs: small files that change a model's weights by products of two thin matrices.
//!
//! The whole file is checked before anything changes: whether it is a LoRA for this model at all ([`ModelFamily`]), which
//! weights it changes ([`modules`]), and whether its matrices fit them ([`product`]). Merging then reads one module at a
//! time. This module does not know what holds the weights, only that it can add to them ([`AddTo`]).

mod keys;
mod modules;
mod peft_config;
mod product;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::keys::Key;
pub use self::keys::Role;
pub use self::modules::{ModuleNames, Target};
use self::peft_config::PeftConfig;
use self::product::{Fit, Misfit, Shapes};
use super::textual_inversion::short_hash;
use super::{AddTo, TensorFile};
use crate::domain::{ModelFamily, ModelPart};

/// Why a LoRA cannot be used. Names the LoRA and, where one tensor is the reason, that tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the LoRA {name} cannot be used: {reason}")]
pub struct LoraError {
    pub name: String,
    pub reason: String,
}

/// A LoRA that fits a model.
pub struct LoraFile {
    name: String,
    path: PathBuf,
    file: TensorFile,
    peft: PeftConfig,
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
    scale: Option<String>,
    scalar: Option<String>,
}

impl LoraFile {
    /// Opens the file at `path` and checks that it is a LoRA for the model whose modules are `names`. Skips modules that
    /// the model lacks, with a warning, as long as it has at least one.
    pub fn open(name: &str, path: &Path, names: &ModuleNames) -> Result<Self, LoraError> {
        let refuse = |reason: String| LoraError { name: name.to_owned(), reason };
        let file = TensorFile::open(path).map_err(|error| refuse(error.to_string()))?;
        let peft = PeftConfig::read(path, file.note(PeftConfig::metadata_key())).map_err(refuse)?;
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
                (0, few) => format!("it does not contain a LoRA but tensors such as {few}"),
                (count, few) => {
                    format!("this model has none of the {count} modules that it changes, such as {few}")
                }
            }));
        }
        if !unknown.is_empty() {
            tracing::warn!(
                lora = name,
                "this model lacks {} of the modules that the LoRA changes; they are skipped: {}",
                unknown.len(),
                first_few(&unknown)
            );
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned(), file, peft, modules })
    }

    /// Whether it changes any weight of `part`.
    pub fn touches(&self, part: ModelPart) -> bool {
        self.modules.iter().any(|module| module.target.part == part)
    }

    /// The first digits of the file's hash: the hash that its trainer noted (`sshs_model_hash`), else that of everything
    /// after the header, which is what trainers hash.
    pub fn short_hash(&self) -> String {
        let noted = self.file.note("sshs_model_hash");
        let noted =
            noted.filter(|hash| hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        noted.map_or_else(|| short_hash(&self.path, self.file.data_start()), |hash| hash[..12].to_owned())
    }

    /// Adds `scale` times this LoRA to the weights of `part`.
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
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let scaling = if let Some(name) = &tensors.scale {
            self.number(name)?
        } else if let Some(name) = &tensors.alpha {
            self.number(name)? / fit.rank() as f32
        } else {
            let module = target.weight.trim_end_matches(".weight");
            self.peft.scaling(target.part, module, fit.rank())
        };
        let (down, up) = (down.unwrap_or_default(), up.unwrap_or_default());
        let product = fit.product(&down, &up, mid.as_deref());
        let mut product = product.ok_or_else(|| format!("its tensors for {} are cut off", target.weight))?;
        let scalar = tensors.scalar.as_deref().map_or(Ok(1.0), |name| self.number(name))?;
        let scale = scale * scaling * scalar;
        let mut is_finite = true;
        for value in &mut product {
            *value *= scale;
            is_finite &= value.is_finite();
        }
        if !is_finite {
            return Err(format!("the values that it adds to {} are not finite", target.weight));
        }
        Ok(product)
    }

    fn number(&self, tensor: &str) -> Result<f32, String> {
        match self.read(tensor)?[..] {
            [number] => Ok(number),
            _ => Err(format!("its {tensor} is not a single number")),
        }
    }

    fn read(&self, tensor: &str) -> Result<Vec<f32>, String> {
        let values = self.file.values(tensor).map_err(|error| error.to_string())?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(format!("its tensor {tensor} has values that are NaN or infinite"))
    }
}

impl Tensors {
    fn place(&mut self, role: Role) -> &mut Option<String> {
        match role {
            Role::Down => &mut self.down,
            Role::Up => &mut self.up,
            Role::Mid => &mut self.mid,
            Role::Alpha => &mut self.alpha,
            Role::Scale => &mut self.scale,
            Role::Scalar => &mut self.scalar,
        }
    }

    /// Checks that none is missing and that the shapes fit.
    fn fit(&self, module: &str, target: &Target, file: &TensorFile) -> Result<Fit, String> {
        let (down, up) = match (&self.down, &self.up) {
            (Some(down), Some(up)) => (down, up),
            (Some(one), None) => return Err(format!("it has {one} without the matching up matrix")),
            (None, Some(one)) => return Err(format!("it has {one} without the matching down matrix")),
            (None, None) => return Err(format!("it has a factor but no matrices for {module}")),
        };
        let shape = |name: &str| file.shape(name).unwrap_or_default().to_vec();
        let shapes = Shapes { down: shape(down), up: shape(up), mid: self.mid.as_deref().map(shape) };
        Fit::new(&target.shape, &shapes).map_err(|Misfit { role, found, wanted }| {
            let tensor = match role {
                Role::Down => down,
                Role::Up => up,
                Role::Mid | Role::Alpha | Role::Scale | Role::Scalar => self.mid.as_ref().unwrap_or(down),
            };
            format!(
                "its tensor {tensor} has the shape {found:?}; this model's {} needs {wanted:?}",
                target.weight
            )
        })
    }
}

/// The tensors of a file by the modules that they change.
struct Sorted {
    modules: BTreeMap<String, Tensors>,
    unknown: Vec<String>,
}

impl Sorted {
    /// The width of the text embeddings that the LoRA's model reads, if it changes how they are read.
    fn text_width(&self, file: &TensorFile) -> Option<usize> {
        let reads_text =
            |module: &str| module.contains("attn2") && (module.ends_with("to_k") || module.ends_with("to_v"));
        let mut readers = self.modules.iter().filter(|(module, _)| reads_text(module));
        let shape = readers.find_map(|(_, tensors)| file.shape(tensors.down.as_deref()?))?;
        shape.get(1).copied()
    }
}

fn sort(file: &TensorFile) -> Result<Sorted, String> {
    let (mut modules, mut unknown) = (BTreeMap::<String, Tensors>::new(), Vec::new());
    for name in file.tensor_names() {
        if let Some(family) = ModelFamily::from_lora_tensor(&name) {
            return Err(format!(
                "it is for {family}, judging by its tensor {name}; this is a Stable Diffusion v1 model"
            ));
        }
        match Key::read(&name) {
            Key::Foreign(kind) => {
                return Err(format!(
                    "it is {kind}, judging by its tensor {name}; only LoRA and LoCon are supported"
                ));
            }
            Key::Unknown => unknown.push(name),
            Key::Lora { module, role } => {
                let tensors = modules.entry(module).or_default();
                if let Some(other) = tensors.place(role).replace(name.clone()) {
                    return Err(format!("its tensors {other} and {name} are two of the same"));
                }
            }
        }
    }
    Ok(Sorted { modules, unknown })
}

/// Why a LoRA that reads text embeddings of this width is not for the model. None where the widths are equal.
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
