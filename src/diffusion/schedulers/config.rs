//! `scheduler_config.json` as model folders carry it.
//!
//! Every key is optional, and unknown keys are ignored. A missing key means the default of the class that is
//! *built*, not of the class that the file names: SD 1.5's old file has no `timestep_spacing`, so from the
//! same file PNDM spaces "leading" and Euler "linspace". `settings.rs` says what each key may hold.

mod json;
mod settings;

use serde_json::Value;

use self::json::{read, shorten};
use super::SchedulerError;

pub(super) use self::settings::FinalSigma;

/// Declares [`SchedulerConfig`], its empty value and its reader, so that a key is one line.
macro_rules! keys {
    ($($key:ident: $type:ty,)*) => {
        /// The file as found; `None` is a key that is missing or null.
        #[derive(Debug, Clone, PartialEq)]
        pub struct SchedulerConfig {
            $(pub $key: Option<$type>,)*
        }

        impl SchedulerConfig {
            /// A file that says nothing: every class has its own defaults.
            pub fn empty() -> Self {
                Self { $($key: None,)* }
            }

            fn from_object(object: &Value) -> Result<Self, SchedulerError> {
                Ok(Self { $($key: read(object, stringify!($key))?,)* })
            }
        }
    };
}

keys! {
    num_train_timesteps: usize,
    beta_start: f64,
    beta_end: f64,
    beta_schedule: String,
    trained_betas: Vec<f32>,
    rescale_betas_zero_snr: bool,
    prediction_type: String,
    timestep_spacing: String,
    steps_offset: usize,
    set_alpha_to_one: bool,
    clip_sample: bool,
    clip_sample_range: f64,
    thresholding: bool,
    skip_prk_steps: bool,
    variance_type: String,
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    use_lu_lambdas: bool,
    use_flow_sigmas: bool,
    interpolation_type: String,
    timestep_type: String,
    final_sigmas_type: String,
    sigma_min: f64,
    sigma_max: f64,
    algorithm_type: String,
    solver_type: String,
    solver_order: usize,
    lower_order_final: bool,
    euler_at_final: bool,
    lambda_min_clipped: f64,
    predict_x0: bool,
    disable_corrector: Vec<usize>,
    original_inference_steps: usize,
    timestep_scaling: f64,
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
    /// Reads the text of a `scheduler_config.json`. Python's `-Infinity`, which diffusers writes for
    /// `lambda_min_clipped`, counts as null: that is its default.
    pub fn from_json(text: &str) -> Result<Self, SchedulerError> {
        let text = text.replace(": -Infinity", ": null").replace(":-Infinity", ":null");
        let json: Value =
            serde_json::from_str(&text).map_err(|error| SchedulerError::Json(error.to_string()))?;
        Self::from_value(&json)
    }

    /// Reads a parsed file.
    pub fn from_value(json: &Value) -> Result<Self, SchedulerError> {
        match json.is_object() {
            true => Self::from_object(json),
            false => Err(SchedulerError::Json(shorten(json))),
        }
    }
}
