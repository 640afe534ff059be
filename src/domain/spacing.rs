//! How the steps of a schedule are spaced: the names that clients send.
//!
//! The table below is the only list of them. `diffusion::schedulers` has the formulas.

use std::fmt;

use super::scheduler::bare;

/// Declares [`Spacing`] and its names, so that a spacing is one line.
macro_rules! spacings {
    ($($(#[$doc:meta])* $spacing:ident { name: $name:literal, a1111: $a1111:literal, aliases: $aliases:expr })*) => {
        /// How the steps of a schedule are spaced: `ComfyUI`'s `scheduler`, A1111's "Schedule type".
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Spacing {
            $($(#[$doc])* $spacing,)*
        }

        impl Spacing {
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$spacing),*];

            /// Its name in requests.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$spacing => $name,)* }
            }

            /// A1111's label, which its pictures carry; our own where A1111 has none.
            pub fn a1111_name(self) -> &'static str {
                match self { $(Self::$spacing => $a1111,)* }
            }

            fn aliases(self) -> &'static [&'static str] {
                match self { $(Self::$spacing => &$aliases,)* }
            }
        }
    };
}

#[rustfmt::skip] // a spacing is a line
spacings! {
    Karras { name: "karras", a1111: "Karras", aliases: ["ka"] }
    Exponential { name: "exponential", a1111: "Exponential", aliases: [] }
    Polyexponential { name: "polyexponential", a1111: "Polyexponential", aliases: [] }
    SgmUniform { name: "sgm_uniform", a1111: "SGM Uniform", aliases: [] }
    Simple { name: "simple", a1111: "Simple", aliases: [] }
    Normal { name: "normal", a1111: "Normal", aliases: [] }
    DdimUniform { name: "ddim_uniform", a1111: "DDIM", aliases: [] }
    Beta { name: "beta", a1111: "Beta", aliases: [] }
    AlignYourSteps { name: "align_your_steps", a1111: "Align Your Steps", aliases: ["ays"] }
    KlOptimal { name: "kl_optimal", a1111: "KL Optimal", aliases: [] }
    Uniform { name: "uniform", a1111: "Uniform", aliases: [] }
    Linspace { name: "linspace", a1111: "Linspace", aliases: [] }
    Leading { name: "leading", a1111: "Leading", aliases: [] }
    Trailing { name: "trailing", a1111: "Trailing", aliases: [] }
}

impl Spacing {
    /// Whether it picks training timesteps, as `timestep_spacing` of diffusers does. The others lay sigmas.
    pub fn picks_timesteps(self) -> bool {
        matches!(self, Self::Linspace | Self::Leading | Self::Trailing)
    }

    /// The spacing that a client's name means: ours or A1111's. Case, spaces, hyphens and underscores do not matter.
    pub fn parse(name: &str) -> Option<Self> {
        let name = bare(name);
        Self::ALL.into_iter().find(|spacing| spacing.names().any(|known| known == name))
    }

    /// A name that ends in a spacing's name, as A1111 writes it: what stands before, and each spacing that it may mean.
    pub(super) fn endings(bare_name: &str) -> impl Iterator<Item = (&str, Self)> {
        Self::ALL.into_iter().flat_map(move |spacing| {
            spacing
                .names()
                .filter_map(move |ending| Some((bare_name.strip_suffix(ending.as_str())?, spacing)))
        })
    }

    /// All its names, as [`bare`] leaves them.
    fn names(self) -> impl Iterator<Item = String> {
        [self.as_str(), self.a1111_name()].into_iter().chain(self.aliases().iter().copied()).map(bare)
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_spacing() {
        for spacing in Spacing::ALL {
            for name in [spacing.as_str(), spacing.a1111_name()].iter().chain(spacing.aliases()) {
                assert_eq!(Spacing::parse(name), Some(spacing), "{name}");
            }
        }
        for (name, spacing) in [
            ("SGMUniform", Spacing::SgmUniform),
            ("ddim", Spacing::DdimUniform),
            ("KL-optimal", Spacing::KlOptimal),
            ("KARRAS", Spacing::Karras),
        ] {
            assert_eq!(Spacing::parse(name), Some(spacing), "{name}");
        }
        for name in ["", "automatic", "karras exponential", "random"] {
            assert_eq!(Spacing::parse(name), None, "{name}");
        }
    }
}
