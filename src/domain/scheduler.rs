//! The schedulers by the names that clients send.

use std::fmt;

/// A denoising scheduler, named as the hosted worker named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    Ddim,
    Ddpm,
    DpmM,
    DpmS,
    EulerA,
    EulerD,
    Heun,
    Ipndm,
    Kdpm2A,
    Kdpm2D,
    KLms,
    /// For latent consistency models.
    Lcm,
    Pndm,
    UniPc,
}

impl SchedulerKind {
    pub const ALL: [SchedulerKind; 14] = [
        Self::Ddim,
        Self::Ddpm,
        Self::DpmM,
        Self::DpmS,
        Self::EulerA,
        Self::EulerD,
        Self::Heun,
        Self::Ipndm,
        Self::Kdpm2A,
        Self::Kdpm2D,
        Self::KLms,
        Self::Lcm,
        Self::Pndm,
        Self::UniPc,
    ];

    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::Ddpm => "DDPM",
            Self::DpmM => "DPM-M",
            Self::DpmS => "DPM-S",
            Self::EulerA => "EULER-A",
            Self::EulerD => "EULER-D",
            Self::Heun => "HEUN",
            Self::Ipndm => "IPNDM",
            Self::Kdpm2A => "KDPM2-A",
            Self::Kdpm2D => "KDPM2-D",
            Self::KLms => "K-LMS",
            Self::Lcm => "LCM",
            Self::Pndm => "PNDM",
            Self::UniPc => "UNIPC",
        }
    }

    /// Whether it can start from a picture: IPNDM defines no way to add noise to one.
    pub fn starts_from_image(self) -> bool {
        self != Self::Ipndm
    }

    /// Whether it can space its sigmas as Karras et al. did (arXiv 2206.00364, equation 5).
    pub fn has_karras(self) -> bool {
        match self {
            Self::DpmM
            | Self::DpmS
            | Self::EulerD
            | Self::Heun
            | Self::Kdpm2A
            | Self::Kdpm2D
            | Self::KLms
            | Self::UniPc => true,
            Self::Ddim | Self::Ddpm | Self::EulerA | Self::Ipndm | Self::Lcm | Self::Pndm => false,
        }
    }

    /// The scheduler that a client's name means, and whether the name asks for Karras sigmas: the
    /// contract's names and aliases, A1111's (`DPM++ 2M Karras`, `Euler a`, `k_lms_ka`) and diffusers'
    /// classes (`EulerDiscreteScheduler`), whatever their case, spaces, hyphens and underscores.
    pub fn parse(name: &str) -> Option<(Self, bool)> {
        let name: String = name
            .chars()
            .take(LONGEST_NAME)
            .filter(|c| !matches!(c, ' ' | '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let plain = |name: &str| {
            let name = name.strip_suffix("scheduler").unwrap_or(name);
            Self::ALL.into_iter().find(|kind| kind.plain_names().contains(&name))
        };
        if let Some(kind) = plain(&name) {
            return Some((kind, false));
        }
        // A1111's short names end in "_ka".
        let bare = name.strip_suffix("karras").or_else(|| name.strip_suffix("ka"))?;
        plain(bare).map(|kind| (kind, true))
    }

    /// The names that mean it, in lower case and bare of spaces, hyphens, underscores and "Scheduler".
    fn plain_names(self) -> &'static [&'static str] {
        match self {
            Self::Ddim => &["ddim"],
            Self::Ddpm => &["ddpm"],
            Self::DpmM => &["dpmm", "dpmsolvermultistep", "dpm++2m", "dpmpp2m", "kdpmpp2m"],
            Self::DpmS => &["dpms", "dpmsolversinglestep", "dpm++sde", "dpmppsde", "kdpmppsde"],
            Self::EulerA => {
                &["eulera", "keulera", "eulerancestral", "keulerancestral", "eulerancestraldiscrete"]
            }
            Self::EulerD => &["eulerd", "euler", "keuler", "eulerdiscrete"],
            Self::Heun => &["heun", "kheun", "heundiscrete"],
            Self::Ipndm => &["ipndm"],
            Self::Kdpm2A => &["kdpm2a", "dpm2a", "kdpm2ancestral", "kdpm2ancestraldiscrete"],
            Self::Kdpm2D => &["kdpm2d", "kdpm2", "dpm2", "kdpm2discrete"],
            Self::KLms => &["klms", "lms", "lmsdiscrete"],
            Self::Lcm => &["lcm"],
            Self::Pndm => &["pndm", "plms"],
            Self::UniPc => &["unipc", "unipcmultistep"],
        }
    }
}

/// Longer than any name that is known.
const LONGEST_NAME: usize = 64;

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheduler_is_known_by_its_own_name() {
        for kind in SchedulerKind::ALL {
            assert_eq!(SchedulerKind::parse(kind.as_str()), Some((kind, false)));
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
