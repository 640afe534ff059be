//! What a scheduler's file implements: the formula of one model call, and what the formula is given.

use std::collections::VecDeque;

use ndarray::Array4;

use super::churn::Churn;
use super::{Denoise, NoiseLevel, PredictionType, Schedule, SchedulerError};
use crate::diffusion::bytes::{ByteReader, ByteWriter};
use crate::diffusion::noise::{BatchNoise, BrownianNoise};

/// The formula of one model call. It holds settings only: what changes from call to call is in [`State`].
pub(super) trait Sampler: Send {
    /// The noise that is added before steps, for samplers that have it and requests that ask for it.
    fn churn(&self) -> Option<&Churn> {
        None
    }

    /// Takes the model's answer and moves `sample` on, in place. Shapes and the index have been checked.
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError>;
}

/// One model call as a sampler sees it.
pub(super) struct Call<'a> {
    pub index: usize,
    pub schedule: &'a Schedule,
    /// The model's answer, `[images, channels, height, width]` as the sample.
    pub noise_pred: &'a Array4<f32>,
    pub noise: &'a mut BatchNoise,
}

impl Call<'_> {
    /// The sigma at this call and the next one, for samplers that step by sigma.
    pub fn sigmas(&self) -> (f32, f32) {
        (self.schedule.sigmas[self.index], self.schedule.sigmas[self.index + 1])
    }

    pub fn level(&self) -> NoiseLevel {
        self.schedule.levels[self.index]
    }

    /// How to read the answer at this call's level.
    pub fn denoise(&self, prediction: PredictionType) -> Denoise {
        Denoise::new(prediction, self.level())
    }

    /// Fresh unit noise of the sample's shape, one generator an image.
    pub fn draw(&mut self) -> Array4<f32> {
        let (_, c, h, w) = self.noise_pred.dim();
        self.noise.randn((c, h, w))
    }

    /// Unit noise of the sample's shape for the way between two sigmas: the increment of a Brownian motion that depends on
    /// the seed and the schedule's ends alone. So more steps refine the same noise.
    pub fn brownian(&self, brownian: &mut Option<BrownianNoise>, from: f32, to: f32) -> Array4<f32> {
        let motion = brownian.get_or_insert_with(|| {
            let (_, c, h, w) = self.noise_pred.dim();
            let sigmas = self.schedule.sigmas.iter().copied().filter(|sigma| *sigma > 0.0);
            let ends = (sigmas.clone().fold(f32::INFINITY, f32::min), sigmas.fold(0.0, f32::max));
            self.noise.brownian((c, h, w), ends)
        });
        motion.between(from, to)
    }
}

/// What a sampler remembers from one call to the next. It is a plain value; with the schedule and the noise
/// generators it is all that a generation needs to continue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// The number of calls made. It is not the index: an image start leaves calls out.
    pub calls: usize,
    /// Earlier answers in the form in which the sampler combines them (noise, x0 or derivative), newest first.
    pub history: VecDeque<Array4<f32>>,
    /// The latents at the start of a step that takes several calls.
    pub start: Option<Array4<f32>>,
    /// A sum of the answers within such a step (PNDM's Runge-Kutta).
    pub sum: Option<Array4<f32>>,
    /// The noise of the whole way, for samplers that solve an SDE. Whatever was asked of it, it stays the same.
    pub brownian: Option<BrownianNoise>,
}

/// More than any sampler remembers, and than any schedule has.
const LONGEST_HISTORY: usize = 8;
const MOST_CALLS: usize = 1 << 20;

impl State {
    /// Writes all but the Brownian motion, which the seeds and the schedule make again.
    pub fn save(&self, out: &mut ByteWriter) {
        out.count(self.calls);
        for arrays in [self.history.len(), self.start.iter().len(), self.sum.iter().len()] {
            out.count(arrays);
        }
        self.history.iter().chain(&self.start).chain(&self.sum).for_each(|array| out.array(array));
    }

    /// What was saved for latents of this shape.
    pub fn read(saved: &mut ByteReader, shape: &[usize]) -> Option<Self> {
        let calls = saved.count().filter(|calls| *calls <= MOST_CALLS)?;
        let lengths = [saved.count()?, saved.count()?, saved.count()?];
        let mut arrays = |most: usize, count: usize| {
            let array = |_| saved.array().filter(|array| array.shape() == shape);
            (count <= most).then(|| (0..count).map(array).collect::<Option<VecDeque<_>>>())?
        };
        let history = arrays(LONGEST_HISTORY, lengths[0])?;
        let (start, sum) = (arrays(1, lengths[1])?.pop_front(), arrays(1, lengths[2])?.pop_front());
        Some(Self { calls, history, start, sum, brownian: None })
    }

    /// Adds an answer and keeps the newest `most`.
    pub fn remember(&mut self, answer: Array4<f32>, most: usize) {
        self.history.truncate(most - 1);
        self.history.push_front(answer);
    }
}
