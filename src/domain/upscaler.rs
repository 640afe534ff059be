//! What enlarges a picture: a way to resize latents or pixels, or an upscaler model of the operator.

use std::fmt::Debug;

/// The longest name of an upscaler model, in bytes.
const LONGEST_NAME: usize = 256;
/// The most models that one sentence names.
const FEW: usize = 10;

/// What enlarges a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upscaler {
    /// Resizes the latents, as torch's `interpolate` does.
    Latent(LatentMode),
    /// Resizes the pixels.
    Pixels(PixelMode),
    /// A model in the operator's folder, by its name there.
    Model(String),
}

/// A mode of torch's `interpolate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentMode {
    Bilinear { antialias: bool },
    Bicubic { antialias: bool },
    Nearest,
    NearestExact,
}

/// A filter for pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelMode {
    Lanczos,
    Nearest,
    /// A1111's "None". It resizes by Lanczos as well.
    None,
}

/// The upscaler models that requests may name.
pub trait UpscalerShelf: Debug + Send + Sync {
    /// The name on the shelf of the model that `name` means, if there is one. The error is a sentence: there are several.
    fn find(&self, name: &str) -> Result<Option<String>, String>;
    /// The names of all models, sorted.
    fn names(&self) -> Vec<String>;
}

/// Our name and A1111's name of each upscaler that is no model.
const BUILT_IN: [(&str, &str, Upscaler); 9] = [
    ("latent", "Latent", Upscaler::Latent(LatentMode::Bilinear { antialias: false })),
    (
        "latent-antialiased",
        "Latent (antialiased)",
        Upscaler::Latent(LatentMode::Bilinear { antialias: true }),
    ),
    ("latent-bicubic", "Latent (bicubic)", Upscaler::Latent(LatentMode::Bicubic { antialias: false })),
    (
        "latent-bicubic-antialiased",
        "Latent (bicubic antialiased)",
        Upscaler::Latent(LatentMode::Bicubic { antialias: true }),
    ),
    ("latent-nearest", "Latent (nearest)", Upscaler::Latent(LatentMode::Nearest)),
    ("latent-nearest-exact", "Latent (nearest-exact)", Upscaler::Latent(LatentMode::NearestExact)),
    ("none", "None", Upscaler::Pixels(PixelMode::None)),
    ("lanczos", "Lanczos", Upscaler::Pixels(PixelMode::Lanczos)),
    ("nearest", "Nearest", Upscaler::Pixels(PixelMode::Nearest)),
];

impl Upscaler {
    /// A1111's default, and ours.
    pub const LATENT: Self = Self::Latent(LatentMode::Bilinear { antialias: false });
    pub const LANCZOS: Self = Self::Pixels(PixelMode::Lanczos);

    /// The names of those that need no model, as requests have them.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, ..)| *name)
    }

    /// The upscaler that `name` means: a built-in one by our name or A1111's, or a model on the shelf. The error is a
    /// sentence.
    pub fn parse(name: &str, shelf: Option<&dyn UpscalerShelf>) -> Result<Self, String> {
        Self::find(name, shelf)?.ok_or_else(|| unknown(name, shelf, |_| true))
    }

    /// The same for a picture that has no latents.
    pub fn parse_for_pixels(name: &str, shelf: Option<&dyn UpscalerShelf>) -> Result<Self, String> {
        match Self::find(name, shelf)? {
            Some(upscaler) if upscaler.is_latent() => {
                Err("It works on latents, and an upscaled picture has none; use another one.".to_owned())
            }
            found => found.ok_or_else(|| unknown(name, shelf, |upscaler| !upscaler.is_latent())),
        }
    }

    fn find(name: &str, shelf: Option<&dyn UpscalerShelf>) -> Result<Option<Self>, String> {
        let wanted = bare(name);
        if let Some((.., found)) =
            BUILT_IN.iter().find(|(ours, theirs, _)| bare(ours) == wanted || bare(theirs) == wanted)
        {
            return Ok(Some(found.clone()));
        }
        if name.trim().is_empty() {
            return Err("It names no upscaler.".to_owned());
        }
        if name.len() > LONGEST_NAME {
            return Err(format!("It has {} bytes; at most {LONGEST_NAME} are allowed.", name.len()));
        }
        Ok(shelf.map(|shelf| shelf.find(name.trim())).transpose()?.flatten().map(Self::Model))
    }

    /// The name that requests have for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Model(name) => name,
            built_in => names(built_in).0,
        }
    }

    /// The name that A1111 has for it.
    pub fn a1111_name(&self) -> &str {
        match self {
            Self::Model(name) => name,
            built_in => names(built_in).1,
        }
    }

    /// Whether it works on latents, without pixels.
    pub fn is_latent(&self) -> bool {
        matches!(self, Self::Latent(_))
    }
}

/// What to use in place of an unknown upscaler.
fn unknown(name: &str, shelf: Option<&dyn UpscalerShelf>, offered: impl Fn(&Upscaler) -> bool) -> String {
    let built_in =
        BUILT_IN.iter().filter(|(.., upscaler)| offered(upscaler)).map(|(ours, ..)| (*ours).to_owned());
    let models = shelf.map(UpscalerShelf::names).unwrap_or_default().into_iter().take(FEW);
    let names: Vec<_> = built_in.chain(models).collect();
    format!("There is no upscaler {name}; use one of {}.", names.join(", "))
}

fn names(built_in: &Upscaler) -> (&'static str, &'static str) {
    let found = BUILT_IN.iter().find(|(.., upscaler)| upscaler == built_in);
    found.map_or(("latent", "Latent"), |(ours, theirs, _)| (ours, theirs))
}

/// A name in lower case, its letters and digits only.
fn bare(name: &str) -> String {
    let letters = name.chars().take(LONGEST_NAME).filter(|c| c.is_alphanumeric());
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct OneModel;

    impl UpscalerShelf for OneModel {
        fn find(&self, name: &str) -> Result<Option<String>, String> {
            Ok((name == "4x-foolhardy").then(|| name.to_owned()))
        }

        fn names(&self) -> Vec<String> {
            vec!["4x-foolhardy".to_owned()]
        }
    }

    #[test]
    fn our_names_and_a1111_s_mean_the_same() {
        for (ours, theirs, upscaler) in &BUILT_IN {
            for name in [ours, theirs] {
                assert_eq!(Upscaler::parse(name, None).as_ref(), Ok(upscaler), "{name}");
            }
            assert_eq!((upscaler.as_str(), upscaler.a1111_name()), (*ours, *theirs));
        }
        assert_eq!(Upscaler::parse("latent", None), Ok(Upscaler::LATENT));
    }

    #[test]
    fn other_names_are_those_of_models() {
        let model = Upscaler::parse("4x-foolhardy", Some(&OneModel)).unwrap();
        assert_eq!(
            (model.as_str(), model.a1111_name(), model.is_latent()),
            ("4x-foolhardy", "4x-foolhardy", false)
        );
        let unknown = Upscaler::parse("ESRGAN_4x", Some(&OneModel)).unwrap_err();
        assert!(unknown.starts_with("There is no upscaler ESRGAN_4x; use one of latent, "), "{unknown}");
        assert!(unknown.ends_with(", lanczos, nearest, 4x-foolhardy."), "{unknown}");
        assert_eq!(
            Upscaler::parse_for_pixels("ESRGAN_4x", Some(&OneModel)).unwrap_err(),
            "There is no upscaler ESRGAN_4x; use one of none, lanczos, nearest, 4x-foolhardy."
        );
        assert!(
            Upscaler::parse("x", None)
                .unwrap_err()
                .starts_with("There is no upscaler x; use one of latent, ")
        );
        assert_eq!(Upscaler::parse(" ", Some(&OneModel)).unwrap_err(), "It names no upscaler.");
        assert!(Upscaler::parse(&"x".repeat(300), None).unwrap_err().contains("at most 256"));
    }
}
