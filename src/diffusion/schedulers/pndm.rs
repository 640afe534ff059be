//! PNDM: pseudo linear multistep, with or without its Runge-Kutta start.
//!
//! Liu et al. 2022 (arXiv 2202.09778): equation 11 moves between timesteps,
//! x' = √(ᾱ'/ᾱ)·x − (ᾱ' − ᾱ)·ε̄ / (ᾱ·√(1 − ᾱ') + √(ᾱ·(1 − ᾱ)·ᾱ')), and ε̄ is Adams-Bashforth over the last four
//! answers (equation 12). With `skip_prk_steps` (SD v1) the second timestep is called twice, the second time to
//! redo the first step with the mean of both ends; without it, the first three steps are fourth-order Runge-Kutta
//! (equation 13), four calls each. The reference is diffusers' `PNDMScheduler`. Which rule a call follows is
//! counted from the first call *made*, so an image start, which slices the list, loses the doubled timestep and
//! runs one off: so does the reference.

use ndarray::{Array4, Zip};

use super::adams_bashforth::{ORDER, adams_bashforth};
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Denoise, NoiseLevel, Parts, Plan, PredictionType, Schedule, SchedulerError, TimestepSpacing};

struct Pndm {
    table: NoiseTable,
    /// ᾱ before the first timestep.
    final_alpha: f32,
    /// The timestep of each call.
    timesteps: Vec<usize>,
    stride: usize,
    /// How many leading calls are Runge-Kutta's; 0 if they are skipped.
    runge_kutta: usize,
    prediction: PredictionType,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let &Plan { config, steps, .. } = plan;
    config.refuse_unsupported()?;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
    let spaced = whole_timesteps(plan, TimestepSpacing::Leading)?;
    let stride = table.len() / steps;
    let skip = config.skip_prk_steps.unwrap_or(false);
    if !skip && steps < 4 {
        return Err(SchedulerError::steps(steps, 4, table.len()));
    }
    let timesteps = if skip { doubled(&spaced) } else { with_runge_kutta(&spaced, stride) };
    let schedule = Schedule::by_alpha(&table, &timesteps);
    let sampler = Pndm {
        final_alpha: if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { table.alpha(0) },
        timesteps,
        stride,
        runge_kutta: if skip { 0 } else { 12 },
        table,
        prediction: config.prediction_except_sample()?,
    };
    Ok((schedule, Box::new(sampler)))
}

/// The second timestep twice.
fn doubled(spaced: &[usize]) -> Vec<usize> {
    let mut list = spaced.to_vec();
    if let Some(&second) = spaced.get(1) {
        list.insert(1, second);
    }
    list
}

/// Three Runge-Kutta steps over the first four timesteps, each at both ends and twice in the middle,
/// then the rest from the fourth on.
fn with_runge_kutta(spaced: &[usize], stride: usize) -> Vec<usize> {
    let steps = spaced.windows(2).take(3);
    let mut list: Vec<usize> =
        steps.flat_map(|pair| [pair[0], pair[1] + stride / 2, pair[1] + stride / 2, pair[1]]).collect();
    list.extend(&spaced[3..]);
    list
}

impl Sampler for Pndm {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let t = self.timesteps[call.index];
        if state.calls < self.runge_kutta {
            self.step_runge_kutta(call.noise_pred, t, sample, state);
        } else {
            self.step_multistep(call.noise_pred, t, sample, state);
        }
        Ok(())
    }
}

impl Pndm {
    /// Equation 11 from timestep `from` to `to`; `None` is before the first.
    fn transfer(&self, x: &Array4<f32>, from: usize, to: Option<usize>, model: &Array4<f32>) -> Array4<f32> {
        let alpha = self.table.alpha(from);
        let alpha_next = to.map_or(self.final_alpha, |to| self.table.alpha(to));
        let (beta, beta_next) = (1.0 - alpha, 1.0 - alpha_next);
        let share = (alpha_next / alpha).sqrt();
        let change = alpha_next - alpha;
        let denominator = alpha * beta_next.sqrt() + (alpha * beta * alpha_next).sqrt();
        let denoise = Denoise::new(self.prediction, NoiseLevel::from_alpha_cumprod(alpha));
        Zip::from(x).and(model).map_collect(|&x, &m| share * x - change * denoise.epsilon(x, m) / denominator)
    }

    fn step_runge_kutta(
        &self,
        noise_pred: &Array4<f32>,
        t: usize,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) {
        // Even calls take half a stride; odd ones repeat the timestep they came to.
        let half = if state.calls.is_multiple_of(2) { self.stride / 2 } else { 0 };
        let from = self.timesteps[state.calls / 4 * 4];
        let mut model = noise_pred.clone();
        match state.calls % 4 {
            0 => {
                state.sum = Some(noise_pred * (1.0 / 6.0));
                state.remember(noise_pred.clone(), ORDER);
                state.start = Some(sample.clone());
            }
            1 | 2 => {
                if let Some(sum) = &mut state.sum {
                    sum.scaled_add(1.0 / 3.0, noise_pred);
                }
            }
            _ => {
                if let Some(mut sum) = state.sum.take() {
                    sum.scaled_add(1.0 / 6.0, noise_pred);
                    model = sum;
                }
            }
        }
        let start = state.start.as_ref().unwrap_or(sample);
        *sample = self.transfer(start, from, t.checked_sub(half), &model);
    }

    fn step_multistep(
        &self,
        noise_pred: &Array4<f32>,
        t: usize,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) {
        if state.calls == 1 {
            // The first step again, from its start, with the mean of the answers at both of its ends.
            if let Some(start) = state.start.take() {
                *sample = start;
            }
            let first = state.history.front().unwrap_or(noise_pred);
            let model = Zip::from(noise_pred).and(first).map_collect(|&m, &e| f32::midpoint(m, e));
            *sample = self.transfer(sample, t + self.stride, Some(t), &model);
            return;
        }
        if state.calls == 0 {
            state.start = Some(sample.clone());
        }
        state.remember(noise_pred.clone(), ORDER);
        let model = adams_bashforth(&state.history);
        *sample = self.transfer(sample, t, t.checked_sub(self.stride), &model);
    }
}
