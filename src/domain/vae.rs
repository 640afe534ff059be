//! Which decoder makes pixels of a drawing.

use std::fmt::Debug;

use serde::Deserialize;

/// The decoder of a request's pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vae {
    /// The model's own.
    #[default]
    Full,
    /// A tiny one, which was trained to give nearly the same pictures (TAESD's architecture).
    Tiny,
}

impl Vae {
    pub const ALL: [Self; 2] = [Self::Full, Self::Tiny];

    /// The name that requests have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Tiny => "tiny",
        }
    }
}

/// Knows whether a model has a tiny VAE.
pub trait TinyVaeShelf: Debug + Send + Sync {
    /// Fails with the end of a sentence that says why there is none.
    fn check(&self) -> Result<(), String>;
}

/// `config.json` of a tiny VAE in diffusers' layout.
#[derive(Debug, Default, Deserialize)]
pub struct TinyVaeConfig {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    latent_channels: Option<u32>,
}

impl TinyVaeConfig {
    /// Why it cannot be used with Stable Diffusion v1. None if it can.
    pub fn fault(&self) -> Option<String> {
        let class = self.class_name.as_deref().unwrap_or("AutoencoderTiny");
        if class != "AutoencoderTiny" {
            let class: String = class.chars().take(80).collect();
            return Some(format!(
                "it is a {class} according to its config.json; only an AutoencoderTiny can be used"
            ));
        }
        let channels = self.latent_channels.filter(|channels| *channels != 4)?;
        Some(format!("it decodes latents of {channels} channels; Stable Diffusion v1's have 4"))
    }
}
