//! Block weights: how much of a LoRA goes into each block of the model, as A1111's extension "`LoRA` Block Weight" has them.
//!
//! There are 26 blocks: the text encoder (BASE), twelve input blocks (IN00 to IN11), the middle block (M00) and twelve
//! output blocks (OUT00 to OUT11) of the UNet. A tag in the prompt has a number for each of them, or for the 17 that plain
//! LoRAs change; the others are then 0 (`scripts/lora_block_weight.py` of hako-mikan's sd-webui-lora-block-weight).

use super::lora::{Lora, MAX_LORA_SCALE};
use super::model_part::ModelPart;

const BLOCKS: usize = 26;
const MIDDLE: usize = 13;

/// The blocks for which a list of 17 has numbers.
const SHORT: [usize; 17] = [0, 2, 3, 5, 6, 8, 9, 13, 17, 18, 19, 20, 21, 22, 23, 24, 25];

/// The extension's presets, each with a digit for each of the 17 blocks.
const PRESETS: [(&str, &str); 9] = [
    ("NONE", "00000000000000000"),
    ("ALL", "11111111111111111"),
    ("INS", "11110000000000000"),
    ("IND", "10001110000000000"),
    ("INALL", "11111110000000000"),
    ("MIDD", "10001111111100000"),
    ("OUTD", "10000000111100000"),
    ("OUTS", "10000000000011111"),
    ("OUTALL", "10000000111111111"),
];

/// A place in the model that block weights tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraBlock {
    /// The layers of the text encoder.
    TextEncoder,
    In(usize),
    Middle,
    Out(usize),
    /// In no block. Block weights do not change it.
    Other,
}

/// A factor for each block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockWeights([f32; BLOCKS]);

/// The scales of a LoRA, for each block and for what is in none. Those of the same LoRA named twice add up.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoraScales {
    blocks: [f32; BLOCKS],
    other_text: f32,
    other_unet: f32,
}

impl LoraBlock {
    fn index(self) -> Option<usize> {
        match self {
            Self::TextEncoder => Some(0),
            Self::In(number) if number < 12 => Some(1 + number),
            Self::Middle => Some(MIDDLE),
            Self::Out(number) if number < 12 => Some(MIDDLE + 1 + number),
            Self::In(_) | Self::Out(_) | Self::Other => None,
        }
    }

    /// By the extension's name for it, such as `IN02`.
    fn named(name: &str) -> Option<Self> {
        let number = |start: &str| name.strip_prefix(start).filter(|n| n.len() == 2)?.parse::<usize>().ok();
        let found = match name {
            "BASE" => Self::TextEncoder,
            "M00" | "MID" => Self::Middle,
            _ => number("IN").map(Self::In).or_else(|| number("OUT").map(Self::Out))?,
        };
        found.index().map(|_| found)
    }
}

impl BlockWeights {
    /// Reads a list of 17 or 26 numbers, a preset, or one block's name, which means that block and the text encoder. The
    /// error is the end of a sentence that begins with the tag.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains(',') {
            return Self::from_list(text);
        }
        let name = text.to_ascii_uppercase();
        if let Some((_, digits)) = PRESETS.iter().find(|(preset, _)| *preset == name) {
            let weights: Vec<f32> = digits.bytes().map(|digit| f32::from(digit - b'0')).collect();
            return Ok(Self::from_short(&weights));
        }
        if name == "ALL0.5" {
            return Ok(Self::from_short(&[0.5; 17]));
        }
        if let Some(index) = LoraBlock::named(&name).and_then(LoraBlock::index) {
            let mut weights = [0.0; BLOCKS];
            (weights[0], weights[index]) = (1.0, 1.0);
            return Ok(Self(weights));
        }
        let presets: Vec<&str> = PRESETS.iter().map(|(preset, _)| *preset).collect();
        Err(format!(
            "has the unknown block weights {}; use 17 or 26 numbers, a block such as IN02, or one of {}.",
            text.chars().take(32).collect::<String>(),
            presets.join(", ")
        ))
    }

    fn from_list(text: &str) -> Result<Self, String> {
        let numbers: Vec<&str> = text.split(',').map(str::trim).collect();
        if numbers.len() != SHORT.len() && numbers.len() != BLOCKS {
            return Err(format!(
                "has {} block weights; Stable Diffusion v1 takes 17 or 26 of them.",
                numbers.len()
            ));
        }
        let read = |number: &&str| match number.parse::<f32>() {
            Ok(weight) if weight.abs() <= MAX_LORA_SCALE => Ok(weight),
            _ if matches!(*number, "R" | "U") => {
                Err(format!("has the random block weight {number}; write a number instead."))
            }
            _ => Err(format!(
                "has the block weight {}, which is not a number from -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}.",
                number.chars().take(32).collect::<String>()
            )),
        };
        let weights = numbers.iter().map(read).collect::<Result<Vec<f32>, _>>()?;
        match <[f32; BLOCKS]>::try_from(weights.as_slice()) {
            Ok(weights) => Ok(Self(weights)),
            Err(_) => Ok(Self::from_short(&weights)),
        }
    }

    fn from_short(short: &[f32]) -> Self {
        let mut weights = [0.0; BLOCKS];
        for (index, weight) in SHORT.iter().zip(short) {
            weights[*index] = *weight;
        }
        Self(weights)
    }
}

impl LoraScales {
    /// Adds those of a LoRA in a request.
    pub fn add(&mut self, lora: &Lora) {
        for (index, scale) in self.blocks.iter_mut().enumerate() {
            let weight = lora.blocks.map_or(1.0, |weights| weights.0[index]);
            *scale += weight * if index == 0 { lora.text_encoder } else { lora.unet };
        }
        self.other_text += lora.text_encoder;
        self.other_unet += lora.unet;
    }

    /// The scale in a block of `part`.
    pub fn of(&self, block: LoraBlock, part: ModelPart) -> f32 {
        match (block.index(), part) {
            (Some(index), _) => self.blocks[index],
            (None, ModelPart::TextEncoder) => self.other_text,
            (None, _) => self.other_unet,
        }
    }

    /// Whether it leaves the model as it is.
    pub fn is_zero(&self) -> bool {
        self.all().all(|scale| scale == 0.0)
    }

    /// Equal for equal scales only.
    pub fn key(&self) -> Vec<u32> {
        self.all().map(f32::to_bits).collect()
    }

    fn all(&self) -> impl Iterator<Item = f32> {
        self.blocks.iter().copied().chain([self.other_text, self.other_unet])
    }
}

#[cfg(test)]
mod tests {
    use super::super::lora::LoraOrigin;
    use super::*;

    fn scales(blocks: &str) -> LoraScales {
        let mut scales = LoraScales::default();
        scales.add(&Lora {
            name: String::new(),
            unet: 1.0,
            text_encoder: 1.0,
            blocks: Some(BlockWeights::parse(blocks).unwrap()),
            origin: LoraOrigin::Prompt,
        });
        scales
    }

    /// The blocks whose scale is not 0.
    fn on(blocks: &str) -> Vec<usize> {
        let scales = scales(blocks);
        (0..BLOCKS).filter(|index| scales.blocks[*index] != 0.0).collect()
    }

    #[test]
    fn presets_mean_the_same_as_in_the_extension() {
        // BASE, IN01, IN02, IN04, IN05, IN07, IN08, M00, OUT03 to OUT11.
        for (preset, blocks) in [
            ("NONE", &[][..]),
            ("ALL", &SHORT),
            ("INS", &[0, 2, 3, 5]),
            ("IND", &[0, 6, 8, 9]),
            ("INALL", &[0, 2, 3, 5, 6, 8, 9]),
            ("MIDD", &[0, 6, 8, 9, 13, 17, 18, 19, 20]),
            ("OUTD", &[0, 17, 18, 19, 20]),
            ("OUTS", &[0, 21, 22, 23, 24, 25]),
            ("outall", &[0, 17, 18, 19, 20, 21, 22, 23, 24, 25]),
            ("IN02", &[0, 3]),
            ("M00", &[0, 13]),
            ("OUT11", &[0, 25]),
            ("BASE", &[0]),
        ] {
            assert_eq!(on(preset), blocks, "{preset}");
        }
    }

    /// Exactly so: nothing was computed.
    fn is(scale: f32, expected: f32) -> bool {
        (scale - expected).abs() < f32::EPSILON
    }

    #[test]
    fn lists_have_a_number_for_each_block() {
        let short = scales("0.5,0,0,0,0,0,0,-1,0,0,0,0,0,0,0,0,2");
        assert!(is(short.of(LoraBlock::TextEncoder, ModelPart::TextEncoder), 0.5));
        let unet = |block| short.of(block, ModelPart::UNet);
        assert!(is(unet(LoraBlock::Middle), -1.0) && is(unet(LoraBlock::Out(11)), 2.0));
        assert!(is(unet(LoraBlock::In(0)), 0.0), "a block that plain LoRAs leave alone");
        assert!(is(unet(LoraBlock::Other), 1.0), "in no block");
        let long: Vec<String> = (0..26).map(|index| format!(" 0.{index:02}")).collect();
        let long = scales(&long.join(","));
        assert!(is(long.of(LoraBlock::In(0), ModelPart::UNet), 0.01));
        assert!(is(long.of(LoraBlock::Out(0), ModelPart::UNet), 0.14));
    }

    #[test]
    fn what_is_not_a_list_of_weights_is_refused() {
        for (text, sentence) in [
            ("1,2,3", "has 3 block weights; Stable Diffusion v1 takes 17 or 26 of them."),
            ("1,1,1,1,1,1,1,1,1,1,1,1", "has 12 block weights;"),
            ("R,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "has the random block weight R;"),
            (
                "99,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
                "has the block weight 99, which is not a number from -10 to 10.",
            ),
            ("IN12", "has the unknown block weights IN12; use 17 or 26 numbers, a block such as IN02,"),
            ("", "has the unknown block weights ;"),
        ] {
            let found = BlockWeights::parse(text).unwrap_err();
            assert!(found.starts_with(sentence), "{found}");
        }
    }

    #[test]
    fn the_same_lora_twice_adds_up() {
        let mut sum = scales("IN02");
        let lora = |unet, text_encoder| Lora {
            name: String::new(),
            unet,
            text_encoder,
            blocks: None,
            origin: LoraOrigin::Field,
        };
        sum.add(&lora(0.5, -1.0));
        assert!(is(sum.of(LoraBlock::In(2), ModelPart::UNet), 1.5));
        assert!(is(sum.of(LoraBlock::In(3), ModelPart::UNet), 0.5));
        assert!(is(sum.of(LoraBlock::TextEncoder, ModelPart::TextEncoder), 0.0));
        assert!(!sum.is_zero() && LoraScales::default().is_zero());
        assert_ne!(sum.key(), scales("IN02").key());
    }
}
