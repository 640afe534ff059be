//! A1111's names of samplers and schedulers (`modules/sd_samplers_*.py`, `modules/sd_schedulers.py`), and ours. In A1111's
//! words a sampler is the method and a scheduler is how its sigmas are spaced.

use serde_json::{Value, json};

use super::choices::shown;
use crate::domain::{GenerationInput, InputRules, SchedulerKind};
use crate::http::surface::{FieldError, Fields};

/// The default of the API, which is not that of A1111's page.
const DEFAULT: &str = "Euler";

/// A1111's sampler: its name and its short names.
pub struct Sampler {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// How its sigmas are spaced under `Automatic`.
    automatic: Automatic,
    /// What draws instead where we lack it.
    instead: Option<&'static str>,
}

/// What A1111 does if no scheduler is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Automatic {
    By(&'static str),
    /// It goes by timesteps.
    Timesteps,
}

use Automatic::{By, Timesteps};

const KARRAS: Automatic = By("karras");
const EXPONENTIAL: Automatic = By("exponential");
const UNIFORM: Automatic = By("uniform");

const fn has(name: &'static str, aliases: &'static [&'static str], automatic: Automatic) -> Sampler {
    Sampler { name, aliases, automatic, instead: None }
}

const fn may_lack(
    name: &'static str,
    aliases: &'static [&'static str],
    automatic: Automatic,
    instead: &'static str,
) -> Sampler {
    Sampler { name, aliases, automatic, instead: Some(instead) }
}

/// A1111's samplers in its order, then those of Forge.
static SAMPLERS: [Sampler; 24] = [
    has("DPM++ 2M", &["k_dpmpp_2m"], KARRAS),
    has("DPM++ SDE", &["k_dpmpp_sde"], KARRAS),
    may_lack("DPM++ 2M SDE", &["k_dpmpp_2m_sde"], EXPONENTIAL, "DPM++ 2M"),
    may_lack("DPM++ 2M SDE Heun", &["k_dpmpp_2m_sde_heun"], EXPONENTIAL, "DPM++ 2M"),
    may_lack("DPM++ 2S a", &["k_dpmpp_2s_a"], KARRAS, "DPM-S"),
    may_lack("DPM++ 3M SDE", &["k_dpmpp_3m_sde"], EXPONENTIAL, "DPM++ 2M"),
    has("Euler a", &["k_euler_a", "k_euler_ancestral"], UNIFORM),
    has("Euler", &["k_euler"], UNIFORM),
    has("LMS", &["k_lms"], UNIFORM),
    has("Heun", &["k_heun"], UNIFORM),
    has("DPM2", &["k_dpm_2"], KARRAS),
    has("DPM2 a", &["k_dpm_2_a"], KARRAS),
    may_lack("DPM fast", &["k_dpm_fast"], Timesteps, "DPM++ 2M"),
    may_lack("DPM adaptive", &["k_dpm_ad"], Timesteps, "DPM++ 2M"),
    may_lack("Restart", &["restart"], KARRAS, "Heun"),
    has("DDIM", &["ddim"], Timesteps),
    may_lack("DDIM CFG++", &["ddim_cfgpp"], Timesteps, "DDIM"),
    has("PLMS", &["plms"], Timesteps),
    has("UniPC", &["unipc"], Timesteps),
    has("LCM", &["k_lcm"], UNIFORM),
    may_lack("HeunPP2", &["heunpp2"], UNIFORM, "Heun"),
    has("IPNDM", &["ipndm"], UNIFORM),
    may_lack("IPNDM_V", &["ipndm_v"], UNIFORM, "IPNDM"),
    may_lack("DEIS", &["deis"], UNIFORM, "UniPC"),
];

/// A1111's scheduler: its name, its label, further names, and our spacing.
pub struct Spacings {
    pub name: &'static str,
    pub label: &'static str,
    pub aliases: &'static [&'static str],
    /// None where we lack it.
    pub ours: Option<&'static str>,
}

const fn spacing(
    name: &'static str,
    label: &'static str,
    aliases: &'static [&'static str],
    ours: Option<&'static str>,
) -> Spacings {
    Spacings { name, label, aliases, ours }
}

static AUTOMATIC: Spacings = spacing("automatic", "Automatic", &["default"], None);

static SCHEDULERS: [Spacings; 15] = [
    spacing("uniform", "Uniform", &[], Some("uniform")),
    spacing("karras", "Karras", &["ka"], Some("karras")),
    spacing("exponential", "Exponential", &[], Some("exponential")),
    spacing("polyexponential", "Polyexponential", &[], Some("polyexponential")),
    spacing("sgm_uniform", "SGM Uniform", &["SGMUniform"], Some("sgm_uniform")),
    spacing("kl_optimal", "KL Optimal", &[], Some("kl_optimal")),
    spacing("align_your_steps", "Align Your Steps", &[], Some("align_your_steps")),
    spacing("simple", "Simple", &[], Some("simple")),
    spacing("normal", "Normal", &[], Some("normal")),
    spacing("ddim", "DDIM", &["ddim_uniform"], Some("ddim_uniform")),
    spacing("beta", "Beta", &[], Some("beta")),
    spacing("turbo", "Turbo", &[], None),
    spacing("align_your_steps_GITS", "Align Your Steps GITS", &[], None),
    spacing("align_your_steps_11", "Align Your Steps 11", &[], None),
    spacing("align_your_steps_32", "Align Your Steps 32", &[], None),
];

/// How a request is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub scheduler: SchedulerKind,
    /// None is the scheduler's own.
    pub spacing: Option<&'static str>,
}

/// The sampler and the scheduler that a request names. As in A1111, an unknown sampler is the first of the list, and an
/// unknown scheduler is Automatic. `warnings` are told what is not as asked.
pub fn choose(sampler: Option<&str>, scheduler: Option<&str>, warnings: &mut Vec<String>) -> Choice {
    let name = sampler.unwrap_or(DEFAULT);
    let (row, kind, named) = find(name, warnings);
    let spacings = scheduler.map(|text| spacings(text).ok_or(text));
    if let Some(Err(text)) = spacings {
        warnings.push(format!("The scheduler {} is not known here; Automatic is used.", shown(text)));
    }
    let asked = match spacings {
        Some(Ok(Spacings { ours: Some(spacing), .. })) => Some(*spacing),
        Some(Ok(row)) if row.name != AUTOMATIC.name => {
            warnings.push(format!("The scheduler {} is not here; Karras is used.", row.label));
            Some("karras")
        }
        _ => named,
    };
    let is_by_timesteps = row.is_none_or(|row| row.automatic == Timesteps);
    let automatic = row.and_then(|row| match row.automatic {
        By(spacing) => Some(spacing),
        Timesteps => None,
    });
    let spacing = asked.or(automatic);
    let taken = spacing.filter(|spacing| takes(kind, spacing));
    if let (Some(spacing), None, false) = (asked, taken, is_by_timesteps) {
        warnings.push(format!("{} does not take the scheduler {}.", kind.a1111_name(), label(spacing)));
    }
    Choice { scheduler: kind, spacing: taken }
}

impl Choice {
    /// The field of an `input` that asks for the spacing.
    pub fn spacing_field(self) -> Option<(&'static str, Value)> {
        self.spacing.map(field)
    }

    /// A1111's label of the spacing.
    pub fn spacing_label(self) -> Option<&'static str> {
        self.spacing.map(label)
    }

    /// Whether the sampler's formula has this number of a request.
    pub fn has_number(self, name: &'static str) -> bool {
        GenerationInput::FIELDS.contains(&name) && accepts(self.scheduler, (name, json!(0.5)))
    }
}

fn field(spacing: &'static str) -> (&'static str, Value) {
    match spacing {
        "karras" => ("karras", json!(true)),
        other => ("spacing", json!(other)),
    }
}

fn label(spacing: &str) -> &'static str {
    SCHEDULERS.iter().find(|row| row.ours == Some(spacing)).map_or("Automatic", |row| row.label)
}

fn takes(kind: SchedulerKind, spacing: &'static str) -> bool {
    accepts(kind, field(spacing))
}

/// Whether a field has an effect with a scheduler: the reader of inputs knows.
fn accepts(kind: SchedulerKind, (name, value): (&str, Value)) -> bool {
    let input = json!({ "prompt": "", "scheduler": kind.as_str(), name: value });
    GenerationInput::parse(&input, &InputRules::default()).is_ok_and(|input| input.warnings.is_empty())
}

/// The row of a sampler, what draws it here, and the spacing that its name asks for. Older clients send
/// `DPM++ 2M Karras`.
fn find(
    name: &str,
    warnings: &mut Vec<String>,
) -> (Option<&'static Sampler>, SchedulerKind, Option<&'static str>) {
    let is_called = |row: &&Sampler, name: &str| {
        row.name.eq_ignore_ascii_case(name)
            || row.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    };
    let row = |name: &str| SAMPLERS.iter().find(|row| is_called(row, name));
    let name = name.trim();
    // What stands before the name of a spacing, with that spacing; and the name as it is.
    let endings = SCHEDULERS.iter().flat_map(|ending| ending.names().map(move |text| (ending, text)));
    let split = endings.filter_map(|(ending, text)| Some((before(name, text)?, ending.ours)));
    let meanings: Vec<_> = [(name, None)].into_iter().chain(split).collect();
    if let Some((row, spacing)) = meanings.iter().find_map(|(name, spacing)| Some((row(name)?, *spacing))) {
        return (Some(row), row.kind(warnings), spacing);
    }
    // Our own names, ComfyUI's and diffusers'.
    let own = |(name, spacing): &(&str, _)| Some((SchedulerKind::parse(name)?.0, *spacing));
    if let Some((kind, spacing)) = meanings.iter().rev().find_map(own) {
        return (SAMPLERS.iter().find(|row| row.name == kind.a1111_name()), kind, spacing);
    }
    let first = &SAMPLERS[0];
    warnings.push(format!("The sampler {} is not known here; {} is used.", shown(name), first.name));
    (Some(first), first.kind(warnings), None)
}

/// What stands before an ending, without case: `Euler` in `Euler Karras`.
fn before<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(ending.len()).filter(|at| name.is_char_boundary(*at))?;
    let (before, end) = name.split_at(at);
    end.eq_ignore_ascii_case(ending).then(|| before.trim_end_matches([' ', '_']))
}

fn spacings(text: &str) -> Option<&'static Spacings> {
    let text = text.trim();
    let mut all = SCHEDULERS.iter().chain([&AUTOMATIC]);
    all.find(|row| row.names().any(|name| name.eq_ignore_ascii_case(text)))
}

impl Sampler {
    /// The scheduler that draws it here.
    fn kind(&self, warnings: &mut Vec<String>) -> SchedulerKind {
        if let Some(kind) = self.ours() {
            return kind;
        }
        let instead = self.instead.and_then(SchedulerKind::parse);
        let kind = instead.map_or(SchedulerKind::DpmM, |(kind, _)| kind);
        warnings.push(format!("The sampler {} is not here; {} draws instead.", self.name, kind.a1111_name()));
        kind
    }

    /// None where we lack it.
    fn ours(&self) -> Option<SchedulerKind> {
        SchedulerKind::parse(self.name).map(|(kind, _)| kind)
    }

    /// The samplers that are here, under A1111's names; then our further ones.
    pub fn here() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
        let known = SAMPLERS.iter().filter(|row| row.ours().is_some());
        let is_listed = |kind: &SchedulerKind| SAMPLERS.iter().any(|row| row.ours() == Some(*kind));
        let further = SchedulerKind::ALL.into_iter().filter(move |kind| !is_listed(kind));
        let further = further.map(|kind| (kind.a1111_name(), kind.aliases()));
        known.map(|row| (row.name, row.aliases)).chain(further)
    }
}

impl Spacings {
    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.name, self.label].into_iter().chain(self.aliases.iter().copied())
    }

    /// The schedulers that are here.
    pub fn here() -> impl Iterator<Item = &'static Self> {
        let is_here = |row: &&Self| row.ours.is_some_and(|spacing| takes(SchedulerKind::EulerD, spacing));
        [&AUTOMATIC].into_iter().chain(SCHEDULERS.iter().filter(is_here))
    }
}

/// The texts that a request has for both. Of the names of samplers, the first that is set counts.
pub fn named(fields: &Fields) -> Result<(Option<String>, Option<String>), FieldError> {
    Ok((fields.text(&["sampler_name", "sampler_index"])?, fields.text(&["scheduler"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What draws, its spacing, and how many warnings there are.
    fn chosen(sampler: &str, scheduler: &str) -> (&'static str, Option<&'static str>, usize) {
        let mut warnings = Vec::new();
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (sampler, scheduler) = (named(sampler), named(scheduler));
        let choice = choose(sampler.as_deref(), scheduler.as_deref(), &mut warnings);
        (choice.scheduler.as_str(), choice.spacing, warnings.len())
    }

    #[test]
    fn names_of_samplers_and_schedulers_mean_ours() {
        for (sampler, scheduler, ours, spacing) in [
            ("", "", "EULER-D", Some("uniform")),
            ("DPM++ 2M", "", "DPM-M", Some("karras")),
            ("DPM++ 2M", "automatic", "DPM-M", Some("karras")),
            ("dpm++ 2m", "Uniform", "DPM-M", Some("uniform")),
            ("DPM++ 2M Karras", "", "DPM-M", Some("karras")),
            ("DPM++ 2M Karras", "exponential", "DPM-M", Some("exponential")),
            ("DPM++ SDE Karras", "", "DPM-SDE", Some("karras")),
            ("DPM++ 2M SDE", "", "DPM-M-SDE", Some("exponential")),
            ("DPM++ 2M SDE Heun Karras", "", "DPM-M-SDE-HEUN", Some("karras")),
            ("DPM++ 2S a", "", "DPM-2S-A", Some("karras")),
            ("DPM++ 3M SDE", "", "DPM-3M-SDE", Some("exponential")),
            ("k_dpmpp_2m", "SGM Uniform", "DPM-M", Some("sgm_uniform")),
            ("Euler a", "normal", "EULER-A", Some("normal")),
            ("k_euler_ancestral", "", "EULER-A", Some("uniform")),
            ("Euler SGMUniform", "", "EULER-D", Some("sgm_uniform")),
            ("Euler", "DDIM", "EULER-D", Some("ddim_uniform")),
            ("Euler", "Align Your Steps", "EULER-D", Some("align_your_steps")),
            ("DPM2 a", "", "KDPM2-A", Some("karras")),
            ("LMS Karras", "Automatic", "K-LMS", Some("karras")),
            ("PLMS", "", "PNDM", None),
            ("DDIM", "normal", "DDIM", None),
            ("UniPC", "", "UNIPC", None),
            ("UniPC", "karras", "UNIPC", Some("karras")),
            ("LCM", "", "LCM", Some("uniform")),
            ("DEIS", "", "DEIS", Some("uniform")),
            ("TCD", "", "TCD", None),
            ("DDPM", "", "DDPM", None),
            ("DPMSolverMultistep", "", "DPM-M", Some("karras")),
            ("euler_ancestral", "beta", "EULER-A", Some("beta")),
        ] {
            assert_eq!(chosen(sampler, scheduler), (ours, spacing, 0), "{sampler} {scheduler}");
        }
    }

    #[test]
    fn what_is_not_here_is_said() {
        for (sampler, scheduler, ours, spacing) in [
            ("Restart", "", "HEUN", Some("karras")),
            ("DPM adaptive", "", "DPM-M", None),
            ("DDIM CFG++", "", "DDIM", None),
            ("HeunPP2 Karras", "", "HEUN", Some("karras")),
            ("Magic", "", "DPM-M", Some("karras")),
            ("Euler", "Turbo", "EULER-D", Some("karras")),
            ("Euler", "magic", "EULER-D", Some("uniform")),
        ] {
            assert_eq!(chosen(sampler, scheduler), (ours, spacing, 1), "{sampler} {scheduler}");
        }
    }

    #[test]
    fn every_listed_name_means_itself() {
        for (name, aliases) in Sampler::here() {
            for text in [name].iter().chain(aliases) {
                let mut warnings = Vec::new();
                let kind = choose(Some(text), None, &mut warnings).scheduler;
                assert!(warnings.is_empty(), "{text}: {warnings:?}");
                assert!(kind.a1111_name() == name || SchedulerKind::parse(name).unwrap().0 == kind, "{text}");
            }
        }
        for row in Spacings::here() {
            for name in row.names() {
                assert!(std::ptr::eq(spacings(name).unwrap(), row), "{name}");
            }
        }
        assert_eq!(Sampler::here().count(), SchedulerKind::ALL.len());
    }
}
