//! `enable_hr` and its fields: the picture is drawn, enlarged, and drawn again.

use serde_json::{Map, Value, json};

use super::ask::guidance;
use super::choices::shown;
use super::sampler;
use crate::domain::{Enlarged, GenerationInput, ImageSize, InputRules};
use crate::http::surface::{Canvas, FieldError, Fields, Translation, fit_together};

/// A second pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Hires {
    /// The native field.
    field: Map<String, Value>,
    /// The size in it, and the client's name of that.
    enlarged: (Enlarged, &'static str),
    /// The steps of its first pass, for `/progress`.
    pub first_pass: u32,
}

/// A1111's defaults.
const SCALE: f64 = 2.0;
const STRENGTH: f64 = 0.75;
/// Upscalers.
const LATENT: &str = "Latent";
const LANCZOS: &str = "Lanczos";
/// The fields of the native one, and the client's. Those of the size were checked before.
const SENT_AS: [(&str, &str); 7] = [
    ("hires.scale", "hr_scale"),
    ("hires.width", "hr_resize_x"),
    ("hires.height", "hr_resize_y"),
    ("hires.steps", "hr_second_pass_steps"),
    ("hires.prompt", "hr_prompt"),
    ("hires.negative_prompt", "hr_negative_prompt"),
    ("hires.scheduler", "hr_sampler_name"),
];
/// What clients send where the second pass is like the first one.
const SAME: [&str; 4] = ["use same sampler", "use same scheduler", "use same checkpoint", "none"];

impl Hires {
    /// None if it is switched off, whatever else its fields say.
    pub fn read(
        fields: &Fields,
        (canvas, steps): (Canvas, u32),
        rules: &InputRules,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, FieldError> {
        if !fields.flag(&["enable_hr"])?.unwrap_or(false) {
            return Ok(None);
        }
        let mut field = Map::new();
        let enlarged = target(fields, canvas, &mut field)?;
        let upscaler = fields.text(&["hr_upscaler"])?;
        field.insert("upscaler".to_owned(), json!(upscaler_name(upscaler.as_deref(), rules, warnings)));
        if let Some(steps) = whole(fields, "hr_second_pass_steps")?.filter(|steps| *steps > 0) {
            field.insert("steps".to_owned(), json!(steps));
        }
        let strength = fields.number(&["denoising_strength"])?.unwrap_or(STRENGTH).clamp(0.0, 1.0);
        field.insert("strength".to_owned(), json!(strength));
        for (name, ours) in [("hr_prompt", "prompt"), ("hr_negative_prompt", "negative_prompt")] {
            if let Some(text) = fields.text(&[name])? {
                field.insert(ours.to_owned(), json!(text));
            }
        }
        // 1 is Forge's default, and means the first pass's.
        if let Some(cfg) = fields.number(&["hr_cfg"])?.filter(|cfg| *cfg > 1.0) {
            field.insert("guidance_scale".to_owned(), json!(guidance("hr_cfg", cfg, warnings)));
        }
        sampling(fields, &mut field, warnings)?;
        if another(fields, "hr_checkpoint_name")?.is_some() {
            warnings.push("hr_checkpoint_name was ignored: both passes use the same model.".to_owned());
        }
        Ok(Some(Self { field, enlarged, first_pass: steps }))
    }

    /// How much of the enlarged picture may change.
    pub fn strength(&self) -> f64 {
        self.field.get("strength").and_then(Value::as_f64).unwrap_or(STRENGTH)
    }

    /// Checks that so many enlarged pictures fit into memory together.
    pub fn check_size(&self, drawn: ImageSize, pictures: u32, grid: u32) -> Result<(), FieldError> {
        let (enlarged, name) = self.enlarged;
        let target = enlarged.target(drawn, grid);
        target.and_then(|target| fit_together(target.kept, pictures)).map_err(|sentence| {
            FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
        })
    }

    pub fn translate(&self, to: &mut Translation) {
        to.set_from("hires", "enable_hr", self.field.clone());
        for (name, sent_as) in SENT_AS {
            to.sent_as(name, sent_as);
        }
    }
}

/// The size of the second pass: a factor, one side, or both.
fn target(
    fields: &Fields,
    canvas: Canvas,
    field: &mut Map<String, Value>,
) -> Result<(Enlarged, &'static str), FieldError> {
    let side = |name: &str| Ok::<_, FieldError>(whole(fields, name)?.filter(|side| *side > 0));
    let (width, height) = (side("hr_resize_x")?, side("hr_resize_y")?);
    for (name, side) in [("width", width), ("height", height)] {
        if let Some(side) = side {
            field.insert(name.to_owned(), json!(side));
        }
    }
    if !field.is_empty() {
        let name = if width.is_some() { "hr_resize_x" } else { "hr_resize_y" };
        return Ok((Enlarged::Sides { width, height }, name));
    }
    let scale = fields.number(&["hr_scale"])?.unwrap_or(SCALE).max(1.0);
    let ImageSize { width, height } = canvas.asked;
    if canvas.enlarge_to().is_none() {
        field.insert("scale".to_owned(), json!(scale));
        return Ok((Enlarged::Scale(scale), "hr_scale"));
    }
    // The factor is one of the size that was asked, and the first pass is smaller than that.
    let (width, height) = (scaled(width, scale), scaled(height, scale));
    field.insert("width".to_owned(), json!(width));
    field.insert("height".to_owned(), json!(height));
    Ok((Enlarged::Sides { width: Some(width), height: Some(height) }, "hr_scale"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float beyond the integers becomes the largest one, which is refused"
)]
fn scaled(side: u32, scale: f64) -> u32 {
    (f64::from(side) * scale) as u32
}

/// The upscaler. An unknown one is Lanczos: A1111 refuses it, but clients have A1111's own models as defaults.
fn upscaler_name(name: Option<&str>, rules: &InputRules, warnings: &mut Vec<String>) -> String {
    let Some(name) = name else { return LATENT.to_owned() };
    // The reader of inputs knows which upscalers there are.
    let input = json!({ "prompt": "", "hires": { "upscaler": name } });
    if GenerationInput::parse(&input, rules).is_ok() {
        return name.to_owned();
    }
    warnings.push(format!("The upscaler {} is not here; Lanczos is used.", shown(name)));
    LANCZOS.to_owned()
}

fn sampling(
    fields: &Fields,
    field: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<(), FieldError> {
    let (sampler, scheduler) = (another(fields, "hr_sampler_name")?, another(fields, "hr_scheduler")?);
    if sampler.is_none() && scheduler.is_none() {
        return Ok(());
    }
    let first = sampler::named(fields)?;
    let sampler = sampler.or(first.0);
    let scheduler = scheduler.or(first.1);
    let choice = sampler::choose(sampler.as_deref(), scheduler.as_deref(), warnings);
    field.insert("scheduler".to_owned(), json!(choice.scheduler.as_str()));
    // A second pass has no field `karras`.
    if let Some(spacing) = choice.spacing {
        field.insert("spacing".to_owned(), json!(spacing));
    }
    Ok(())
}

/// A text that asks for something else than in the first pass.
fn another(fields: &Fields, name: &str) -> Result<Option<String>, FieldError> {
    Ok(fields.text(&[name])?.filter(|text| !SAME.contains(&text.trim().to_lowercase().as_str())))
}

/// Clients send halves of steps: they are cut.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too large is refused")]
fn whole(fields: &Fields, name: &str) -> Result<Option<u32>, FieldError> {
    Ok(fields.number(&[name])?.map(|number| number as u32))
}
