//! The names that trainers give to a LoRA's tensors: which module each belongs to, and in which role.
//!
//! Supported are the names of kohya (`lora_unet_…_to_q.lora_down.weight`), `ComfyUI`
//! (`diffusion_model.….to_q.lora_down.weight`), PEFT (`unet.….to_q.lora_A.weight`), older diffusers
//! (`unet.….processor.to_q_lora.down.weight`, `….lora_linear_layer.up.weight`) and of the first trainer, which numbers
//! its modules (`unet:0:up`). LyCORIS adds the roles of its own kinds (`….hada_w1_a`) to kohya's module names.

use std::borrow::Cow;

use super::super::add_on_folder::composed;
use super::foreign::foreign;
use super::role::Role;
use crate::domain::ModelPart;

/// A parsed tensor name.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    Module {
        module: String,
        role: Role,
    },
    /// Of a module that the file tells by its number only.
    Numbered {
        part: ModelPart,
        number: usize,
        role: Role,
    },
    /// The vectors of a word for prompts.
    Word(String),
    /// The tensor belongs to a kind of add-on that cannot be merged. It has this name.
    Foreign(&'static str),
    Unknown,
}

/// What the names of tensors end with, and the role that it tells. The first that fits counts.
const ENDS: [(&str, Role); 56] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_mid.weight", Role::Mid),
    (".lora_up.bias", Role::UpBias),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora_conv_layer.down.weight", Role::Down),
    (".lora_conv_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora_embedding_A", Role::EmbeddingDown),
    (".lora_embedding_B", Role::EmbeddingUp),
    (".alpha", Role::Alpha),
    (".scale", Role::Scale),
    (".scalar", Role::Scalar),
    (".dora_scale", Role::DoraScale),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".hada_w1_a", Role::Hada1A),
    (".hada_w1_b", Role::Hada1B),
    (".hada_w2_a", Role::Hada2A),
    (".hada_w2_b", Role::Hada2B),
    (".hada_t1", Role::Hada1T),
    (".hada_t2", Role::Hada2T),
    (".lokr_w1", Role::Kron1),
    (".lokr_w1_a", Role::Kron1A),
    (".lokr_w1_b", Role::Kron1B),
    (".lokr_w2", Role::Kron2),
    (".lokr_w2_a", Role::Kron2A),
    (".lokr_w2_b", Role::Kron2B),
    (".lokr_t2", Role::Kron2T),
    (".a1.weight", Role::GloraA1),
    (".a2.weight", Role::GloraA2),
    (".b1.weight", Role::GloraB1),
    (".b2.weight", Role::GloraB2),
    (".bm.weight", Role::GloraBm),
    (".on_input", Role::OnInput),
    (".ia3_l", Role::Ia3),
    (".diff", Role::Diff),
    (".diff_b", Role::DiffBias),
    (".w_norm", Role::Diff),
    (".b_norm", Role::DiffBias),
    (".oft_blocks", Role::OftBlocks),
    (".oft_diag", Role::OftDiag),
    (".rescale", Role::Rescale),
    (".oft_R.weight", Role::PeftOft),
    (".boft_R", Role::PeftBoft),
    (".boft_s", Role::PeftBoftScale),
    // LyCORIS' (IA)³ has the plainest name of all.
    (".weight", Role::Channels),
    (":up", Role::Up),
    (":down", Role::Down),
];

/// PEFT puts an adapter's name behind these words, as in `to_q.lora_A.default.weight`.
const BEFORE_ADAPTER: [&str; 12] = [
    "lora_A",
    "lora_B",
    "lora_down",
    "lora_up",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "ia3_l",
    "oft_R",
    "boft_R",
    "boft_s",
    "hada_w1_a",
];

/// How the names of bundled textual inversions begin.
const BUNDLED: &str = "bundle_emb.";
/// What follows the word in them: A1111's old format, that of diffusers' scripts, A1111's new one.
const BUNDLED_ENDS: [&str; 3] = [".string_to_param.*", ".clip_l", ".emb_params"];

impl Key {
    pub fn read(name: &str) -> Self {
        if let Some(bundled) = name.strip_prefix(BUNDLED) {
            let word = BUNDLED_ENDS.iter().find_map(|end| bundled.strip_suffix(end));
            // diffusers names the vectors by the word once more.
            let word = word.or_else(|| bundled.split_once('.').map(|(word, _)| word));
            return match word {
                Some(word) if !word.is_empty() => Self::Word(composed(word).into_owned()),
                _ => Self::Unknown,
            };
        }
        if let Some(kind) = foreign(name) {
            return Self::Foreign(kind);
        }
        let name = without_adapter(name);
        let found = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)));
        match found {
            None | Some(("", _)) => Self::Unknown,
            Some((module, role)) if !name.contains(':') => Self::Module { module: plain(module), role },
            Some((module, role)) => numbered(module, role),
        }
    }
}

fn numbered(module: &str, role: Role) -> Key {
    let parsed = module.split_once(':').and_then(|(part, number)| {
        let part = ModelPart::ADAPTABLE.into_iter().find(|known| known.name() == part)?;
        Some((part, number.parse().ok()?))
    });
    parsed.map_or(Key::Unknown, |(part, number)| Key::Numbered { part, number, role })
}

/// The name without the name of PEFT's adapter.
fn without_adapter(name: &str) -> Cow<'_, str> {
    let words: Vec<&str> = name.split('.').collect();
    let is_adapter = |index: usize| {
        let after = words.get(index + 1).is_some_and(|next| !matches!(*next, "weight" | "bias"));
        after && (BEFORE_ADAPTER.contains(&words[index]) || is_lycoris_of_peft(words[index]))
    };
    match (0..words.len()).find(|index| is_adapter(*index)) {
        None => Cow::Borrowed(name),
        Some(index) => Cow::Owned([&words[..=index], &words[index + 2..]].concat().join(".")),
    }
}

fn is_lycoris_of_peft(word: &str) -> bool {
    word.starts_with("hada_") || word.starts_with("lokr_")
}

/// A module's name without the additions of wrappers.
fn plain(module: &str) -> String {
    module.replace("base_model.model.", "").replace(".processor.", ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(module: &str, role: Role) -> Key {
        Key::Module { module: module.to_owned(), role }
    }

    #[test]
    fn the_names_of_every_trainer_are_parsed() {
        for (name, path, role) in [
            ("lora_unet_mid_block_a_to_q.lora_down.weight", "lora_unet_mid_block_a_to_q", Role::Down),
            ("lora_unet_mid_block_a_to_q.lora_up.weight", "lora_unet_mid_block_a_to_q", Role::Up),
            ("lora_unet_conv_in.lora_mid.weight", "lora_unet_conv_in", Role::Mid),
            ("lora_te_text_model_x.alpha", "lora_te_text_model_x", Role::Alpha),
            ("lora_unet_conv_in.scale", "lora_unet_conv_in", Role::Scale),
            ("lora_unet_conv_in.scalar", "lora_unet_conv_in", Role::Scalar),
            ("diffusion_model.a.to_q.lora_up.weight", "diffusion_model.a.to_q", Role::Up),
            ("diffusion_model.a.to_q.diff_b", "diffusion_model.a.to_q", Role::DiffBias),
            ("unet.a.to_q.lora_A.weight", "unet.a.to_q", Role::Down),
            ("unet.a.to_q.lora_B.bias", "unet.a.to_q", Role::UpBias),
            ("unet.a.to_q.lora_B.default.weight", "unet.a.to_q", Role::Up),
            ("unet.a.to_q.lora_B.default.bias", "unet.a.to_q", Role::UpBias),
            ("unet.a.to_q.lora_magnitude_vector.default.weight", "unet.a.to_q", Role::Magnitude),
            ("unet.a.to_q.lora_magnitude_vector", "unet.a.to_q", Role::Magnitude),
            ("base_model.model.a.to_q.lora_A.weight", "a.to_q", Role::Down),
            ("unet.base_model.model.a.to_q.lora_A.weight", "unet.a.to_q", Role::Down),
            ("base_model.model.a.to_q.hada_w2_b", "a.to_q", Role::Hada2B),
            ("a.to_q.lokr_w2_a.default", "a.to_q", Role::Kron2A),
            ("base_model.model.a.to_q.ia3_l", "a.to_q", Role::Ia3),
            ("base_model.model.a.to_q.oft_R.weight", "a.to_q", Role::PeftOft),
            ("t.token_embedding.lora_embedding_A", "t.token_embedding", Role::EmbeddingDown),
            ("unet.a.attn1.processor.to_q_lora.down.weight", "unet.a.attn1.to_q", Role::Down),
            ("unet.a.attn1.to_q.lora.up.weight", "unet.a.attn1.to_q", Role::Up),
            ("text_encoder.t.q_proj.lora_linear_layer.up.weight", "text_encoder.t.q_proj", Role::Up),
            ("lora_unet_x.dora_scale", "lora_unet_x", Role::DoraScale),
            ("lora_unet_x.oft_blocks", "lora_unet_x", Role::OftBlocks),
            ("lora_unet_x.a1.weight", "lora_unet_x", Role::GloraA1),
            ("lora_unet_x.weight", "lora_unet_x", Role::Channels),
            ("lora_unet_x.w_norm", "lora_unet_x", Role::Diff),
        ] {
            assert_eq!(Key::read(name), module(path, role), "{name}");
        }
    }

    #[test]
    fn numbered_modules_and_bundled_words_are_parsed() {
        let numbered = |part, number, role| Key::Numbered { part, number, role };
        for (name, key) in [
            ("unet:0:up", numbered(ModelPart::UNet, 0, Role::Up)),
            ("text_encoder:31:down", numbered(ModelPart::TextEncoder, 31, Role::Down)),
            ("bundle_emb.fox.string_to_param.*", Key::Word("fox".to_owned())),
            ("bundle_emb.my fox.v2.clip_l", Key::Word("my fox.v2".to_owned())),
            ("bundle_emb.cafe\u{301}.emb_params", Key::Word("caf\u{e9}".to_owned())),
            ("bundle_emb.fox.<fox>", Key::Word("fox".to_owned())),
        ] {
            assert_eq!(Key::read(name), key, "{name}");
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in [
            "",
            ".",
            "weight",
            ".weight",
            "emb_params",
            "vae:0:up",
            "unet:x:up",
            "unet:0",
            ":up",
            "a.lora_mid.x.weigh",
            "bundle_emb.",
            "bundle_emb..clip_l",
        ] {
            assert_eq!(Key::read(name), Key::Unknown, "{name}");
        }
    }
}
