//! One generation's way from noise to latents: a schedule, the formula that follows it, and what it remembers.

use ndarray::{Array4, ArrayViewMut4, Zip};

use super::error::{check_index, check_shape};
use super::sampler::{Call, Sampler, State};
use super::{Schedule, SchedulerError};
use crate::diffusion::noise::BatchNoise;
use crate::domain::SchedulerKind;

/// A scheduler that [`build`](super::build) made for one generation.
///
/// Calls are addressed by index, since PNDM calls the model twice at one timestep. They come in order, beginning with
/// the first one that an image start keeps.
pub struct Scheduler {
    kind: SchedulerKind,
    pub(super) schedule: Schedule,
    sampler: Box<dyn Sampler>,
    state: State,
}

impl Scheduler {
    pub(super) fn new(kind: SchedulerKind, (schedule, sampler): (Schedule, Box<dyn Sampler>)) -> Self {
        Self { kind, schedule, sampler, state: State::default() }
    }

    /// What it remembers of the calls so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on with what another scheduler of the same kind, schedule and latents remembered.
    pub fn resume(&mut self, state: State) {
        self.state = state;
    }

    /// One timestep per model call, fractional where the reference's are.
    pub fn timesteps(&self) -> &[f32] {
        &self.schedule.timesteps
    }

    /// What unit noise is multiplied by where a generation starts from noise alone.
    pub fn init_noise_sigma(&self) -> f32 {
        self.schedule.init_noise_sigma
    }

    /// What the latents are divided by before the model sees them at call `i`.
    pub fn input_divisor(&self, i: usize) -> Option<f32> {
        self.schedule.input_divisors.get(i).copied()
    }

    /// How an image is noised to call `i`: `(share of the image, share of the noise)`.
    pub fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        check_index(i, self.timesteps().len())?;
        let level = self.schedule.levels.get(i).ok_or(SchedulerError::NoImageStart(self.kind.as_str()))?;
        Ok((level.signal, level.noise))
    }

    /// Whether [`Self::prepare`] changes anything.
    pub fn prepares(&self) -> bool {
        self.sampler.churn().is_some()
    }

    /// Adds to `sample` the noise that its sampler wants to be there before call `i`. It comes once, before the input is
    /// scaled.
    pub fn prepare(
        &self,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_index(i, self.timesteps().len())?;
        if let Some(churn) = self.sampler.churn() {
            let (_, c, h, w) = sample.dim();
            check_shape("noise", &[noise.len(), c, h, w], sample.shape())?;
            churn.add(i, &self.schedule, sample, noise);
        }
        Ok(())
    }

    /// Writes the model's input at call `i` into `out`, which has the sample's shape.
    pub fn scale_model_input(
        &self,
        sample: &Array4<f32>,
        i: usize,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<(), SchedulerError> {
        check_index(i, self.timesteps().len())?;
        check_shape("model input", out.shape(), sample.shape())?;
        let divisor = self.schedule.input_divisors[i];
        Zip::from(&mut out).and(sample).for_each(|o, &x| *o = x / divisor);
        Ok(())
    }

    /// `original` with `noise` over it, as the latents are at call `i`.
    pub fn add_noise(
        &self,
        original: &Array4<f32>,
        noise: &Array4<f32>,
        i: usize,
    ) -> Result<Array4<f32>, SchedulerError> {
        check_shape("noise", noise.shape(), original.shape())?;
        let (signal, share) = self.noising(i)?;
        Ok(Zip::from(original).and(noise).map_collect(|&x, &z| signal * x + share * z))
    }

    /// The first model call of an image start that keeps `strength` of `steps`; the number of calls where
    /// nothing is kept.
    pub fn begin_index(&self, steps: usize, strength: f64) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "int(steps * strength), as the reference truncates; a NaN keeps nothing"
        )]
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 { self.timesteps().len() } else { (steps - kept) * self.schedule.calls_per_step }
    }

    /// Takes the model's answer at call `i` and moves `sample` on, in place. `noise` has one generator an image; only
    /// stochastic algorithms draw from it.
    pub fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_index(i, self.timesteps().len())?;
        check_shape("noise prediction", noise_pred.shape(), sample.shape())?;
        let (_, c, h, w) = sample.dim();
        check_shape("noise", &[noise.len(), c, h, w], sample.shape())?;
        let mut call = Call { index: i, schedule: &self.schedule, noise_pred, noise };
        self.sampler.step(&mut call, sample, &mut self.state)?;
        self.state.calls += 1;
        Ok(())
    }
}
