//! UNIPC: a multistep predictor, and a corrector that needs no further model call.
//!
//! Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6: `UniP` extrapolates through the last answers in
//! λ = ln α − ln σ; when the next answer is there, `UniC` takes the step again with it before going on. The weights ρ
//! solve the order conditions R·ρ = b of equation 9, with B(h) = h ("bh1") or eʰ − 1 ("bh2"). The reference is
//! diffusers' `UniPCMultistepScheduler`.

use ndarray::{Array4, Zip};

use super::config::FinalSigma;
use super::dpm_solver::{lambda, x0_or_noise};
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{NoiseLevel, Parts, Plan, PredictionType, Schedule, SchedulerError, TimestepSpacing};

struct UniPc {
    prediction: PredictionType,
    predict_x0: bool,
    bh1: bool,
    solver_order: usize,
    lower_order_final: bool,
    /// Steps after which no correction follows.
    uncorrected: Vec<usize>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
    let bh1 = match config.solver_type.as_deref() {
        // The other names are what DPM-Solver and DEIS files say.
        None | Some("bh2" | "midpoint" | "heun" | "logrho") => false,
        Some("bh1") => true,
        Some(other) => return Err(SchedulerError::value("solver_type", other, "\"bh1\" or \"bh2\"")),
    };
    let solver_order = config.solver_order.unwrap_or(2);
    if !(1..=3).contains(&solver_order) {
        return Err(SchedulerError::value("solver_order", solver_order, "1, 2 or 3"));
    }
    let predict_x0 = config.predict_x0.unwrap_or(true);
    let lower_order_final = config.lower_order_final.unwrap_or(true);
    let zero = config.final_sigma()? == FinalSigma::Zero;
    if zero && (bh1 || !predict_x0 || !(lower_order_final || solver_order == 1)) {
        // The reference computes 0 times infinity there.
        let expected = "\"sigma_min\" with bh1, without predict_x0 or without lower_order_final";
        return Err(SchedulerError::value("final_sigmas_type", "zero", expected));
    }
    let spacing = plan.timestep_spacing(TimestepSpacing::Linspace)?;
    let mut schedule = Schedule::solver(plan, &table, spacing, 0, FoundTimesteps::Rounded)?;
    if plan.sigma_spacing.is_some() && !zero {
        // The reference repeats the last spaced sigma.
        schedule.repeat_last_sigma();
    }
    let sampler = UniPc {
        prediction: config.prediction()?,
        predict_x0,
        bh1,
        solver_order,
        lower_order_final,
        uncorrected: config.disable_corrector.clone().unwrap_or_default(),
    };
    Ok((schedule, Box::new(sampler)))
}

impl Sampler for UniPc {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (i, schedule) = (call.index, call.schedule);
        let answer = x0_or_noise(self.prediction, self.predict_x0, call, sample);
        if let Some(start) = state.start.take()
            && i > 0
            && !self.uncorrected.contains(&(i - 1))
        {
            let order = self.order_at(i - 1, schedule, state);
            *sample = self.advance(&start, i - 1, order, schedule, state, Some(&answer));
        }
        state.remember(answer, self.solver_order);
        let order = self.order_at(i, schedule, state);
        let next = self.advance(sample, i, order, schedule, state, None);
        state.start = Some(std::mem::replace(sample, next));
        Ok(())
    }
}

impl UniPc {
    /// The order of the step from call `i`, whose answer is the newest that `state` holds.
    fn order_at(&self, i: usize, schedule: &Schedule, state: &State) -> usize {
        let left = if self.lower_order_final { schedule.timesteps.len() - i } else { self.solver_order };
        self.solver_order.min(left).min(state.history.len()).min(i + 1)
    }

    /// The step from call `from` to the next one, `order` answers deep, from latents `x`. With `arrived`, the answer at
    /// its end, it is the corrector; the newest answer in `state` is that at `from`.
    fn advance(
        &self,
        x: &Array4<f32>,
        from: usize,
        order: usize,
        schedule: &Schedule,
        state: &State,
        arrived: Option<&Array4<f32>>,
    ) -> Array4<f32> {
        let sigmas = &schedule.sigmas;
        let (sigma_from, sigma_to) = (sigmas[from], sigmas[from + 1]);
        let h = lambda(sigma_to) - lambda(sigma_from);
        let hh = if self.predict_x0 { -h } else { h };
        let phi_1 = hh.exp_m1();
        let b_h = if self.bh1 { hh } else { phi_1 };
        let [at, to] = [sigma_from, sigma_to].map(NoiseLevel::variance_preserving);
        let (share, outer) = match self.predict_x0 {
            true => (to.noise / at.noise, to.signal),
            false => (to.signal / at.signal, to.noise),
        };
        let ratios: Vec<f32> =
            (1..order).map(|k| (lambda(sigmas[from - k]) - lambda(sigma_from)) / h).collect();
        let rhos = weights(&ratios, hh, phi_1, b_h, arrived.is_some());

        let answers = &state.history;
        let m0 = &answers[0];
        let mut sum = Array4::<f32>::zeros(x.dim());
        for ((k, &ratio), &rho) in (1..).zip(&ratios).zip(&rhos) {
            Zip::from(&mut sum).and(&answers[k]).and(m0).for_each(|s, &m, &m0| {
                *s += rho * ((m - m0) / ratio);
            });
        }
        if let (Some(arrived), Some(&rho)) = (arrived, rhos.last()) {
            Zip::from(&mut sum).and(arrived).and(m0).for_each(|s, &m, &m0| *s += rho * (m - m0));
        }
        let (first, second) = (outer * phi_1, outer * b_h);
        Zip::from(x).and(m0).and(&sum).map_collect(|&x, &m0, &s| share * x - first * m0 - second * s)
    }
}

/// The weights of the earlier answers, and with `corrector` of the one at the step's end, last.
fn weights(ratios: &[f32], hh: f32, phi_1: f32, b_h: f32, corrector: bool) -> Vec<f32> {
    let unknowns = ratios.len() + usize::from(corrector);
    match (unknowns, corrector) {
        (0, _) => return Vec::new(),
        // The reference fixes these rather than solving for them.
        (1, _) => return vec![0.5],
        _ => {}
    }
    let mut nodes: Vec<f32> = ratios.to_vec();
    nodes.push(1.0);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(unknowns);
    let (mut phi, mut factorial) = (phi_1 / hh - 1.0, 1.0f32);
    for (power, next) in (0i32..).zip(2u8..).take(unknowns) {
        let mut row: Vec<f64> = nodes[..unknowns].iter().map(|n| f64::from(n.powi(power))).collect();
        row.push(f64::from(phi * factorial / b_h));
        rows.push(row);
        factorial *= f32::from(next);
        phi = phi / hh - 1.0 / factorial;
    }
    solve(rows)
}

/// Gaussian elimination with pivoting of up to three equations, the right-hand side the last column.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f32> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let top = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != column) {
            let factor = row[column] / top[column];
            for (value, above) in row.iter_mut().zip(&top) {
                *value -= factor * above;
            }
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "the weights multiply latents in f32")]
    rows.iter().enumerate().map(|(i, row)| (row[n] / row[i]) as f32).collect()
}
