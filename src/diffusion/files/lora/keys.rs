//! The names that trainers give to a LoRA's tensors: which module each belongs to, and in which role.
//!
//! Supported are the names of kohya (`lora_unet_…_to_q.lora_down.weight`), `ComfyUI`
//! (`diffusion_model.….to_q.lora_down.weight`), PEFT (`unet.….to_q.lora_A.weight`) and older diffusers
//! (`unet.….processor.to_q_lora.down.weight`, `….lora_linear_layer.up.weight`).

/// The role of a tensor in its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// From the module's input to the rank.
    Down,
    /// From the rank to the module's output.
    Up,
    /// Between the two, where a convolution is split into three (CP, Tucker).
    Mid,
    /// The product is multiplied by alpha and divided by the rank.
    Alpha,
    /// Multiplies the product in the place of alpha divided by the rank, as in A1111.
    Scale,
    /// Multiplies the product as well, as in LyCORIS.
    Scalar,
}

/// A parsed tensor name.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    Lora {
        module: String,
        role: Role,
    },
    /// The tensor belongs to another kind of add-on, which has this name.
    Foreign(&'static str),
    Unknown,
}

impl Key {
    pub fn read(name: &str) -> Self {
        if let Some(kind) = foreign(name) {
            return Self::Foreign(kind);
        }
        let numbers = [(".alpha", Role::Alpha), (".scale", Role::Scale), (".scalar", Role::Scalar)];
        let number = numbers.into_iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, role)));
        let taken = number.or_else(|| name.strip_suffix(".weight").and_then(matrix));
        taken.map_or(Self::Unknown, |(module, role)| Self::Lora { module: plain(module), role })
    }
}

/// The module and the role of one of its matrices. `name` has no `.weight` at its end.
fn matrix(name: &str) -> Option<(&str, Role)> {
    let (module, last) = name.rsplit_once('.')?;
    let role = |word: &str| match word {
        "lora_down" | "lora_A" => Some(Role::Down),
        "lora_up" | "lora_B" => Some(Role::Up),
        "lora_mid" => Some(Role::Mid),
        _ => None,
    };
    if let Some(role) = role(last) {
        return Some((module, role));
    }
    let role_of_old = match last {
        "down" => Some(Role::Down),
        "up" => Some(Role::Up),
        _ => None,
    };
    if let Some(role) = role_of_old {
        let ends = [".lora", "_lora", ".lora_linear_layer", ".lora_conv_layer"];
        return ends.iter().find_map(|end| module.strip_suffix(end)).map(|module| (module, role));
    }
    // PEFT names its adapters: `to_q.lora_A.default.weight`.
    let (module, word) = module.rsplit_once('.')?;
    role(word).filter(|role| *role != Role::Mid).map(|role| (module, role))
}

/// A module's name without the additions of wrappers.
fn plain(module: &str) -> String {
    module.replace("base_model.model.", "").replace(".processor.", ".")
}

/// Other kinds of add-ons in the same file format. Skipping their tensors would silently draw another picture.
fn foreign(name: &str) -> Option<&'static str> {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    Some(if has(&[".dora_scale", ".lora_magnitude_vector"]) {
        "DoRA"
    } else if has(&[".hada_w1", ".hada_w2", ".hada_t1", ".hada_t2"]) {
        "LoHa"
    } else if has(&[".lokr_w1", ".lokr_w2", ".lokr_t2"]) {
        "LoKr"
    } else if has(&[".oft_", ".boft_"]) {
        "OFT"
    } else if has(&[".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight"]) {
        "GLoRA"
    } else if has(&[".on_input"]) {
        "IA3"
    } else if [".diff", ".diff_b", ".w_norm", ".b_norm"].iter().any(|end| name.ends_with(end)) {
        "whole weights' differences (LyCORIS' full or norm)"
    } else if has(&[".lora_embedding_"]) {
        "a LoRA of an embedding table"
    } else if name.strip_suffix(".bias").is_some()
        && has(&[".lora_A.", ".lora_B.", ".lora_up.", ".lora_down."])
    {
        "a LoRA with biases"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lora(module: &str, role: Role) -> Key {
        Key::Lora { module: module.to_owned(), role }
    }

    #[test]
    fn the_names_of_every_trainer_are_parsed() {
        for (name, module, role) in [
            ("lora_unet_mid_block_a_to_q.lora_down.weight", "lora_unet_mid_block_a_to_q", Role::Down),
            ("lora_unet_mid_block_a_to_q.lora_up.weight", "lora_unet_mid_block_a_to_q", Role::Up),
            ("lora_unet_conv_in.lora_mid.weight", "lora_unet_conv_in", Role::Mid),
            ("lora_te_text_model_x.alpha", "lora_te_text_model_x", Role::Alpha),
            ("lora_unet_conv_in.scale", "lora_unet_conv_in", Role::Scale),
            ("lora_unet_conv_in.scalar", "lora_unet_conv_in", Role::Scalar),
            ("diffusion_model.a.to_q.lora_up.weight", "diffusion_model.a.to_q", Role::Up),
            ("unet.a.to_q.lora_A.weight", "unet.a.to_q", Role::Down),
            ("unet.a.to_q.lora_B.default.weight", "unet.a.to_q", Role::Up),
            ("base_model.model.a.to_q.lora_A.weight", "a.to_q", Role::Down),
            ("unet.base_model.model.a.to_q.lora_A.weight", "unet.a.to_q", Role::Down),
            ("unet.a.attn1.processor.to_q_lora.down.weight", "unet.a.attn1.to_q", Role::Down),
            ("unet.a.attn1.to_q.lora.up.weight", "unet.a.attn1.to_q", Role::Up),
            ("text_encoder.t.q_proj.lora_linear_layer.up.weight", "text_encoder.t.q_proj", Role::Up),
        ] {
            assert_eq!(Key::read(name), lora(module, role), "{name}");
        }
    }

    #[test]
    fn other_kinds_of_add_ons_are_recognised() {
        for (name, kind) in [
            ("lora_unet_x.dora_scale", "DoRA"),
            ("unet.x.lora_magnitude_vector.weight", "DoRA"),
            ("lora_unet_x.hada_w1_a", "LoHa"),
            ("lora_unet_x.lokr_w2", "LoKr"),
            ("lora_unet_x.oft_blocks", "OFT"),
            ("lora_unet_x.a1.weight", "GLoRA"),
            ("lora_unet_x.on_input", "IA3"),
            ("unet.x.lora_B.bias", "a LoRA with biases"),
        ] {
            assert_eq!(Key::read(name), Key::Foreign(kind));
        }
    }

    #[test]
    fn other_names_are_unknown() {
        for name in [
            "",
            ".",
            "weight",
            ".weight",
            "a.weight",
            "down.weight",
            "a.down.weight",
            "emb_params",
            "a.lora_mid.x.weight",
        ] {
            assert_eq!(Key::read(name), Key::Unknown, "{name}");
        }
    }
}
