//! One module of a LoRA: what its tensors make of the model's weight and bias.

use super::super::{TensorFile, quoted_name};
use super::channels::Channels;
use super::dora::Dora;
use super::glora::Glora;
use super::hadamard::Hadamard;
use super::kronecker::Kronecker;
use super::low_rank::{Embedding, LORA, LowRank};
use super::modules::ModelModule;
use super::oft::Oft;
use super::peft_config::PeftConfig;
use super::peft_oft::{PeftBoft, PeftOft};
use super::role::{Kind, Role, Tensors};
use super::source::{Size, Source};

/// A module that fits the model.
pub struct Module {
    pub place: ModelModule,
    tensors: Tensors,
    weight: Option<Change>,
    /// What the change is multiplied by, where that is in the tensors' shapes or the configuration.
    factor: Factor,
    dora: Option<Dora>,
    /// Whether the bias gets a change of its own.
    has_bias_change: bool,
    /// A tensor for a bias that the model lacks.
    skipped: Option<String>,
    /// Where the model's first convolution has more inputs than the LoRA's (masks and pictures of inpainting): the LoRA's.
    latents_only: Option<usize>,
}

/// The path of the first convolution, and the channels of latents, which come first in its input.
const FIRST: &str = "conv_in";
const LATENTS: usize = 4;

/// A change of a weight whose sizes were checked.
enum Change {
    LowRank(LowRank),
    Embedding(Embedding),
    Hadamard(Hadamard),
    Kronecker(Kronecker),
    Glora(Glora),
    Channels(Channels),
    Difference,
    Oft(Oft),
    PeftOft(PeftOft),
    PeftBoft(PeftBoft),
}

/// How alpha counts.
enum Factor {
    /// Divided by the rank.
    ByRank(usize),
    /// Not at all: there is no rank.
    One,
    /// There is none in the file. That of the configuration.
    Given(f32),
}

impl Module {
    /// Checks that no tensor is missing and that the shapes fit.
    pub fn fit(
        name: &str,
        tensors: Tensors,
        place: &ModelModule,
        file: &TensorFile,
        peft: &PeftConfig,
    ) -> Result<Self, String> {
        let source = Source { file, tensors: &tensors };
        let kind = Kind::of(name, &tensors)?;
        let target = place.weight_name();
        let mut latents_only = None;
        let change = match (kind, &place.weight) {
            (None, _) => None,
            (Some(_), None) => return Err(format!("its {} has no weight in this model", quoted_name(name))),
            (Some(kind), Some(shape)) => match Change::fit(kind, source, shape, place, peft) {
                Err(reason) => {
                    let fitted = latents_shape(place)
                        .and_then(|latents| Change::fit(kind, source, &latents, place, peft).ok());
                    latents_only = Some(LATENTS);
                    Some(fitted.ok_or(reason)?)
                }
                fitted => Some(fitted?),
            },
        };
        let rank = change.as_ref().and_then(Change::rank);
        let has_alpha = kind.is_some_and(Kind::has_alpha);
        let factor = match (has_alpha && source.has(Role::Alpha), rank) {
            (true, Some(rank)) => Factor::ByRank(rank),
            (false, _) if has_alpha => Factor::Given(peft.scaling(place.part, &place.path, rank)),
            _ => Factor::One,
        };
        let shape = if latents_only.is_some() { latents_shape(place) } else { place.weight.clone() };
        let size = shape.as_deref().and_then(Size::of);
        let dora = match size {
            Some(size) => Dora::fit(source, size, &target)?,
            None => None,
        };
        if dora.is_some() && !kind.is_some_and(Kind::takes_dora) {
            return Err(format!(
                "its {} has DoRA's lengths on a change that has none in any trainer",
                quoted_name(name)
            ));
        }
        let (mut has_bias_change, mut skipped) = (false, None);
        for role in [Role::UpBias, Role::DiffBias] {
            let Some(tensor) = source.name(role) else { continue };
            match &place.bias {
                Some(shape) => {
                    source.expect_count(role, shape.iter().product(), &place.bias_name())?;
                    has_bias_change = true;
                }
                // PEFT refuses to merge what was trained with such a bias; LyCORIS drops the difference.
                None if role == Role::UpBias => {
                    return Err(format!(
                        "its tensor {} is for a bias that this model's {} lacks",
                        quoted_name(tensor),
                        place.path
                    ));
                }
                None => skipped = Some(tensor.to_owned()),
            }
        }
        let scales_bias = matches!(&change, Some(Change::Channels(channels)) if channels.changes_bias());
        has_bias_change |= scales_bias && place.bias.is_some();
        Ok(Self {
            place: place.clone(),
            weight: change,
            factor,
            dora,
            has_bias_change,
            skipped,
            latents_only,
            tensors,
        })
    }

    pub fn changes_weight(&self) -> bool {
        self.weight.is_some()
    }

    pub fn changes_bias(&self) -> bool {
        self.has_bias_change
    }

    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// What the module adds to the weight, whose own values are `original`, at this scale.
    pub fn delta(&self, file: &TensorFile, original: &[f32], scale: f32) -> Result<Vec<f32>, String> {
        let size = self.place.weight.as_deref().and_then(Size::of);
        let (Some(latents), Some(size)) = (self.latents_only, size) else {
            return self.delta_of_all(file, original, scale);
        };
        // As in A1111: the other inputs stay as they are.
        let (row, kept) = (size.row().max(1), latents * size.kernel());
        let own: Vec<f32> =
            original.chunks_exact(row).flat_map(|row| row.iter().take(kept)).copied().collect();
        let mut delta = vec![0.0; original.len()];
        let added = self.delta_of_all(file, &own, scale)?;
        for (row, added) in delta.chunks_exact_mut(row).zip(added.chunks_exact(kept.max(1))) {
            row[..kept].copy_from_slice(added);
        }
        Ok(delta)
    }

    fn delta_of_all(&self, file: &TensorFile, original: &[f32], scale: f32) -> Result<Vec<f32>, String> {
        let Some(change) = &self.weight else { return Ok(vec![0.0; original.len()]) };
        let source = Source { file, tensors: &self.tensors };
        let factor = self.factor(source)?;
        // OFT's scale is not a factor of what it adds.
        let (inner, outer) = match change {
            Change::Oft(_) => (scale * factor, 1.0),
            _ if self.dora.is_some() => (1.0, factor),
            _ => (1.0, scale * factor),
        };
        let mut delta = change.delta(source, original, inner)?;
        if delta.len() != original.len() {
            return Err(format!("its tensors for {} are cut off", self.place.weight_name()));
        }
        for value in &mut delta {
            *value *= outer;
        }
        match &self.dora {
            Some(dora) => dora.delta(source, original, &delta, scale),
            None => Ok(delta),
        }
    }

    /// What it adds to the bias.
    pub fn delta_of_bias(&self, file: &TensorFile, original: &[f32], scale: f32) -> Result<Vec<f32>, String> {
        let source = Source { file, tensors: &self.tensors };
        let mut sum = vec![0.0; original.len()];
        let mut add = |values: Vec<f32>, factor: f32| {
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * factor);
        };
        if source.has(Role::UpBias) {
            add(source.values(Role::UpBias)?, scale * self.factor(source)?);
        }
        if source.has(Role::DiffBias) {
            add(source.values(Role::DiffBias)?, scale);
        }
        if let Some(Change::Channels(channels)) = &self.weight
            && channels.changes_bias()
        {
            add(channels.delta_of_bias(source, original)?, scale);
        }
        Ok(sum)
    }

    #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
    fn factor(&self, source: Source<'_>) -> Result<f32, String> {
        let scalar = source.number(Role::Scalar)?.unwrap_or(1.0);
        if let Some(scale) = source.number(Role::Scale)? {
            return Ok(scale * scalar);
        }
        Ok(scalar
            * match self.factor {
                Factor::ByRank(rank) => source.number(Role::Alpha)?.unwrap_or(rank as f32) / rank as f32,
                Factor::One => 1.0,
                Factor::Given(factor) => factor,
            })
    }
}

/// The shape of the first convolution's weight for latents alone, where the model's takes more than those.
fn latents_shape(place: &ModelModule) -> Option<Vec<usize>> {
    match place.weight.as_deref() {
        Some(&[outputs, inputs, height, width]) if place.path == FIRST && inputs > LATENTS => {
            Some(vec![outputs, LATENTS, height, width])
        }
        _ => None,
    }
}

impl Change {
    fn fit(
        kind: Kind,
        source: Source<'_>,
        shape: &[usize],
        place: &ModelModule,
        peft: &PeftConfig,
    ) -> Result<Self, String> {
        let target = place.weight_name();
        if kind == Kind::Difference {
            source.expect_count(Role::Diff, shape.iter().product(), &target)?;
            return Ok(Self::Difference);
        }
        let Some(size) = Size::of(shape) else {
            return Err(format!(
                "it changes {target} as a matrix, but that has the shape {shape:?} in this model"
            ));
        };
        let target = target.as_str();
        Ok(match kind {
            Kind::LowRank => Self::LowRank(LowRank::fit(source, size, target, LORA)?),
            Kind::Embedding => Self::Embedding(Embedding::fit(source, size, target)?),
            Kind::Hadamard => Self::Hadamard(Hadamard::fit(source, size, target)?),
            Kind::Kronecker => Self::Kronecker(Kronecker::fit(source, size, target)?),
            Kind::Glora => Self::Glora(Glora::fit(source, size, target)?),
            Kind::Channels => Self::Channels(Channels::fit(source, size, target)?),
            Kind::PeftChannels => {
                Self::Channels(Channels::fit_peft(source, size, target, (place.part, &place.path, peft))?)
            }
            Kind::Difference => Self::Difference,
            Kind::Rotation => Self::Oft(Oft::fit(source, size, target)?),
            Kind::PeftRotation => Self::PeftOft(PeftOft::fit(source, size, target, place.part, peft)?),
            Kind::PeftButterfly => Self::PeftBoft(PeftBoft::fit(source, size, target)?),
        })
    }

    /// The rank that alpha is divided by.
    fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank(change) => Some(change.rank()),
            Self::Embedding(change) => Some(change.rank),
            Self::Hadamard(change) => Some(change.rank()),
            Self::Kronecker(change) => change.rank(),
            Self::Glora(change) => Some(change.rank()),
            Self::Channels(_) | Self::Difference | Self::Oft(_) | Self::PeftOft(_) | Self::PeftBoft(_) => {
                None
            }
        }
    }

    fn delta(&self, source: Source<'_>, original: &[f32], scale: f32) -> Result<Vec<f32>, String> {
        match self {
            Self::LowRank(change) => change.delta(source),
            Self::Embedding(change) => change.delta(source),
            Self::Hadamard(change) => change.delta(source),
            Self::Kronecker(change) => change.delta(source),
            Self::Glora(change) => change.delta(source, original),
            Self::Channels(change) => change.delta(source, original),
            Self::Difference => source.values(Role::Diff),
            Self::Oft(change) => change.delta(source, original, scale),
            Self::PeftOft(change) => change.delta(source, original),
            Self::PeftBoft(change) => change.delta(source, original),
        }
    }
}
