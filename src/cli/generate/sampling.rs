//! The flags that say how a scheduler's steps are spaced, how much noise they add, and which of them are whole.

use clap::Args;
use serde_json::{Map, Value, json};

use super::finite;

#[derive(Debug, Args)]
#[command(next_help_heading = super::SAMPLING)]
pub(super) struct SamplingArgs {
    /// Use Karras sigmas, as "DPM++ 2M Karras" does
    #[arg(long)]
    karras: bool,
    /// How the steps are spaced, such as karras, exponential, beta or "SGM Uniform" [default: as the model's files say]
    #[arg(long, value_name = "NAME")]
    spacing: Option<String>,
    /// Share of noise that stochastic schedulers add at each step, 0 to 1 [default: the scheduler's own]
    #[arg(long, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    eta: Option<f64>,
    /// Noise that EULER-D, HEUN and KDPM2-D add before their steps, 0 to 100 [default: 0]
    #[arg(long, value_name = "CHURN", value_parser = finite, allow_negative_numbers = true)]
    s_churn: Option<f64>,
    /// Lowest sigma at which --s-churn adds noise [default: 0]
    #[arg(long, value_name = "SIGMA", value_parser = finite, allow_negative_numbers = true)]
    s_tmin: Option<f64>,
    /// Highest sigma at which --s-churn adds noise [default: 0, which means no limit]
    #[arg(long, value_name = "SIGMA", value_parser = finite, allow_negative_numbers = true)]
    s_tmax: Option<f64>,
    /// Deviation of the noise that is added at steps, 0 to 2 [default: 1]
    #[arg(long, value_name = "DEVIATION", value_parser = finite, allow_negative_numbers = true)]
    s_noise: Option<f64>,
    /// Call the whole UNet at every N-th step alone, 1 to 20; the steps between are faster and less exact [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cache_interval: Option<u32>,
}

impl SamplingArgs {
    /// Writes the flags into a request's `input`. An absent flag is null, which means the default.
    pub fn write(&self, input: &mut Map<String, Value>) {
        // Without the flag it is what the scheduler's name says.
        input.insert("karras".into(), json!(self.karras.then_some(true)));
        input.insert("spacing".into(), json!(self.spacing));
        input.insert("eta".into(), json!(self.eta));
        input.insert("s_churn".into(), json!(self.s_churn));
        input.insert("s_tmin".into(), json!(self.s_tmin));
        input.insert("s_tmax".into(), json!(self.s_tmax));
        input.insert("s_noise".into(), json!(self.s_noise));
        input.insert("cache_interval".into(), json!(self.cache_interval));
    }
}
