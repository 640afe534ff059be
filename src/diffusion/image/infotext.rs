//! A1111's infotext: the text in a picture that says how it was made.
//!
//! Stable Diffusion programs write it under the keyword `parameters` and read it from each other's pictures (A1111's
//! `modules/processing.py` and `modules/infotext_utils.py`).

use std::fmt::Write;

use crate::domain::{
    ControlUnit, Enlarged, Hires, ImageSize, Lora, LoraOrigin, NoiseSource, Sampling, SchedulerKind,
};

/// How a picture was made.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
    /// 1 is the text encoder's last layer.
    pub clip_skip: u32,
    pub steps: u32,
    pub scheduler: SchedulerKind,
    /// Its spacing is the one that drew, whoever asked for it.
    pub sampling: Sampling,
    pub guidance_scale: f32,
    pub guidance_rescale: f64,
    pub guidance_end: f64,
    /// For a model that changes a picture as the prompt says.
    pub image_guidance_scale: Option<f32>,
    /// The seed of this one picture.
    pub seed: u64,
    pub noise: NoiseSource,
    pub size: ImageSize,
    /// The size at which the model drew. If it is not `size`, the picture was enlarged.
    pub drawn_at: ImageSize,
    /// The second pass, if it has one.
    pub hires: Option<&'a Hires>,
    /// The prompt strength, if it started from a picture.
    pub strength: Option<f64>,
    /// `(read, all)` chunks of the prompts, if not all were read.
    pub prompt_cut: Option<(usize, usize)>,
    pub model: &'a str,
    /// What the model's files hold and nothing read.
    pub not_read: &'a [String],
    pub loras: &'a [Lora],
    pub controlnets: &'a [ControlUnit],
    /// `(name, hash)` of each LoRA, and of each textual inversion, that was used.
    pub lora_hashes: &'a [(String, String)],
    pub ti_hashes: &'a [(String, String)],
    /// Further items, in A1111's words where it has them.
    pub further: &'a [(&'static str, String)],
    /// `(name, what)` of each LoRA of which the model lacks something.
    pub lora_skipped: &'a [(String, String)],
}

impl Parameters<'_> {
    /// The text: the prompt, the negative prompt if there is one, and one line with the rest.
    pub fn infotext(&self) -> String {
        let size = |size: ImageSize| format!("{}x{}", size.width, size.height);
        let mut items = vec![
            ("Steps", self.steps.to_string()),
            ("Sampler", self.scheduler.a1111_name().to_owned()),
            ("CFG scale", self.guidance_scale.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", size(self.size)),
            ("Model", self.model.to_owned()),
        ];
        if let Some(scale) = self.image_guidance_scale {
            items.push(("Image CFG scale", scale.to_string()));
        }
        if let Some(spacing) = self.sampling.spacing {
            items.insert(2, ("Schedule type", spacing.a1111_name().to_owned()));
        }
        for (name, value) in self.sampling.numbers() {
            items.push((sampling_item(name), value.to_string()));
        }
        if self.clip_skip > 1 {
            items.push(("Clip skip", self.clip_skip.to_string()));
        }
        // A1111 has no words for these two; the first one is that of its extension.
        if self.guidance_rescale > 0.0 {
            items.push(("CFG Rescale phi", self.guidance_rescale.to_string()));
        }
        if self.guidance_end < 1.0 {
            items.push(("CFG end", self.guidance_end.to_string()));
        }
        items.push(("RNG", random_numbers(self.noise).to_owned()));
        if let Some(strength) = self.strength {
            items.push(("Denoising strength", strength.to_string()));
        }
        if let Some(hires) = self.hires {
            items.extend(second_pass(hires, self.strength.is_some()));
        }
        if self.drawn_at != self.size {
            items.push(("Drawn at", format!("{}, enlarged", size(self.drawn_at))));
        }
        items.extend_from_slice(self.further);
        if let Some((read, of)) = self.prompt_cut {
            items.push(("Prompt cut", format!("{read} of {of} chunks read")));
        }
        if !self.not_read.is_empty() {
            items.push(("Not read", self.not_read.join("; ")));
        }
        for (item, hashes) in [
            ("Lora hashes", self.lora_hashes),
            ("TI hashes", self.ti_hashes),
            ("Lora skipped", self.lora_skipped),
        ] {
            let hashes: Vec<_> = hashes.iter().map(|(name, hash)| format!("{name}: {hash}")).collect();
            if !hashes.is_empty() {
                items.push((item, hashes.join(", ")));
            }
        }
        let controlnets: Vec<_> = (0..)
            .zip(self.controlnets)
            .map(|(index, unit)| (format!("ControlNet {index}"), controlnet(unit)))
            .collect();
        items.extend(controlnets.iter().map(|(name, unit)| (name.as_str(), unit.clone())));
        items.push(("Version", concat!("stablehand ", env!("CARGO_PKG_VERSION")).to_owned()));

        let mut text = self.prompt.to_owned();
        // Other programs read LoRAs as tags in the prompt only.
        for lora in self.loras.iter().filter(|lora| lora.origin == LoraOrigin::Field) {
            let _ = write!(text, " <lora:{}:{}>", lora.name, lora.unet);
        }
        if !self.negative_prompt.is_empty() {
            let _ = write!(text, "\nNegative prompt: {}", self.negative_prompt);
        }
        let items: Vec<String> =
            items.into_iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
        let _ = write!(text, "\n{}", items.join(", "));
        text.trim().to_owned()
    }
}

/// A ControlNet in the words of A1111's extension (`internal_controlnet/external_code.py`).
fn controlnet(unit: &ControlUnit) -> String {
    let mut text = format!(
        "Module: {}, Model: {}, Weight: {}, Resize Mode: {}",
        unit.preprocess.a1111_name(),
        unit.model,
        unit.weight,
        unit.resize.a1111_name()
    );
    let numbers =
        ["Threshold A", "Threshold B"].into_iter().zip(unit.thresholds).zip(unit.preprocess.thresholds());
    for ((name, number), _) in numbers.filter(|(_, taken)| taken.is_some()) {
        let _ = write!(text, ", {name}: {number}");
    }
    let _ = write!(
        text,
        ", Guidance Start: {}, Guidance End: {}, Pixel Perfect: True, Control Mode: {}",
        unit.start,
        unit.end,
        unit.mode.a1111_name()
    );
    text
}

/// A1111's words for a second pass. `Hires CFG Scale` is Forge's. A1111 has no second pass after a start from a picture,
/// which has a strength of its own.
fn second_pass(hires: &Hires, starts_from_picture: bool) -> Vec<(&'static str, String)> {
    let strength = if starts_from_picture { "Hires denoising strength" } else { "Denoising strength" };
    let mut items = vec![(strength, hires.strength.to_string())];
    items.push(match hires.enlarged {
        Enlarged::Scale(scale) => ("Hires upscale", scale.to_string()),
        Enlarged::Sides { width, height } => {
            ("Hires resize", format!("{}x{}", width.unwrap_or(0), height.unwrap_or(0)))
        }
    });
    let optional = [
        ("Hires steps", hires.steps.map(|steps| steps.to_string())),
        ("Hires CFG Scale", hires.guidance_scale.map(|scale| scale.to_string())),
        ("Hires upscaler", Some(hires.upscaler.a1111_name().to_owned())),
        ("Hires sampler", hires.scheduler.map(|(kind, _)| kind.a1111_name().to_owned())),
        (
            "Hires schedule type",
            hires.scheduler.and_then(|(_, spacing)| spacing).map(|spacing| spacing.a1111_name().to_owned()),
        ),
        ("Hires prompt", hires.prompt.clone()),
        ("Hires negative prompt", hires.negative_prompt.clone()),
    ];
    items.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    items
}

/// The text of a picture that was drawn at `drawn` and then enlarged to `size`. A text that says another size stays as it
/// is.
pub fn enlarged_infotext(text: &str, drawn: ImageSize, size: ImageSize) -> String {
    let shown = |size: ImageSize| format!("{}x{}", size.width, size.height);
    // The prompt may say anything; the items are in the last line.
    let (prompt, items) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
    let was = format!("Size: {},", shown(drawn));
    let (Some(at), Some(version)) = (items.find(&was), items.rfind("Version: ")) else {
        return text.to_owned();
    };
    let Some(after) = items.get(at + was.len()..version) else { return text.to_owned() };
    let before = &items[..at];
    // The model may have drawn smaller still.
    let drawn_at = if after.contains(" Drawn at: \"") {
        String::new()
    } else {
        format!("Drawn at: {}, ", quoted(format!("{}, enlarged", shown(drawn))))
    };
    format!("{prompt}{before}Size: {},{after}{drawn_at}{}", shown(size), &items[version..])
}

/// A value with characters that separate items is written as a JSON string.
fn quoted(value: String) -> String {
    if value.contains([',', ':', '\n']) { serde_json::Value::from(value).to_string() } else { value }
}

/// A1111's name for a number of the sampler.
fn sampling_item(name: &str) -> &'static str {
    match name {
        "s_churn" => "Sigma churn",
        "s_tmin" => "Sigma tmin",
        "s_tmax" => "Sigma tmax",
        "s_noise" => "Sigma noise",
        _ => "Eta",
    }
}

/// A1111's names. NV is Philox computed on the CPU, the same on every machine.
fn random_numbers(noise: NoiseSource) -> &'static str {
    match noise {
        NoiseSource::Cpu => "CPU",
        NoiseSource::Cuda => "NV",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Spacing;

    const LARGE: ImageSize = ImageSize { width: 512, height: 512 };

    fn parameters() -> Parameters<'static> {
        Parameters {
            prompt: "a red fox",
            negative_prompt: "",
            clip_skip: 1,
            steps: 20,
            scheduler: SchedulerKind::KLms,
            sampling: Sampling::default(),
            guidance_scale: 7.0,
            guidance_rescale: 0.0,
            guidance_end: 1.0,
            image_guidance_scale: None,
            seed: u64::MAX,
            noise: NoiseSource::Cpu,
            size: LARGE,
            drawn_at: LARGE,
            hires: None,
            strength: None,
            prompt_cut: None,
            model: "tiny-sd",
            not_read: &[],
            loras: &[],
            controlnets: &[],
            lora_hashes: &[],
            ti_hashes: &[],
            further: &[],
            lora_skipped: &[],
        }
    }

    #[test]
    fn a_picture_without_a_negative_prompt_has_two_lines() {
        assert_eq!(
            parameters().infotext(),
            "a red fox\nSteps: 20, Sampler: LMS, CFG scale: 7, Seed: 18446744073709551615, Size: 512x512, \
             Model: tiny-sd, RNG: CPU, Version: stablehand 0.1.0"
        );
    }

    #[test]
    fn an_enlarged_picture_says_so() {
        let drawn_at = ImageSize { width: 128, height: 128 };
        let (negative_prompt, strength) = ("blurry,\nbad", Some(0.8));
        let text = Parameters { negative_prompt, guidance_scale: 7.5, drawn_at, strength, ..parameters() };
        assert_eq!(
            text.infotext(),
            "a red fox\nNegative prompt: blurry,\nbad\nSteps: 20, Sampler: LMS, CFG scale: 7.5, \
             Seed: 18446744073709551615, Size: 512x512, Model: tiny-sd, RNG: CPU, Denoising strength: 0.8, Drawn at: \"128x128, enlarged\", \
             Version: stablehand 0.1.0"
        );
    }

    #[test]
    fn a_picture_that_is_enlarged_later_says_the_same() {
        let drawn = |size, drawn_at| Parameters {
            prompt: "Size: 512x512,\nVersion: x",
            size,
            drawn_at,
            ..parameters()
        };
        let (small, larger) = (ImageSize { width: 128, height: 128 }, ImageSize { width: 1328, height: 800 });
        let expected = drawn(larger, LARGE).infotext();
        assert_eq!(enlarged_infotext(&drawn(LARGE, LARGE).infotext(), LARGE, larger), expected);
        // What the model drew at is kept.
        let expected = drawn(larger, small).infotext();
        assert_eq!(enlarged_infotext(&drawn(LARGE, small).infotext(), LARGE, larger), expected);
        for text in ["", "a fox", "a fox\nSteps: 1, Size: 512x512", "\nVersion: 1, Size: 512x512, a"] {
            let enlarged = enlarged_infotext(text, LARGE, larger);
            assert!(enlarged == text || enlarged.contains("1328x800"), "{text}: {enlarged}");
        }
        assert_eq!(
            enlarged_infotext(&drawn(small, small).infotext(), LARGE, larger),
            drawn(small, small).infotext()
        );
    }

    #[test]
    fn settings_have_the_names_of_a1111() {
        let text = Parameters {
            scheduler: SchedulerKind::DpmM,
            sampling: Sampling { spacing: Some(Spacing::Karras), eta: Some(0.5), ..Sampling::default() },
            clip_skip: 2,
            guidance_rescale: 0.7,
            guidance_end: 0.8,
            noise: NoiseSource::Cuda,
            ..parameters()
        };
        assert_eq!(
            text.infotext(),
            "a red fox\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, \
             Seed: 18446744073709551615, Size: 512x512, Model: tiny-sd, Eta: 0.5, Clip skip: 2, CFG Rescale phi: 0.7, CFG end: 0.8, RNG: NV, \
             Version: stablehand 0.1.0"
        );
    }

    #[test]
    fn add_ons_have_the_names_of_a1111() {
        let lora = |name: &str, origin| Lora {
            name: name.to_owned(),
            unet: 0.5,
            text_encoder: 0.5,
            blocks: None,
            origin,
        };
        let hashes = |name: &str| vec![(name.to_owned(), "0123456789ab".to_owned())];
        let text = Parameters {
            prompt: "a fox <lora:ink:0.5>",
            loras: &[lora("fur", LoraOrigin::Field), lora("ink", LoraOrigin::Prompt)],
            lora_hashes: &[hashes("fur"), hashes("ink")].concat(),
            ti_hashes: &hashes("bad"),
            lora_skipped: &[("ink".to_owned(), "3 of 264 modules (a, b, c)".to_owned())],
            ..parameters()
        };
        assert_eq!(
            text.infotext(),
            "a fox <lora:ink:0.5> <lora:fur:0.5>\nSteps: 20, Sampler: LMS, CFG scale: 7, \
             Seed: 18446744073709551615, Size: 512x512, Model: tiny-sd, RNG: CPU, \
             Lora hashes: \"fur: 0123456789ab, ink: 0123456789ab\", TI hashes: \"bad: 0123456789ab\", \
             Lora skipped: \"ink: 3 of 264 modules (a, b, c)\", \
             Version: stablehand 0.1.0"
        );
    }

    #[test]
    fn a_value_with_separators_is_quoted() {
        let text = Parameters { prompt: "", model: "C:\\models, \"mine\"\n日本", ..parameters() }.infotext();
        assert!(text.starts_with("Steps: 20, "));
        assert!(text.contains(r#", Model: "C:\\models, \"mine\"\n日本", RNG: CPU, Version: "#), "{text}");
    }
}
