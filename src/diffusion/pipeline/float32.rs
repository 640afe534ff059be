//! A part of the model once more in float32, for what half precision cannot hold.
//!
//! The VAE of some checkpoints has values beyond 65504, the largest of float16, and what comes of them is not a number.
//! Most pictures of such a VAE are fine, so each is tried in half precision first.

use ndarray::{ArrayBase, Data, Dimension};

use super::Model;
use crate::diffusion::nets::{ModelError, PartSession};
use crate::domain::ModelPart;
use crate::runtime::Runtime;

/// A part's twin in float32. It is loaded when it is first needed.
pub(super) enum Float32<T> {
    /// The part computes in float32 itself, or its graph exists in one precision only.
    None,
    /// Not needed so far: what it would be loaded from.
    Unloaded(Box<(Model, Runtime)>),
    Loaded(T),
}

impl<T> Float32<T> {
    pub fn new(model: &Model, runtime: &Runtime) -> Self {
        match runtime.device().is_cpu() {
            true => Self::None,
            false => Self::Unloaded(Box::new((model.clone(), runtime.clone()))),
        }
    }

    /// The twin of `part`, which `make` makes of its session.
    pub fn get(
        &mut self,
        part: ModelPart,
        make: impl FnOnce(PartSession, &Model) -> Result<T, ModelError>,
    ) -> Result<Option<&mut T>, ModelError> {
        if let Self::Unloaded(source) = self {
            let (model, runtime) = &**source;
            tracing::warn!(
                "the model's {part} overflows in half precision: such pictures go through it in float32"
            );
            let files = model.files.part(part);
            let session = files.map(|files| PartSession::load_float32(files, runtime)).transpose()?.flatten();
            *self = match session {
                Some(session) => Self::Loaded(make(session, model)?),
                None => Self::None,
            };
        }
        Ok(self.loaded_mut())
    }

    pub fn loaded(&self) -> Option<&T> {
        match self {
            Self::Loaded(twin) => Some(twin),
            Self::None | Self::Unloaded(..) => None,
        }
    }

    fn loaded_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Loaded(twin) => Some(twin),
            Self::None | Self::Unloaded(..) => None,
        }
    }
}

/// Whether all values are numbers, and finite ones.
pub(super) fn is_finite<D: Dimension>(values: &ArrayBase<impl Data<Elem = f32>, D>) -> bool {
    values.iter().all(|value| value.is_finite())
}
