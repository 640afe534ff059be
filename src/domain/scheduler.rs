//! The schedulers by the names that clients send, and what each can do.
//!
//! The table below is the only list of them. Requests, error sentences, the OpenAPI document and the text in PNG
//! files read it. A new scheduler is one line here, and one file in `diffusion::schedulers`, which says how.

use std::fmt;

/// Declares [`SchedulerKind`] and the facts about each, so that a scheduler is one line.
///
/// - `a1111`: A1111's name, which its web page shows and its pictures carry; our own name where A1111 has none
/// - `karras`: whether it can space its sigmas as Karras et al. did
/// - `from_image`: whether it can start from a picture
/// - `aliases`: further names, as people write them; diffusers' classes without "Scheduler"
macro_rules! schedulers {
    ($($(#[$doc:meta])* $kind:ident {
        name: $name:literal, a1111: $a1111:literal, karras: $karras:literal, from_image: $from_image:literal,
        aliases: $aliases:expr
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
                        karras: $karras,
                        from_image: $from_image,
                        aliases: &$aliases,
                    },)*
                }
            }
        }
    };
}

#[rustfmt::skip] // a scheduler is a line
schedulers! {
    Ddim { name: "DDIM", a1111: "DDIM", karras: false, from_image: true, aliases: [] }
    Ddpm { name: "DDPM", a1111: "DDPM", karras: false, from_image: true, aliases: [] }
    DpmM { name: "DPM-M", a1111: "DPM++ 2M", karras: true, from_image: true, aliases: ["DPMSolverMultistep", "DPMPP_2M", "K_DPMPP_2M"] }
    DpmS { name: "DPM-S", a1111: "DPM++ SDE", karras: true, from_image: true, aliases: ["DPMSolverSinglestep", "DPMPP_SDE", "K_DPMPP_SDE"] }
    EulerA { name: "EULER-A", a1111: "Euler a", karras: false, from_image: true, aliases: ["K_EULER_A", "K_EULER_ANCESTRAL", "EulerAncestral", "EulerAncestralDiscrete"] }
    EulerD { name: "EULER-D", a1111: "Euler", karras: true, from_image: true, aliases: ["K_EULER", "EulerDiscrete"] }
    Heun { name: "HEUN", a1111: "Heun", karras: true, from_image: true, aliases: ["K_HEUN", "HeunDiscrete"] }
    Ipndm { name: "IPNDM", a1111: "IPNDM", karras: false, from_image: false, aliases: [] }
    Kdpm2A { name: "KDPM2-A", a1111: "DPM2 a", karras: true, from_image: true, aliases: ["KDPM2Ancestral", "KDPM2AncestralDiscrete"] }
    Kdpm2D { name: "KDPM2-D", a1111: "DPM2", karras: true, from_image: true, aliases: ["KDPM2", "KDPM2Discrete"] }
    KLms { name: "K-LMS", a1111: "LMS", karras: true, from_image: true, aliases: ["KLMS", "LMSDiscrete"] }
    /// For latent consistency models.
    Lcm { name: "LCM", a1111: "LCM", karras: false, from_image: true, aliases: [] }
    Pndm { name: "PNDM", a1111: "PLMS", karras: false, from_image: true, aliases: [] }
    UniPc { name: "UNIPC", a1111: "UniPC", karras: true, from_image: true, aliases: ["UniPCMultistep"] }
}

/// A line of the table.
struct Facts {
    name: &'static str,
    a1111: &'static str,
    karras: bool,
    from_image: bool,
    aliases: &'static [&'static str],
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

    /// Whether it can space its sigmas as Karras et al. did (arXiv 2206.00364, equation 5).
    pub fn has_karras(self) -> bool {
        self.facts().karras
    }

    /// The scheduler that a client's name means, and whether the name asks for Karras sigmas. It accepts the
    /// contract's names and aliases, A1111's names (`DPM++ 2M Karras`, `Euler a`, `k_lms_ka`) and diffusers' classes
    /// (`EulerDiscreteScheduler`). Case, spaces, hyphens and underscores do not matter.
    pub fn parse(name: &str) -> Option<(Self, bool)> {
        let name = bare(name);
        let plain = |name: &str| {
            let name = name.strip_suffix("scheduler").unwrap_or(name);
            Self::ALL.into_iter().find(|kind| kind.is_called(name))
        };
        if let Some(kind) = plain(&name) {
            return Some((kind, false));
        }
        // A1111's short names end in "_ka".
        let name = name.strip_suffix("karras").or_else(|| name.strip_suffix("ka"))?;
        plain(name).map(|kind| (kind, true))
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
fn bare(name: &str) -> String {
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
                assert_eq!(SchedulerKind::parse(name), Some((kind, false)), "{name}");
            }
            assert_eq!(SchedulerKind::parse(&format!("{kind} Karras")), Some((kind, true)));
        }
    }

    #[test]
    fn names_of_the_contract_a1111_and_diffusers_mean_the_same() {
        for (name, kind, karras) in [
            ("KLMS", SchedulerKind::KLms, false),
            ("K_EULER", SchedulerKind::EulerD, false),
            ("K_EULER_ANCESTRAL", SchedulerKind::EulerA, false),
            ("DPMSolverMultistep", SchedulerKind::DpmM, false),
            ("DPM++ 2M", SchedulerKind::DpmM, false),
            ("DPM++ 2M Karras", SchedulerKind::DpmM, true),
            ("k_dpmpp_2m_ka", SchedulerKind::DpmM, true),
            ("DPM++ SDE Karras", SchedulerKind::DpmS, true),
            ("Euler a", SchedulerKind::EulerA, false),
            ("Euler", SchedulerKind::EulerD, false),
            ("euler", SchedulerKind::EulerD, false),
            ("LMS Karras", SchedulerKind::KLms, true),
            ("LMS", SchedulerKind::KLms, false),
            ("k_lms_ka", SchedulerKind::KLms, true),
            ("DPM2", SchedulerKind::Kdpm2D, false),
            ("DPM2 a Karras", SchedulerKind::Kdpm2A, true),
            ("k_dpm_2_a", SchedulerKind::Kdpm2A, false),
            ("Heun", SchedulerKind::Heun, false),
            ("DDIM", SchedulerKind::Ddim, false),
            ("PLMS", SchedulerKind::Pndm, false),
            ("UniPC", SchedulerKind::UniPc, false),
            ("LCM", SchedulerKind::Lcm, false),
            ("EulerDiscreteScheduler", SchedulerKind::EulerD, false),
            ("EulerAncestralDiscreteScheduler", SchedulerKind::EulerA, false),
            ("LMSDiscreteScheduler", SchedulerKind::KLms, false),
            ("KDPM2AncestralDiscreteScheduler", SchedulerKind::Kdpm2A, false),
            ("UniPCMultistepScheduler", SchedulerKind::UniPc, false),
        ] {
            assert_eq!(SchedulerKind::parse(name), Some((kind, karras)), "{name}");
        }
        for name in ["", "Karras", "ka", "Scheduler", "DDIMM", "DPM", "DPM++ 2S a", &"DDIM".repeat(1000)] {
            assert_eq!(SchedulerKind::parse(name), None, "{name}");
        }
    }
}
