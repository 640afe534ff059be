//! The scheduler of a request, how its steps are spaced, and how much noise they add.

use serde_json::{Value, json};

use super::reader::Reader;
use super::{InputRules, SchedulerKind, shortest};
use crate::domain::Spacing;

/// What a request asks of its scheduler. None is the scheduler's own default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// How the steps are spaced; without it, as the model's own files say.
    pub spacing: Option<Spacing>,
    /// The share of the noise that a stochastic step adds, 0 to 1 (TCD's gamma).
    pub eta: Option<f32>,
    /// How much noise Karras et al.'s samplers add before a step (arXiv 2206.00364, algorithm 2), 0 to 100.
    pub s_churn: Option<f32>,
    /// The sigmas between which they do so. A maximum of 0 means no limit.
    pub s_tmin: Option<f32>,
    pub s_tmax: Option<f32>,
    /// The deviation of the noise that is added, 0 to 2.
    pub s_noise: Option<f32>,
}

/// A number of a request: its name, its largest value, the value that changes nothing.
struct Bounds(&'static str, f32, Option<f32>);

/// The largest are those of A1111's sliders where it has some. A1111's clients send all of them with every request.
const ETA: Bounds = Bounds("eta", 1.0, None);
const CHURN: Bounds = Bounds("s_churn", 100.0, Some(0.0));
const TMIN: Bounds = Bounds("s_tmin", 10_000.0, Some(0.0));
const TMAX: Bounds = Bounds("s_tmax", 10_000.0, Some(0.0));
const NOISE: Bounds = Bounds("s_noise", 2.0, Some(1.0));

impl Sampling {
    /// The names of its fields.
    pub const FIELDS: [&str; 6] = ["spacing", "eta", "s_churn", "s_tmin", "s_tmax", "s_noise"];

    /// Reads the scheduler and everything that is asked of it. What has no effect is a warning.
    pub(super) fn read(
        reader: &mut Reader,
        rules: &InputRules,
        warnings: &mut Vec<String>,
    ) -> (SchedulerKind, Self) {
        let (scheduler, spacing) = scheduler(reader, rules);
        let mut number = |bounds| number(reader, scheduler, &bounds, warnings);
        let sampling = Self {
            spacing,
            eta: number(ETA),
            s_churn: number(CHURN),
            s_tmin: number(TMIN),
            s_tmax: number(TMAX),
            s_noise: number(NOISE),
        };
        (scheduler, sampling)
    }

    /// Writes its fields into a request that draws the same again.
    pub(super) fn write(&self, request: &mut Value) {
        request["karras"] = json!(self.spacing == Some(Spacing::Karras));
        request["spacing"] = json!(self.spacing.map(Spacing::as_str));
        for (name, value) in self.numbers() {
            request[name] = json!(shortest(value));
        }
    }

    /// The numbers that are not None, by their names.
    pub fn numbers(&self) -> impl Iterator<Item = (&'static str, f32)> {
        let Self { spacing: _, eta, s_churn, s_tmin, s_tmax, s_noise } = *self;
        let all = [
            ("eta", eta),
            ("s_churn", s_churn),
            ("s_tmin", s_tmin),
            ("s_tmax", s_tmax),
            ("s_noise", s_noise),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// The scheduler, and how its steps are spaced. The field `spacing` says it, or `karras`, or the scheduler's name
/// (`DPM++ 2M Karras`), in this order. The model's own spacing is for its own scheduler.
fn scheduler(reader: &mut Reader, rules: &InputRules) -> (SchedulerKind, Option<Spacing>) {
    let name = reader.string("scheduler").map(str::to_owned);
    let karras = reader.flag("karras");
    let asked = spacing(reader);
    let (scheduler, named) = match name {
        None => (rules.scheduler, rules.spacing),
        Some(name) => SchedulerKind::parse(&name).unwrap_or_else(|| {
            let known = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
            reader.not_among("scheduler", &name, &known);
            (rules.scheduler, None)
        }),
    };
    if let (Some(karras), Some(spacing)) = (karras, asked)
        && karras != (spacing == Spacing::Karras)
    {
        reader.unmet(
            "karras",
            &format!(
                "It is {karras}, but spacing is {spacing:?}; send only spacing.",
                spacing = spacing.as_str()
            ),
        );
        return (scheduler, None);
    }
    let (field, spacing) = match (asked, karras) {
        (Some(spacing), _) => ("spacing", Some(spacing)),
        (None, Some(true)) => ("karras", Some(Spacing::Karras)),
        (None, Some(false)) => ("karras", named.filter(|spacing| *spacing != Spacing::Karras)),
        (None, None) => ("scheduler", named),
    };
    if let Some(reason) = spacing.and_then(|spacing| scheduler.refuses(spacing)) {
        reader.unmet(field, &format!("{scheduler} {reason}."));
    }
    (scheduler, spacing)
}

/// The scheduler of a second pass with its spacing, if either is another than that of the `first` pass.
pub(super) fn second_scheduler(
    reader: &mut Reader,
    first: SchedulerKind,
) -> Option<(SchedulerKind, Option<Spacing>)> {
    let asked = spacing(reader);
    let (kind, named) = match reader.string("scheduler").map(str::to_owned) {
        None => (first, Some(asked?)),
        Some(name) => SchedulerKind::parse(&name).or_else(|| {
            let known = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
            reader.not_among("scheduler", &name, &known);
            None
        })?,
    };
    let spacing = asked.or(named);
    if let Some(reason) = spacing.and_then(|spacing| kind.refuses(spacing)) {
        let field = if asked.is_some() { "spacing" } else { "scheduler" };
        reader.unmet(field, &format!("{kind} {reason}."));
    }
    Some((kind, spacing))
}

fn spacing(reader: &mut Reader) -> Option<Spacing> {
    let name = reader.string("spacing")?.to_owned();
    let spacing = Spacing::parse(&name);
    if spacing.is_none() {
        reader.not_among("spacing", &name, &Spacing::ALL.map(Spacing::as_str).join(", "));
    }
    spacing
}

fn number(
    reader: &mut Reader,
    scheduler: SchedulerKind,
    &Bounds(name, most, neutral): &Bounds,
    warnings: &mut Vec<String>,
) -> Option<f32> {
    let value = reader.number(name, &format!("from 0 to {most}"), |value| (0.0..=most).contains(&value))?;
    if scheduler.has_option(name) {
        return Some(value);
    }
    if neutral != Some(value) {
        warnings.push(format!("{name} has no effect with {scheduler}."));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{GenerationInput, InputRules};

    #[test]
    fn every_documented_scheduler_name_is_known() {
        for (name, kind) in [
            ("K-LMS", SchedulerKind::KLms),
            ("KLMS", SchedulerKind::KLms),
            ("K_EULER", SchedulerKind::EulerD),
            ("DPMSolverMultistep", SchedulerKind::DpmM),
        ] {
            let input =
                GenerationInput::parse(&json!({"prompt": "", "scheduler": name}), &InputRules::default())
                    .unwrap();
            assert_eq!(input.scheduler, kind);
        }
    }

    #[test]
    fn a_model_may_have_its_own_default_scheduler() {
        let rules = InputRules { scheduler: SchedulerKind::EulerD, ..InputRules::default() };
        let scheduler = |input: Value| GenerationInput::parse(&input, &rules).unwrap().scheduler;
        assert_eq!(scheduler(json!({"prompt": ""})), SchedulerKind::EulerD);
        assert_eq!(scheduler(json!({"prompt": "", "scheduler": "K-LMS"})), SchedulerKind::KLms);
    }

    #[test]
    fn the_spacing_comes_from_the_fields_or_the_scheduler_name() {
        use SchedulerKind as K;
        use Spacing as S;
        let parsed = |fields: Value| {
            let mut input = json!({"prompt": ""});
            input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            GenerationInput::parse(&input, &InputRules::default())
                .map(|parsed| (parsed.scheduler, parsed.sampling.spacing))
                .map_err(|violations| violations.0.join(" "))
        };
        for (fields, expected) in [
            (json!({}), (K::KLms, None)),
            (json!({"scheduler": "DPM++ 2M Karras"}), (K::DpmM, Some(S::Karras))),
            (json!({"scheduler": "DPM++ 2M Karras", "karras": false}), (K::DpmM, None)),
            (json!({"scheduler": "DPM++ 2M Karras", "spacing": "beta"}), (K::DpmM, Some(S::Beta))),
            (
                json!({"scheduler": "DPM++ 2M SDE Exponential", "karras": false}),
                (K::DpmMSde, Some(S::Exponential)),
            ),
            (json!({"scheduler": "EULER-D", "karras": true}), (K::EulerD, Some(S::Karras))),
            (json!({"karras": true}), (K::KLms, Some(S::Karras))),
            (json!({"karras": true, "spacing": "karras"}), (K::KLms, Some(S::Karras))),
            (json!({"karras": false, "spacing": "SGM Uniform"}), (K::KLms, Some(S::SgmUniform))),
            (json!({"scheduler": "DDIM", "spacing": "trailing"}), (K::Ddim, Some(S::Trailing))),
        ] {
            assert_eq!(parsed(fields.clone()), Ok(expected), "{fields}");
        }
        for (fields, expected) in [
            (
                json!({"scheduler": "DDIM", "karras": true}),
                "karras does not meet the constraints. DDIM does not take the spacing karras; \
                 choose one of linspace, leading, trailing.",
            ),
            (
                json!({"scheduler": "DDIM Karras"}),
                "scheduler does not meet the constraints. DDIM does not take the spacing karras; \
                 choose one of linspace, leading, trailing.",
            ),
            (
                json!({"scheduler": "TCD", "spacing": "beta"}),
                "spacing does not meet the constraints. TCD spaces its steps in its own way, and takes no spacing.",
            ),
            (
                json!({"karras": true, "spacing": "beta"}),
                "karras does not meet the constraints. It is true, but spacing is \"beta\"; send only spacing.",
            ),
            (json!({"karras": "yes"}), "karras should be bool type, not str."),
            (json!({"spacing": 1}), "spacing should be str type, not int."),
            (
                json!({"spacing": "random"}),
                "spacing does not meet the constraints. It is \"random\"; it must be one of karras, exponential, \
                 polyexponential, sgm_uniform, simple, normal, ddim_uniform, beta, align_your_steps, kl_optimal, uniform, \
                 linspace, leading, trailing.",
            ),
        ] {
            assert_eq!(parsed(fields.clone()), Err(expected.to_owned()), "{fields}");
        }
    }

    #[test]
    fn numbers_that_a_scheduler_does_not_have_are_warnings() {
        let parsed = |fields: Value| GenerationInput::parse(&fields, &InputRules::default()).unwrap();
        let all =
            json!({"prompt": "", "eta": 0.5, "s_churn": 3, "s_tmin": 0.1, "s_tmax": 9, "s_noise": 1.01});
        let with = |scheduler: &str| {
            let mut input = all.clone();
            input["scheduler"] = json!(scheduler);
            let parsed = parsed(input);
            let named = parsed.warnings.iter().map(|warning| warning.split(' ').next().unwrap().to_owned());
            (parsed.sampling.numbers().map(|(name, _)| name).collect::<Vec<_>>(), named.collect::<Vec<_>>())
        };
        let churn = ["s_churn", "s_tmin", "s_tmax"];
        assert_eq!(with("EULER-D").0, [&churn[..], &["s_noise"]].concat());
        assert_eq!(with("EULER-D").1, ["eta"]);
        assert_eq!(with("EULER-A"), (vec!["eta", "s_noise"], churn.map(str::to_owned).to_vec()));
        assert_eq!(with("DDIM").0, ["eta"]);
        assert!(with("DPM-M").0.is_empty());
        let input = parsed(json!({"prompt": "", "scheduler": "DPM-M", "eta": 0.5}));
        assert_eq!(input.warnings, ["eta has no effect with DPM-M."]);
        // What A1111's clients always send changes nothing anywhere.
        let neutral =
            json!({"prompt": "", "scheduler": "DPM-M", "s_churn": 0, "s_tmin": 0, "s_tmax": 0, "s_noise": 1});
        assert!(parsed(neutral).warnings.is_empty());
        assert_eq!(
            GenerationInput::parse(
                &json!({"prompt": "", "eta": 1.5, "s_noise": -1, "s_churn": "x"}),
                &InputRules::default()
            )
            .unwrap_err()
            .0,
            [
                "eta does not meet the constraints. It is 1.5; it must be from 0 to 1.",
                "s_churn should be float type, not str.",
                "s_noise does not meet the constraints. It is -1; it must be from 0 to 2.",
            ]
        );
    }

    #[test]
    fn a_model_s_default_spacing_counts_only_for_its_default_scheduler() {
        let spacing = Some(Spacing::Karras);
        let rules = InputRules { scheduler: SchedulerKind::DpmM, spacing, ..InputRules::default() };
        let parsed = |input: Value| GenerationInput::parse(&input, &rules).unwrap().sampling.spacing;
        assert_eq!(parsed(json!({"prompt": ""})), spacing);
        assert_eq!(parsed(json!({"prompt": "", "karras": false})), None);
        assert_eq!(parsed(json!({"prompt": "", "scheduler": "DDIM"})), None);
    }
}
