//! The schedulers by the names that clients send, and what each can do.
//!
//! The table below is the only list of them. Requests, error sentences, the OpenAPI document and the text in PNG
//! files read it. A new scheduler is one line here, and one file in `diffusion::schedulers`, which says how.

use std::fmt;

use super::Spacing;

/// Declares [`SchedulerKind`] and the facts about each, so that a scheduler is one line.
///
/// - `a1111`: A1111's name, which its web page shows and its pictures carry; our own name where A1111 has none
/// - `spacings`: which spacings it takes
/// - `options`: the numbers of a request that its formula has
/// - `from_image`: whether it can start from a picture
/// - `aliases`: further names, as people write them; diffusers' classes without "Scheduler"
macro_rules! schedulers {
    ($($(#[$doc:meta])* $kind:ident {
        name: $name:literal, a1111: $a1111:literal, spacings: $spacings:ident, options: $options:expr,
        from_image: $from_image:literal, aliases: $aliases:expr
    })*) => {
        /// A denoising scheduler, named as the hosted worker named it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum SchedulerKind {
            $($(#[$doc])* $kind,)*
        }

        impl SchedulerKind {
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$kind),*];

            fn facts(self) -> Facts {
                match self {
                    $(Self::$kind => Facts {
                        name: $name,
                        a1111: $a1111,
                        spacings: Spacings::$spacings,
                        options: $options,
                        from_image: $from_image,
                        aliases: &$aliases,
                    },)*
                }
            }
        }
    };
}

/// The options of Karras et al.'s stochastic samplers, beside `s_noise`.
const CHURN: &[&str] = &["s_churn", "s_tmin", "s_tmax", "s_noise"];
/// Those of samplers that add noise at every step.
const ETA: &[&str] = &["eta", "s_noise"];

#[rustfmt::skip] // a scheduler is a line
schedulers! {
    Ddim { name: "DDIM", a1111: "DDIM", spacings: Timesteps, options: &["eta"], from_image: true, aliases: [] }
    Ddpm { name: "DDPM", a1111: "DDPM", spacings: Timesteps, options: &[], from_image: true, aliases: [] }
    Deis { name: "DEIS", a1111: "DEIS", spacings: All, options: &[], from_image: true, aliases: ["DEISMultistep"] }
    Dpm2SA { name: "DPM-2S-A", a1111: "DPM++ 2S a", spacings: All, options: ETA, from_image: true, aliases: ["K_DPMPP_2S_A", "DPMPP_2S_Ancestral", "K_DPMPP_2S_Ancestral"] }
    Dpm3MSde { name: "DPM-3M-SDE", a1111: "DPM++ 3M SDE", spacings: All, options: ETA, from_image: true, aliases: ["K_DPMPP_3M_SDE", "DPMPP_3M_SDE", "DPMPP_3M_SDE_GPU"] }
    DpmM { name: "DPM-M", a1111: "DPM++ 2M", spacings: All, options: &[], from_image: true, aliases: ["DPMSolverMultistep", "DPMPP_2M", "K_DPMPP_2M"] }
    DpmMSde { name: "DPM-M-SDE", a1111: "DPM++ 2M SDE", spacings: All, options: ETA, from_image: true, aliases: ["K_DPMPP_2M_SDE", "DPMPP_2M_SDE", "DPMPP_2M_SDE_GPU"] }
    /// DPM-M-SDE with Heun's rule in place of the midpoint rule.
    DpmMSdeHeun { name: "DPM-M-SDE-HEUN", a1111: "DPM++ 2M SDE Heun", spacings: All, options: ETA, from_image: true, aliases: ["K_DPMPP_2M_SDE_HEUN", "DPMPP_2M_SDE_HEUN", "DPMPP_2M_SDE_HEUN_GPU"] }
    DpmS { name: "DPM-S", a1111: "DPM-S", spacings: All, options: &[], from_image: true, aliases: ["DPMSolverSinglestep", "DPM++ 2S", "DPMPP_2S"] }
    DpmSde { name: "DPM-SDE", a1111: "DPM++ SDE", spacings: All, options: ETA, from_image: true, aliases: ["DPMSolverSDE", "DPMPP_SDE", "K_DPMPP_SDE", "DPMPP_SDE_GPU"] }
    EulerA { name: "EULER-A", a1111: "Euler a", spacings: All, options: ETA, from_image: true, aliases: ["K_EULER_A", "K_EULER_ANCESTRAL", "EulerAncestral", "EulerAncestralDiscrete"] }
    EulerD { name: "EULER-D", a1111: "Euler", spacings: All, options: CHURN, from_image: true, aliases: ["K_EULER", "EulerDiscrete"] }
    Heun { name: "HEUN", a1111: "Heun", spacings: All, options: CHURN, from_image: true, aliases: ["K_HEUN", "HeunDiscrete"] }
    Ipndm { name: "IPNDM", a1111: "IPNDM", spacings: None, options: &[], from_image: false, aliases: [] }
    Kdpm2A { name: "KDPM2-A", a1111: "DPM2 a", spacings: All, options: ETA, from_image: true, aliases: ["KDPM2Ancestral", "KDPM2AncestralDiscrete", "DPM_2_Ancestral", "K_DPM_2_Ancestral"] }
    Kdpm2D { name: "KDPM2-D", a1111: "DPM2", spacings: All, options: CHURN, from_image: true, aliases: ["KDPM2", "KDPM2Discrete"] }
    KLms { name: "K-LMS", a1111: "LMS", spacings: All, options: &[], from_image: true, aliases: ["KLMS", "LMSDiscrete"] }
    /// For latent consistency models.
    Lcm { name: "LCM", a1111: "LCM", spacings: All, options: &[], from_image: true, aliases: ["K_LCM"] }
    Pndm { name: "PNDM", a1111: "PLMS", spacings: Timesteps, options: &[], from_image: true, aliases: [] }
    /// For models and LoRAs of trajectory consistency distillation.
    Tcd { name: "TCD", a1111: "TCD", spacings: None, options: &["eta"], from_image: true, aliases: [] }
    UniPc { name: "UNIPC", a1111: "UniPC", spacings: All, options: &[], from_image: true, aliases: ["UniPCMultistep"] }
}

/// A line of the table.
struct Facts {
    name: &'static str,
    a1111: &'static str,
    spacings: Spacings,
    options: &'static [&'static str],
    from_image: bool,
    aliases: &'static [&'static str],
}

/// The spacings that a scheduler takes.
#[derive(Clone, Copy)]
enum Spacings {
    All,
    /// Those that pick training timesteps: it steps from one to another.
    Timesteps,
    /// It has its own.
    None,
}

impl SchedulerKind {
    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        self.facts().name
    }

    /// Further names that a client may use, beside the contract's and A1111's.
    pub fn aliases(self) -> &'static [&'static str] {
        self.facts().aliases
    }

    /// The name that A1111 has for it; its own name where A1111 has none.
    pub fn a1111_name(self) -> &'static str {
        self.facts().a1111
    }

    /// Whether it can start from a picture. IPNDM cannot: it defines no way to add noise to one.
    pub fn starts_from_image(self) -> bool {
        self.facts().from_image
    }

    /// Whether its steps can be spaced so.
    pub fn takes(self, spacing: Spacing) -> bool {
        match self.facts().spacings {
            Spacings::All => true,
            Spacings::Timesteps => spacing.picks_timesteps(),
            Spacings::None => false,
        }
    }

    /// Why its steps cannot be spaced so, if they cannot: the end of a sentence that begins with its name.
    pub fn refuses(self, spacing: Spacing) -> Option<String> {
        if self.takes(spacing) {
            return None;
        }
        let fitting = Spacing::ALL.into_iter().filter(|other| self.takes(*other));
        let fitting = fitting.map(Spacing::as_str).collect::<Vec<_>>().join(", ");
        Some(match fitting.as_str() {
            "" => "spaces its steps in its own way, and takes no spacing".to_owned(),
            fitting => format!("does not take the spacing {spacing}; choose one of {fitting}"),
        })
    }

    /// Whether its formula has a number of a request: `eta`, `s_churn`, `s_tmin`, `s_tmax` or `s_noise`.
    pub fn has_option(self, name: &str) -> bool {
        self.facts().options.contains(&name)
    }

    /// The scheduler that a client's name means, and the spacing that the name asks for. It accepts the contract's names
    /// and aliases, A1111's names (`DPM++ 2M Karras`, `Euler a`, `k_lms_ka`) and diffusers' classes
    /// (`EulerDiscreteScheduler`). Case, spaces, hyphens and underscores do not matter.
    pub fn parse(name: &str) -> Option<(Self, Option<Spacing>)> {
        let name = bare(name);
        let plain = |name: &str| {
            let name = name.strip_suffix("scheduler").unwrap_or(name);
            Self::ALL.into_iter().find(|kind| kind.is_called(name))
        };
        if let Some(kind) = plain(&name) {
            return Some((kind, None));
        }
        Spacing::endings(&name).find_map(|(name, spacing)| Some((plain(name)?, Some(spacing))))
    }

    /// Whether `name` is one of its names, as [`bare`] leaves them.
    fn is_called(self, name: &str) -> bool {
        let facts = self.facts();
        let names = [facts.name, facts.a1111].into_iter().chain(facts.aliases.iter().copied());
        names.map(bare).any(|known| known == name)
    }
}

/// No name is longer.
const LONGEST_NAME: usize = 64;

/// A name in lower case, without spaces, hyphens and underscores.
pub(super) fn bare(name: &str) -> String {
    name.chars()
        .take(LONGEST_NAME)
        .filter(|c| !matches!(c, ' ' | '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_scheduler() {
        for kind in SchedulerKind::ALL {
            for name in [kind.as_str(), kind.a1111_name()].iter().chain(kind.aliases()) {
                assert_eq!(SchedulerKind::parse(name), Some((kind, None)), "{name}");
            }
            assert_eq!(SchedulerKind::parse(&format!("{kind} Karras")), Some((kind, Some(Spacing::Karras))));
        }
    }

    #[test]
    fn names_of_the_contract_a1111_and_diffusers_mean_the_same() {
        for (name, kind, spacing) in [
            ("KLMS", SchedulerKind::KLms, None),
            ("K_EULER", SchedulerKind::EulerD, None),
            ("K_EULER_ANCESTRAL", SchedulerKind::EulerA, None),
            ("DPMSolverMultistep", SchedulerKind::DpmM, None),
            ("DPM++ 2M", SchedulerKind::DpmM, None),
            ("DPM++ 2M Karras", SchedulerKind::DpmM, Some(Spacing::Karras)),
            ("k_dpmpp_2m_ka", SchedulerKind::DpmM, Some(Spacing::Karras)),
            ("DPM++ SDE Karras", SchedulerKind::DpmSde, Some(Spacing::Karras)),
            ("Euler a", SchedulerKind::EulerA, None),
            ("Euler", SchedulerKind::EulerD, None),
            ("euler", SchedulerKind::EulerD, None),
            ("LMS Karras", SchedulerKind::KLms, Some(Spacing::Karras)),
            ("LMS", SchedulerKind::KLms, None),
            ("k_lms_ka", SchedulerKind::KLms, Some(Spacing::Karras)),
            ("DPM2", SchedulerKind::Kdpm2D, None),
            ("DPM2 a Karras", SchedulerKind::Kdpm2A, Some(Spacing::Karras)),
            ("k_dpm_2_a", SchedulerKind::Kdpm2A, None),
            ("Heun", SchedulerKind::Heun, None),
            ("DDIM", SchedulerKind::Ddim, None),
            ("PLMS", SchedulerKind::Pndm, None),
            ("UniPC", SchedulerKind::UniPc, None),
            ("LCM", SchedulerKind::Lcm, None),
            ("EulerDiscreteScheduler", SchedulerKind::EulerD, None),
            ("EulerAncestralDiscreteScheduler", SchedulerKind::EulerA, None),
            ("LMSDiscreteScheduler", SchedulerKind::KLms, None),
            ("KDPM2AncestralDiscreteScheduler", SchedulerKind::Kdpm2A, None),
            ("UniPCMultistepScheduler", SchedulerKind::UniPc, None),
            ("DPMSolverSDEScheduler", SchedulerKind::DpmSde, None),
            ("DPM++ 2S a", SchedulerKind::Dpm2SA, None),
            ("dpmpp_2s_ancestral", SchedulerKind::Dpm2SA, None),
            ("DPM++ 2M SDE", SchedulerKind::DpmMSde, None),
            ("dpmpp_2m_sde_gpu", SchedulerKind::DpmMSde, None),
            ("k_dpmpp_2m_sde_ka", SchedulerKind::DpmMSde, Some(Spacing::Karras)),
            ("DPM++ 2M SDE Exponential", SchedulerKind::DpmMSde, Some(Spacing::Exponential)),
            ("DPM++ 2M SDE Heun Polyexponential", SchedulerKind::DpmMSdeHeun, Some(Spacing::Polyexponential)),
            ("DPM++ 2M SDE SGMUniform", SchedulerKind::DpmMSde, Some(Spacing::SgmUniform)),
            ("Euler Beta", SchedulerKind::EulerD, Some(Spacing::Beta)),
            ("Euler a Align Your Steps", SchedulerKind::EulerA, Some(Spacing::AlignYourSteps)),
            ("euler_ancestral", SchedulerKind::EulerA, None),
            ("dpm_2_ancestral", SchedulerKind::Kdpm2A, None),
        ] {
            assert_eq!(SchedulerKind::parse(name), Some((kind, spacing)), "{name}");
        }
        for name in [
            "",
            "Karras",
            "ka",
            "Scheduler",
            "DDIMM",
            "DPM",
            "DPM fast",
            "Euler Automatic",
            &"DDIM".repeat(1000),
        ] {
            assert_eq!(SchedulerKind::parse(name), None, "{name}");
        }
    }
}
