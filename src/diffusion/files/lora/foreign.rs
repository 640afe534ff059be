//! Kinds of add-ons that are recognised and refused by name. Skipping their tensors would silently draw another picture.

/// What such a tensor's name contains, and the kind.
const MARKS: [(&str, &str); 26] = [
    (".lora_A.bias", "a LoRA with a bias in its down matrix"),
    (".lora_down.bias", "a LoRA with a bias in its down matrix"),
    (".lora_E", "AdaLoRA"),
    (".oft_r", "OFT as early versions of PEFT wrote it"),
    (".q_layer.", "T-LoRA"),
    (".p_layer.", "T-LoRA"),
    (".lambda_layer", "T-LoRA"),
    (".set_weight", "a set of whole weights"),
    (".reshape_weight", "a LoRA for a weight of another shape"),
    (".vera_lambda_", "VeRA"),
    (".pvera_lambda_", "PVeRA"),
    (".randlora_", "RandLoRA"),
    (".vblora_", "VB-LoRA"),
    (".fourierft_spectrum", "FourierFT"),
    (".waveft_spectrum", "WaveFT"),
    (".hra_u", "HRA"),
    (".bone_block", "Bone"),
    (".miss_block", "MiSS"),
    (".shira_weight", "SHiRA"),
    (".c3a_kernel", "C3A"),
    (".road_theta", "RoAd"),
    (".road_alpha", "RoAd"),
    (".delora_", "DeLoRA"),
    (".gralora_", "GraLoRA"),
    (".ln_tuning_", "LN tuning"),
    (".lokr_t1", "LoKr with a first core (lokr_t1)"),
];

/// The kind of the add-on that has a tensor of this name.
pub fn foreign(name: &str) -> Option<&'static str> {
    MARKS.iter().find(|(mark, _)| name.contains(mark)).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_add_ons_are_recognised() {
        for (name, kind) in [
            ("unet.x.lora_A.bias", Some("a LoRA with a bias in its down matrix")),
            ("base_model.model.x.lora_E", Some("AdaLoRA")),
            ("base_model.model.x.vera_lambda_b", Some("VeRA")),
            ("lora_unet_x.lambda_layer", Some("T-LoRA")),
            ("base_model.model.x.oft_R.weight", None),
            ("lora_unet_x.dora_scale", None),
        ] {
            assert_eq!(foreign(name), kind, "{name}");
        }
    }
}
