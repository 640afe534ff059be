//! Schedules of samplers that call the model twice a step: at its sigma, and somewhere on the way to the next one.
//!
//! Even calls are first halves. A last step to sigma 0 has only that half.

use ndarray::{Array4, Zip};

use super::sampler::Call;
use super::schedule::{LogSigmas, NoiseTable};
use super::{Denoise, NoiseLevel, Schedule};

/// The schedule of one call a step with a second call between each sigma and the next one, at `middle` of both. It has a
/// fractional timestep of its own.
pub(super) fn schedule(once: &Schedule, table: &NoiseTable, middle: impl Fn(f32, f32) -> f32) -> Schedule {
    let logs = LogSigmas::new(&table.sigmas());
    let (mut timesteps, mut shown) = (Vec::new(), Vec::new());
    for (&t, pair) in once.timesteps.iter().zip(once.sigmas.windows(2)) {
        let middle = middle(pair[0], pair[1]);
        timesteps.extend([t, logs.timestep_f32(middle)]);
        shown.extend([pair[0], middle]);
    }
    if once.last_sigma() == 0.0 {
        timesteps.pop();
        shown.pop();
    }
    // As the reference lists them: the first, then each following one twice, and the last again. By this list
    // images are noised, so for a second half to the level at which its step ends; the model sees the middle.
    let mut sigmas = twice_after_the_first(&once.sigmas);
    sigmas.extend(once.sigmas.last());
    let divisor = |&sigma: &f32| NoiseLevel::variance_exploding(sigma).input_divisor();
    Schedule {
        input_divisors: shown.iter().map(divisor).collect(),
        calls_per_step: 2,
        ..Schedule::by_sigma(timesteps, sigmas, once.init_noise_sigma)
    }
}

/// A step's second half is at the next step's timestep and sigma.
pub(super) fn twice_after_the_first(values: &[f32]) -> Vec<f32> {
    values.iter().flat_map(|&value| [value, value]).skip(1).collect()
}

/// The sigmas of the step that a call belongs to: its start and its end.
pub(super) fn step_sigmas(call: &Call) -> (f32, f32) {
    let first = call.index / 2 * 2;
    (call.schedule.sigmas[first], call.schedule.sigmas[first + 1])
}

/// `from` (or the sample itself) brought towards the clean latents that the model's answer gives for the sample, of which
/// `share` stays: x' = share·x + (1 − share)·x0. A step of DPM-Solver++ of first order.
pub(super) fn mix_with_x0(
    sample: &mut Array4<f32>,
    call: &Call,
    denoise: Denoise,
    from: Option<&Array4<f32>>,
    share: f32,
) {
    let toward = 1.0 - share;
    match from {
        None => Zip::from(sample).and(call.noise_pred).for_each(|x, &m| {
            *x = share * *x + toward * denoise.x0(*x, m);
        }),
        Some(from) => Zip::from(sample).and(call.noise_pred).and(from).for_each(|x, &m, &from| {
            *x = share * from + toward * denoise.x0(*x, m);
        }),
    }
}
