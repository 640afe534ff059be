//! `scheduler_config.json` as model folders carry it, and what each key may say.
//!
//! Every key is optional and unknown keys are ignored. A missing key means the default of the class
//! that is *built*, not of the class that the file names: SD 1.5's old file has no
//! `timestep_spacing`, so PNDM spaces "leading" and Euler "linspace" from the same file.

use serde_json::Value;

/// Why a scheduler cannot be built or stepped, in a sentence that names the key and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    #[error("the scheduler configuration is not a JSON object: {0}")]
    Json(String),
    #[error("scheduler configuration: {key} is {value}, but must be {expected}")]
    Value { key: &'static str, value: String, expected: String },
    #[error("{steps} steps asked for, but this schedule has between {min} and {max}")]
    Steps { steps: usize, min: usize, max: usize },
    #[error("step {index} asked for, but the schedule has {len} model calls")]
    OutOfRange { index: usize, len: usize },
    #[error("step {index} is the second half of a step whose first half was not run")]
    SecondHalf { index: usize },
    #[error("the {what} has shape {got:?}, but the latents have {want:?}")]
    Shape { what: &'static str, got: Vec<usize>, want: Vec<usize> },
    #[error("{0} cannot start from an image: it defines no way to add noise")]
    NoImageStart(&'static str),
    #[error("{0} has no Karras sigmas")]
    NoKarras(&'static str),
}

impl SchedulerError {
    #[allow(clippy::needless_pass_by_value)] // Mostly literals: a reference would be noise.
    pub(super) fn value(
        key: &'static str,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { key, value: value.to_string(), expected: expected.into() }
    }
}

/// What the model's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise in the latents.
    Epsilon,
    /// `v = alpha * noise - sigma * x0` (Salimans and Ho 2022).
    VPrediction,
    /// The clean latents themselves.
    Sample,
}

/// How inference steps are picked from the training steps (Lin et al. 2023, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    Leading,
    Linspace,
    Trailing,
}

/// Where the last step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalSigma {
    Zero,
    SigmaMin,
}

/// The file as found; `None` is a key that is missing or null.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    pub num_train_timesteps: Option<usize>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<String>,
    pub trained_betas: Option<Vec<f32>>,
    pub rescale_betas_zero_snr: Option<bool>,
    pub prediction_type: Option<String>,
    pub timestep_spacing: Option<String>,
    pub steps_offset: Option<usize>,
    pub set_alpha_to_one: Option<bool>,
    pub clip_sample: Option<bool>,
    pub clip_sample_range: Option<f64>,
    pub thresholding: Option<bool>,
    pub skip_prk_steps: Option<bool>,
    pub variance_type: Option<String>,
    pub use_karras_sigmas: Option<bool>,
    pub use_exponential_sigmas: Option<bool>,
    pub use_beta_sigmas: Option<bool>,
    pub use_lu_lambdas: Option<bool>,
    pub use_flow_sigmas: Option<bool>,
    pub interpolation_type: Option<String>,
    pub timestep_type: Option<String>,
    pub final_sigmas_type: Option<String>,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub algorithm_type: Option<String>,
    pub solver_type: Option<String>,
    pub solver_order: Option<usize>,
    pub lower_order_final: Option<bool>,
    pub euler_at_final: Option<bool>,
    pub lambda_min_clipped: Option<f64>,
    pub predict_x0: Option<bool>,
    pub disable_corrector: Option<Vec<usize>>,
    pub original_inference_steps: Option<usize>,
    pub timestep_scaling: Option<f64>,
}

impl Default for SchedulerConfig {
    /// Stable Diffusion v1's own file.
    fn default() -> Self {
        Self {
            num_train_timesteps: Some(1000),
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some("scaled_linear".into()),
            set_alpha_to_one: Some(false),
            skip_prk_steps: Some(true),
            steps_offset: Some(1),
            clip_sample: Some(false),
            ..Self::empty()
        }
    }
}

impl SchedulerConfig {
    /// A file that says nothing: every class by its own defaults.
    pub fn empty() -> Self {
        Self {
            num_train_timesteps: None,
            beta_start: None,
            beta_end: None,
            beta_schedule: None,
            trained_betas: None,
            rescale_betas_zero_snr: None,
            prediction_type: None,
            timestep_spacing: None,
            steps_offset: None,
            set_alpha_to_one: None,
            clip_sample: None,
            clip_sample_range: None,
            thresholding: None,
            skip_prk_steps: None,
            variance_type: None,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            use_lu_lambdas: None,
            use_flow_sigmas: None,
            interpolation_type: None,
            timestep_type: None,
            final_sigmas_type: None,
            sigma_min: None,
            sigma_max: None,
            algorithm_type: None,
            solver_type: None,
            solver_order: None,
            lower_order_final: None,
            euler_at_final: None,
            lambda_min_clipped: None,
            predict_x0: None,
            disable_corrector: None,
            original_inference_steps: None,
            timestep_scaling: None,
        }
    }

    /// Reads the text of a `scheduler_config.json`. Python's `-Infinity`, which diffusers writes for
    /// `lambda_min_clipped`, counts as null: that is its default.
    pub fn from_json(text: &str) -> Result<Self, SchedulerError> {
        let text = text.replace(": -Infinity", ": null").replace(":-Infinity", ":null");
        let json: Value = serde_json::from_str(&text).map_err(|e| SchedulerError::Json(e.to_string()))?;
        if !json.is_object() {
            return Err(SchedulerError::Json(shorten(&json)));
        }
        let read = Reader(&json);
        Ok(Self {
            num_train_timesteps: read.count("num_train_timesteps")?,
            beta_start: read.number("beta_start")?,
            beta_end: read.number("beta_end")?,
            beta_schedule: read.text("beta_schedule")?,
            trained_betas: read.list("trained_betas", "a list of numbers", |v| {
                // The reference makes an f32 tensor of them, too.
                #[allow(clippy::cast_possible_truncation)]
                v.as_f64().map(|b| b as f32)
            })?,
            rescale_betas_zero_snr: read.flag("rescale_betas_zero_snr")?,
            prediction_type: read.text("prediction_type")?,
            timestep_spacing: read.text("timestep_spacing")?,
            steps_offset: read.count("steps_offset")?,
            set_alpha_to_one: read.flag("set_alpha_to_one")?,
            clip_sample: read.flag("clip_sample")?,
            clip_sample_range: read.number("clip_sample_range")?,
            thresholding: read.flag("thresholding")?,
            skip_prk_steps: read.flag("skip_prk_steps")?,
            variance_type: read.text("variance_type")?,
            use_karras_sigmas: read.flag("use_karras_sigmas")?,
            use_exponential_sigmas: read.flag("use_exponential_sigmas")?,
            use_beta_sigmas: read.flag("use_beta_sigmas")?,
            use_lu_lambdas: read.flag("use_lu_lambdas")?,
            use_flow_sigmas: read.flag("use_flow_sigmas")?,
            interpolation_type: read.text("interpolation_type")?,
            timestep_type: read.text("timestep_type")?,
            final_sigmas_type: read.text("final_sigmas_type")?,
            sigma_min: read.number("sigma_min")?,
            sigma_max: read.number("sigma_max")?,
            algorithm_type: read.text("algorithm_type")?,
            solver_type: read.text("solver_type")?,
            solver_order: read.count("solver_order")?,
            lower_order_final: read.flag("lower_order_final")?,
            euler_at_final: read.flag("euler_at_final")?,
            lambda_min_clipped: read.number("lambda_min_clipped")?,
            predict_x0: read.flag("predict_x0")?,
            disable_corrector: read.list("disable_corrector", "a list of whole numbers", |v| {
                v.as_u64().and_then(|n| usize::try_from(n).ok())
            })?,
            original_inference_steps: read.count("original_inference_steps")?,
            timestep_scaling: read.number("timestep_scaling")?,
        })
    }

    pub(super) fn train_timesteps(&self) -> Result<usize, SchedulerError> {
        let n = self.num_train_timesteps.unwrap_or(1000);
        if (1..=100_000).contains(&n) {
            Ok(n)
        } else {
            Err(SchedulerError::value("num_train_timesteps", n, "between 1 and 100000"))
        }
    }

    /// No class can take more steps than the model was trained with, nor none.
    pub(super) fn check_steps(&self, steps: usize) -> Result<(), SchedulerError> {
        let max = self.train_timesteps()?;
        if (1..=max).contains(&steps) { Ok(()) } else { Err(SchedulerError::Steps { steps, min: 1, max }) }
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
    pub(super) fn prediction_of_noise(&self) -> Result<PredictionType, SchedulerError> {
        match self.prediction()? {
            PredictionType::Sample => Err(SchedulerError::value(
                "prediction_type",
                "sample",
                "\"epsilon\" or \"v_prediction\" for this scheduler",
            )),
            other => Ok(other),
        }
    }

    pub(super) fn spacing(&self, default: TimestepSpacing) -> Result<TimestepSpacing, SchedulerError> {
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

    pub(super) fn offset(&self) -> Result<usize, SchedulerError> {
        let (offset, max) = (self.steps_offset.unwrap_or(0), self.train_timesteps()?);
        if offset < max {
            Ok(offset)
        } else {
            Err(SchedulerError::value("steps_offset", offset, format!("below num_train_timesteps ({max})")))
        }
    }

    pub(super) fn final_sigma(&self) -> Result<FinalSigma, SchedulerError> {
        match self.final_sigmas_type.as_deref() {
            None | Some("zero") => Ok(FinalSigma::Zero),
            Some("sigma_min") => Ok(FinalSigma::SigmaMin),
            Some(other) => {
                Err(SchedulerError::value("final_sigmas_type", other, "\"zero\" or \"sigma_min\""))
            }
        }
    }

    /// The ends that the file sets for Karras sigmas: `(sigma_min, sigma_max)`.
    pub(super) fn sigma_ends(&self) -> Result<(Option<f64>, Option<f64>), SchedulerError> {
        for (key, end) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(end) = end.filter(|s| !(s.is_finite() && *s > 0.0)) {
                return Err(SchedulerError::value(key, end, "a positive number"));
            }
        }
        Ok((self.sigma_min, self.sigma_max))
    }

    /// The bound of `clip_sample`, where it is on.
    pub(super) fn clip(&self, default: bool) -> Result<Option<f32>, SchedulerError> {
        if !self.clip_sample.unwrap_or(default) {
            return Ok(None);
        }
        let range = self.clip_sample_range.unwrap_or(1.0);
        if range.is_finite() && range > 0.0 {
            #[allow(clippy::cast_possible_truncation)]
            Ok(Some(range as f32))
        } else {
            Err(SchedulerError::value("clip_sample_range", range, "a positive number"))
        }
    }

    /// What the reference can do and this engine cannot is said, not ignored: the picture would differ.
    pub(super) fn refuse_unsupported(&self) -> Result<(), SchedulerError> {
        let flags = [
            ("thresholding", self.thresholding),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("use_lu_lambdas", self.use_lu_lambdas),
            ("use_flow_sigmas", self.use_flow_sigmas),
        ];
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

/// Takes typed values out of the JSON object, naming the key that holds another type.
struct Reader<'a>(&'a Value);

impl Reader<'_> {
    fn get<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, SchedulerError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(v) => Ok(Some(v)),
                None => Err(SchedulerError::value(key, shorten(value), expected)),
            },
        }
    }

    fn count(&self, key: &'static str) -> Result<Option<usize>, SchedulerError> {
        self.get(key, "a whole number", |v| v.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>, SchedulerError> {
        self.get(key, "a number", Value::as_f64)
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, SchedulerError> {
        self.get(key, "true or false", Value::as_bool)
    }

    fn text(&self, key: &'static str) -> Result<Option<String>, SchedulerError> {
        self.get(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        item: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, SchedulerError> {
        self.get(key, expected, |v| v.as_array()?.iter().map(&item).collect())
    }
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
