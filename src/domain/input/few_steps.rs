//! A hint for LoRAs that draw in few steps without guidance, where a request asks for many steps or for guidance.
//!
//! Nothing in such a file says what it is for, but its name usually does: those of latent consistency models have `lcm`,
//! Trajectory Consistency Distillation's `tcd`, and those of Hyper-SD `hyper` and `sd`. Variants that keep guidance say `cfg`.

use crate::domain::Lora;

/// Above these, pictures burn out.
const MOST_GUIDANCE: f32 = 2.0;
const MOST_STEPS: u32 = 16;

/// A sentence about the first such LoRA, if the request asks for something else.
pub(super) fn hint(loras: &[Lora], guidance_scale: f32, steps: u32) -> Option<String> {
    let lora = loras.iter().find(|lora| lora.unet > 0.0 && is_for_few_steps(&lora.name))?;
    if guidance_scale <= MOST_GUIDANCE && steps <= MOST_STEPS {
        return None;
    }
    Some(format!(
        "The LoRA {} draws in few steps without guidance, as its name says; with guidance_scale {guidance_scale} and \
         num_inference_steps {steps} its pictures are worse and take longer: try guidance_scale 1 and num_inference_steps 8.",
        lora.name
    ))
}

fn is_for_few_steps(name: &str) -> bool {
    let name = name.to_lowercase();
    let words: Vec<_> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let has = |wanted: &str| words.contains(&wanted);
    let is_hyper =
        has("hyper") && words.iter().any(|word| word.starts_with("sd")) || name.contains("hypersd");
    (has("lcm") || has("tcd") || is_hyper) && !has("cfg")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LoraOrigin;

    fn lora(name: &str) -> Lora {
        let origin = LoraOrigin::Field;
        Lora { name: name.to_owned(), unet: 1.0, text_encoder: 1.0, blocks: None, origin }
    }

    #[test]
    fn loras_for_few_steps_are_known_by_their_names() {
        for name in [
            "lcm-lora-sdv1-5",
            "LCM_LoRA_Weights_SD15",
            "TCD-SD15-LoRA",
            "Hyper-SD15-8steps-lora",
            "styles/lcm",
        ] {
            assert!(is_for_few_steps(name), "{name}");
        }
        for name in
            ["hyper_detail", "Hyper-SD15-12steps-CFG-lora", "welcome", "ink", "lcmix", "hyperrealism sketch"]
        {
            assert!(!is_for_few_steps(name), "{name}");
        }
    }

    #[test]
    fn only_requests_that_ask_for_something_else_get_a_hint() {
        let lcm = [lora("ink"), lora("lcm-lora-sdv1-5")];
        assert_eq!(hint(&lcm, 1.5, 8), None);
        assert_eq!(hint(&lcm[..1], 7.5, 50), None);
        assert_eq!(hint(&[Lora { unet: 0.0, ..lora("lcm") }], 7.5, 50), None);
        assert_eq!(
            hint(&lcm, 7.5, 8).unwrap(),
            "The LoRA lcm-lora-sdv1-5 draws in few steps without guidance, as its name says; with guidance_scale 7.5 and \
             num_inference_steps 8 its pictures are worse and take longer: try guidance_scale 1 and num_inference_steps 8."
        );
        assert!(hint(&lcm, 1.0, 50).is_some());
    }
}
