//! The precision that a request's pictures are drawn in.

use super::Pipeline;
use crate::diffusion::nets::UNetForm;
use crate::domain::{GenerationInput, Precision};
use crate::runtime::{Device, multiplies_int8};

impl Pipeline {
    /// How the UNet for a request differs from the model's own.
    pub(super) fn unet_form(&self, input: &GenerationInput) -> UNetForm {
        UNetForm { is_controlled: !input.controlnets.is_empty(), precision: self.precision(input) }
    }

    /// What becomes of the precision that a request asks for.
    pub(super) fn precision(&self, input: &GenerationInput) -> Precision {
        match self.without_int8 {
            None => input.precision,
            Some(_) => Precision::Full,
        }
    }

    /// A sentence for the client, if it asks for int8 and does not get it.
    pub(super) fn not_in_int8(&self, input: &GenerationInput) -> Option<String> {
        let why = self.without_int8.filter(|_| input.precision == Precision::Int8)?;
        Some(format!(
            "precision has no effect on this server, because {why}: the picture was drawn in full precision."
        ))
    }
}

/// Why nothing is drawn in int8 on this device, if so.
pub(super) fn without_int8(device: &Device) -> Option<&'static str> {
    why_not(device.is_cpu(), multiplies_int8())
}

fn why_not(is_cpu: bool, multiplies_int8: bool) -> Option<&'static str> {
    match (is_cpu, multiplies_int8) {
        (false, _) => Some("int8 is for the CPU, and it draws on a card"),
        (true, false) => Some("int8 needs an x86-64 processor with AVX2"),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::diffusion::Model;
    use crate::domain::InputRules;
    use crate::runtime::{DeviceChoice, Runtime};

    #[test]
    fn int8_is_for_processors_that_are_fast_at_it() {
        assert_eq!(why_not(true, true), None);
        assert_eq!(why_not(true, false), Some("int8 needs an x86-64 processor with AVX2"));
        for multiplies_int8 in [false, true] {
            assert_eq!(why_not(false, multiplies_int8), Some("int8 is for the CPU, and it draws on a card"));
        }
    }

    #[test]
    fn a_request_for_int8_is_told_once_why_it_is_drawn_in_full_precision() {
        let model = Model::open(None, None).unwrap();
        let mut pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
        pipeline.without_int8 = Some("it is a test");
        let rules = InputRules { precisions: &Precision::ALL, ..model.rules().clone() };
        let mut request = json!({
            "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 2, "hires": {"scale": 2}
        });
        for (precision, times) in [("full", 0), ("int8", 1)] {
            request["precision"] = json!(precision);
            let input = GenerationInput::parse(&request, &rules).unwrap();
            let mut generation = pipeline.begin(&input, 1).unwrap();
            while !generation.is_done() {
                pipeline.step(&mut [&mut generation]).unwrap();
            }
            let sentence = "precision has no effect on this server, because it is a test: the picture was drawn in \
                            full precision.";
            let told = generation.warnings().iter().filter(|warning| *warning == sentence).count();
            assert_eq!(told, times, "{precision}: {:?}", generation.warnings());
        }
    }
}
