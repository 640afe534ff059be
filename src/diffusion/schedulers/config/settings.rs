//! What the keys of the file mean: each is checked here, with the default of the class that asks.

use super::SchedulerConfig;
use crate::diffusion::schedulers::{PredictionType, SchedulerError, SigmaSpacing, TimestepSpacing};
use crate::domain::{SchedulerKind, Spacing};

/// The sigma at which the last step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalSigma {
    Zero,
    /// The lowest of the training table.
    SigmaMin,
}

impl SchedulerConfig {
    /// How many timesteps the model was trained with.
    pub(in super::super) fn train_timesteps(&self) -> Result<usize, SchedulerError> {
        let n = self.num_train_timesteps.unwrap_or(1000);
        if (1..=100_000).contains(&n) {
            Ok(n)
        } else {
            Err(SchedulerError::value("num_train_timesteps", n, "between 1 and 100000"))
        }
    }

    /// No class can take more steps than the model was trained with.
    pub(in super::super) fn check_steps(&self, steps: usize) -> Result<(), SchedulerError> {
        let max = self.train_timesteps()?;
        if (1..=max).contains(&steps) { Ok(()) } else { Err(SchedulerError::steps(steps, 1, max)) }
    }

    pub fn prediction(&self) -> Result<PredictionType, SchedulerError> {
        match self.prediction_type.as_deref() {
            None | Some("epsilon") => Ok(PredictionType::Epsilon),
            Some("v_prediction") => Ok(PredictionType::VPrediction),
            Some("sample") => Ok(PredictionType::Sample),
            Some(other) => Err(SchedulerError::value(
                "prediction_type",
                other,
                "\"epsilon\", \"v_prediction\" or \"sample\"",
            )),
        }
    }

    /// For the classes whose reference does not implement `sample`.
    pub(in super::super) fn prediction_except_sample(&self) -> Result<PredictionType, SchedulerError> {
        match self.prediction()? {
            PredictionType::Sample => Err(SchedulerError::value(
                "prediction_type",
                "sample",
                "\"epsilon\" or \"v_prediction\" for this scheduler",
            )),
            other => Ok(other),
        }
    }

    pub(in super::super) fn spacing(
        &self,
        default: TimestepSpacing,
    ) -> Result<TimestepSpacing, SchedulerError> {
        match self.timestep_spacing.as_deref() {
            None => Ok(default),
            Some("leading") => Ok(TimestepSpacing::Leading),
            Some("linspace") => Ok(TimestepSpacing::Linspace),
            Some("trailing") => Ok(TimestepSpacing::Trailing),
            Some(other) => Err(SchedulerError::value(
                "timestep_spacing",
                other,
                "\"leading\", \"linspace\" or \"trailing\"",
            )),
        }
    }

    /// What is added to "leading" timesteps.
    pub(in super::super) fn offset(&self) -> Result<usize, SchedulerError> {
        let (offset, max) = (self.steps_offset.unwrap_or(0), self.train_timesteps()?);
        if offset < max {
            Ok(offset)
        } else {
            Err(SchedulerError::value("steps_offset", offset, format!("below num_train_timesteps ({max})")))
        }
    }

    /// How the file spaces sigmas, for a class that knows its keys. (EULER-A's does not, whatever a request may ask of it.)
    pub(in super::super) fn sigma_spacing(
        &self,
        kind: SchedulerKind,
    ) -> Result<Option<SigmaSpacing>, SchedulerError> {
        use SchedulerKind as K;
        if !kind.takes(Spacing::Karras) || matches!(kind, K::EulerA | K::Lcm) {
            return Ok(None);
        }
        let lu = self.use_lu_lambdas.filter(|_| kind == K::DpmM);
        let keys = [
            ("use_karras_sigmas", self.use_karras_sigmas, SigmaSpacing::Karras),
            ("use_exponential_sigmas", self.use_exponential_sigmas, SigmaSpacing::Exponential),
            ("use_beta_sigmas", self.use_beta_sigmas, SigmaSpacing::Beta),
            ("use_lu_lambdas", lu, SigmaSpacing::Lu),
        ];
        let mut set = keys.into_iter().filter(|(_, flag, _)| *flag == Some(true));
        let first = set.next();
        match (first, set.next()) {
            (Some((first, ..)), Some((key, ..))) => Err(SchedulerError::value(
                key,
                true,
                format!("false: {first} is true, and only one of them can be"),
            )),
            (first, _) => Ok(first.map(|(_, _, spacing)| spacing)),
        }
    }

    pub(in super::super) fn final_sigma(&self) -> Result<FinalSigma, SchedulerError> {
        match self.final_sigmas_type.as_deref() {
            None | Some("zero") => Ok(FinalSigma::Zero),
            Some("sigma_min") => Ok(FinalSigma::SigmaMin),
            Some(other) => {
                Err(SchedulerError::value("final_sigmas_type", other, "\"zero\" or \"sigma_min\""))
            }
        }
    }

    /// The ends that the file sets for respaced sigmas: `(sigma_min, sigma_max)`.
    pub(in super::super) fn sigma_ends(&self) -> Result<(Option<f64>, Option<f64>), SchedulerError> {
        for (key, end) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(end) = end.filter(|s| !(s.is_finite() && *s > 0.0)) {
                return Err(SchedulerError::value(key, end, "a positive number"));
            }
        }
        Ok((self.sigma_min, self.sigma_max))
    }

    /// The bound of `clip_sample`, where it is on.
    pub(in super::super) fn clip(&self, default: bool) -> Result<Option<f32>, SchedulerError> {
        if !self.clip_sample.unwrap_or(default) {
            return Ok(None);
        }
        let range = self.clip_sample_range.unwrap_or(1.0);
        if range.is_finite() && range > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "the latents that it bounds are f32")]
            Ok(Some(range as f32))
        } else {
            Err(SchedulerError::value("clip_sample_range", range, "a positive number"))
        }
    }

    /// Refuses what the reference can do and this engine cannot. To ignore such a key would change the picture.
    pub(in super::super) fn refuse_unsupported(&self) -> Result<(), SchedulerError> {
        let flags = [("thresholding", self.thresholding), ("use_flow_sigmas", self.use_flow_sigmas)];
        for (key, flag) in flags {
            if flag == Some(true) {
                return Err(SchedulerError::value(key, true, "false: this engine does not implement it"));
            }
        }
        for (key, text, only) in [
            ("interpolation_type", &self.interpolation_type, "linear"),
            ("timestep_type", &self.timestep_type, "discrete"),
        ] {
            if let Some(other) = text.as_deref().filter(|t| *t != only) {
                return Err(SchedulerError::value(key, other, format!("\"{only}\"")));
            }
        }
        Ok(())
    }
}
