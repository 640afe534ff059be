//! The fields of a request, read into our own words.

use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use serde_json::Value;

use super::batches::{Batch, Batches};
use super::choices::{Chosen, shown};
use super::error::A1111Error;
use super::hires::Hires;
use super::parameters::Parameters;
use super::sampler::{self, Choice};
use super::variation::Seeds;
use super::{A1111, canvas, checkpoint, img2img, infotext, scripts};
use crate::domain::{JobKind, NewJob, without_lora_tags, without_unknown_loras};
use crate::http::request::{Endpoints, ServedEndpoint};
use crate::http::surface::{Canvas, FieldError, Fields, Finish, Translation, body};

/// What is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Image,
}

impl Kind {
    /// A1111's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "txt2img",
            Self::Image => "img2img",
        }
    }
}

/// A request that was read.
pub struct Ask {
    pub endpoint: ServedEndpoint,
    /// What all jobs of the request have in common: its pictures, too.
    translation: Mutex<Translation>,
    pub batches: Batches,
    pub seeds: Seeds,
    pub canvas: Canvas,
    pub finish: Finish,
    pub hires: Option<Hires>,
    pub sampling: Choice,
    pub prompt: String,
    pub negative_prompt: String,
    pub steps: u32,
    pub cfg_scale: f64,
    pub clip_skip: u32,
    /// Where it means something.
    pub strength: Option<f64>,
    pub sends_images: bool,
    /// The request with A1111's defaults, for the answer.
    pub parameters: Value,
    /// The client's id of the task.
    pub task: Option<String>,
    pub warnings: Vec<String>,
}

/// A1111's defaults.
const STEPS: i128 = 50;
const CFG_SCALE: f64 = 7.0;
/// Our largest.
const MAX_GUIDANCE: f64 = 20.0;
const LONGEST_TASK: usize = 256;
/// The numbers that samplers may have.
const NUMBERS: [&str; 5] = ["eta", "s_churn", "s_tmin", "s_tmax", "s_noise"];
const JPEG_QUALITY: u8 = 80;

impl Ask {
    /// Reads a body. Blocks while it decodes pictures.
    pub fn read(
        sent: &Bytes,
        kind: Kind,
        chosen: &Chosen,
        endpoints: &Endpoints,
    ) -> Result<Self, A1111Error> {
        let mut fields = body::json(sent)?;
        if let Some(text) = fields.text(&["infotext"])? {
            infotext::fill(&mut fields, &text);
        }
        let parameters = Parameters::of(&fields, kind);
        let mut warnings = Vec::new();
        let settings = settings(&fields);
        let (chosen, unknown) = chosen.clone().with(&settings, endpoints)?;
        if let Some(name) = unknown {
            warnings.push(format!(
                "The checkpoint {name} is not here; {} draws.",
                chosen_name(&chosen, endpoints)
            ));
        }
        let endpoint = endpoint(&fields, &chosen, endpoints, &mut warnings)?.clone();

        let batches = Batches::read(&fields)?;
        let canvas = canvas::read(&fields, batches.pictures(), endpoint.rules.grid)?;
        let seeds = Seeds::read(&fields)?;
        let mut to = Translation::default();
        let (prompt, negative_prompt) = prompts(&fields, &endpoint, &mut to, &mut warnings)?;
        to.set_from("width", "width", canvas.drawn.width);
        to.set_from("height", "height", canvas.drawn.height);
        let steps = fields.integer(&["steps"])?.unwrap_or(STEPS);
        let steps = u32::try_from(steps)
            .map_err(|_| FieldError::new("steps", format!("steps is {steps}; it must be at least 1.")))?;
        to.set_from("num_inference_steps", "steps", steps);
        let cfg_scale = fields.number(&["cfg_scale"])?.unwrap_or(CFG_SCALE);
        let cfg_scale = guidance("cfg_scale", cfg_scale, &mut warnings);
        to.set_from("guidance_scale", "cfg_scale", cfg_scale);
        let sampling = sampling(&fields, &mut to, &mut warnings)?;
        to.set("noise", chosen.noise().as_str());
        let clip_skip = fields.integer(&["clip_skip"])?.and_then(|layers| u32::try_from(layers).ok());
        let clip_skip = clip_skip.or(chosen.clip_skip).unwrap_or(1).max(1);
        if clip_skip > 1 {
            to.set_from("clip_skip", "clip_skip", clip_skip);
        }

        let hires = match kind {
            Kind::Text => Hires::read(&fields, (canvas, steps), &endpoint.rules, &mut warnings)?,
            Kind::Image => {
                img2img::translate(&fields, &endpoint.rules, &mut to, &mut warnings)?;
                None
            }
        };
        if let Some(hires) = &hires {
            hires.check_size(canvas.drawn, batches.pictures(), endpoint.rules.grid)?;
            hires.translate(&mut to);
        }
        scripts::translate(&fields, &mut to, &mut warnings)?;
        ignored(&fields, &settings, &mut warnings)?;
        decoder(&settings, &endpoint, &mut to, &mut warnings);

        let strength = match kind {
            Kind::Text => hires.as_ref().map(Hires::strength),
            Kind::Image => to.get("prompt_strength").and_then(Value::as_f64),
        };
        // A second pass, and a picture that something is drawn into, have sizes of their own.
        let has_own_size = hires.is_some() || to.get("inpaint_area").is_some();
        let size = canvas.enlarge_to().filter(|_| !has_own_size);
        let finish = Finish { size, format: chosen.format(), quality: JPEG_QUALITY };
        let sends_images = fields.flag(&["send_images"])?.unwrap_or(true);
        let task = fields.text(&["force_task_id"])?.filter(|id| id.len() <= LONGEST_TASK);
        Ok(Self {
            endpoint,
            translation: Mutex::new(to),
            batches,
            seeds,
            canvas,
            finish,
            hires,
            sampling,
            prompt,
            negative_prompt,
            steps,
            cfg_scale,
            clip_skip,
            strength,
            sends_images,
            parameters,
            task,
            warnings,
        })
    }

    /// The job of a batch. Blocks while it checks pictures.
    pub fn job(&self, batch: Batch) -> Result<NewJob, A1111Error> {
        let mut translation = self.translation().clone();
        translation.set_from("num_outputs", "batch_size", batch.count);
        self.seeds.translate(batch, &mut translation);
        translation.into_job::<A1111>(&self.endpoint, JobKind::Held)
    }

    /// Whether its jobs hold pictures, which take long to check.
    pub fn is_heavy(&self) -> bool {
        let translation = self.translation();
        ["init_image", "controlnet"].iter().any(|name| translation.get(name).is_some())
    }

    /// Frees what only jobs need. There will be no further one.
    pub fn forget_pictures(&self) {
        *self.translation() = Translation::default();
    }

    fn translation(&self) -> MutexGuard<'_, Translation> {
        self.translation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields of `override_settings`.
fn settings(fields: &Fields) -> Fields {
    let settings = fields.value(&["override_settings"]).and_then(Value::as_object);
    Fields::new(settings.cloned().unwrap_or_default())
}

fn chosen_name(chosen: &Chosen, endpoints: &Endpoints) -> String {
    chosen.endpoint(endpoints).map(checkpoint::title).unwrap_or_default()
}

/// The endpoint that draws: the one that the request names, or else the one that is chosen.
fn endpoint<'a>(
    fields: &Fields,
    chosen: &Chosen,
    endpoints: &'a Endpoints,
    warnings: &mut Vec<String>,
) -> Result<&'a ServedEndpoint, A1111Error> {
    if let Some(name) = fields.text(&["model"])? {
        match checkpoint::find(endpoints, &name) {
            Some(endpoint) => return Ok(endpoint),
            None => warnings.push(format!(
                "The model {} is not here; {} draws.",
                shown(&name),
                chosen_name(chosen, endpoints)
            )),
        }
    }
    chosen.endpoint(endpoints).ok_or_else(|| A1111Error::Unsupported("This server has no model.".to_owned()))
}

/// Both prompts. LoRAs that are not here are left out of the prompt, as A1111 does.
fn prompts(
    fields: &Fields,
    endpoint: &ServedEndpoint,
    to: &mut Translation,
    warnings: &mut Vec<String>,
) -> Result<(String, String), FieldError> {
    let mut prompt = fields.text(&["prompt"])?.unwrap_or_default();
    let negative_prompt = fields.text(&["negative_prompt"])?.unwrap_or_default();
    if fields.flag(&["disable_extra_networks"])?.unwrap_or(false) {
        prompt = without_lora_tags(&prompt).into_owned();
    }
    for lora in fields.value(&["lora"]).and_then(Value::as_array).into_iter().flatten() {
        prompt.extend(tag(lora));
    }
    let (known, sentences) = without_unknown_loras(&prompt, endpoint.rules.loras.as_deref());
    warnings.extend(sentences.into_iter().map(|sentence| format!("A LoRA was ignored. {sentence}")));
    to.set_from("prompt", "prompt", known.as_ref());
    to.set_from("negative_prompt", "negative_prompt", negative_prompt.as_str());
    Ok((prompt, negative_prompt))
}

/// A LoRA as stable-diffusion.cpp's clients name it, as a tag.
fn tag(lora: &Value) -> Option<String> {
    let path = lora.get("path").or_else(|| lora.get("name"))?.as_str()?;
    let file = path.rsplit(['/', '\\']).next()?;
    let scale = lora.get("multiplier").and_then(Value::as_f64).unwrap_or(1.0);
    (!file.is_empty() && !file.contains([':', '<', '>'])).then(|| format!(" <lora:{file}:{scale}>"))
}

/// A CFG scale, brought within our limits. Another scale draws another picture, so the client hears of it.
pub fn guidance(name: &str, asked: f64, warnings: &mut Vec<String>) -> f64 {
    let scale = asked.clamp(1.0, MAX_GUIDANCE);
    if (scale - asked).abs() > 0.0 {
        warnings.push(format!(
            "{name} is {asked}; {scale} was used, because it must be from 1 to {MAX_GUIDANCE}."
        ));
    }
    scale
}

/// The sampler, the scheduler, and their numbers. As in A1111, a number that the sampler does not have means nothing.
fn sampling(fields: &Fields, to: &mut Translation, warnings: &mut Vec<String>) -> Result<Choice, FieldError> {
    let (sampler, scheduler) = sampler::named(fields)?;
    let choice = sampler::choose(sampler.as_deref(), scheduler.as_deref(), warnings);
    to.set_from("scheduler", "sampler_name", choice.scheduler.as_str());
    if let Some((name, spacing)) = choice.spacing_field() {
        to.set_from(name, "scheduler", spacing);
    }
    for name in
        NUMBERS.into_iter().filter(|name| fields.name_of(&[name]).is_some() && choice.has_number(name))
    {
        to.number(name, fields, &[name])?;
    }
    Ok(choice)
}

/// TAESD, if the settings name it and the model has a tiny VAE. The picture is nearly the same without.
fn decoder(settings: &Fields, endpoint: &ServedEndpoint, to: &mut Translation, warnings: &mut Vec<String>) {
    const NAME: &str = "sd_vae_decode_method";
    if settings.text(&[NAME]).ok().flatten().is_none_or(|method| method != "TAESD") {
        return;
    }
    match endpoint.rules.takes("vae") {
        true => to.set_from("vae", NAME, "tiny"),
        false => warnings.push(format!("{NAME} TAESD was ignored: there is no tiny VAE for this model.")),
    }
}

/// Warns of what asks for another picture than comes out, but for one that is much the same.
fn ignored(fields: &Fields, settings: &Fields, warnings: &mut Vec<String>) -> Result<(), FieldError> {
    let is_named = |fields: &Fields, name: &str| {
        let text = fields.text(&[name]).ok().flatten().unwrap_or_default();
        !matches!(text.trim().to_lowercase().as_str(), "" | "none" | "automatic" | "0")
    };
    if fields.flag(&["restore_faces"]).ok().flatten() == Some(true) {
        warnings.push("restore_faces was ignored: there is no face restorer here.".to_owned());
    }
    if is_named(fields, "refiner_checkpoint") && fields.number(&["refiner_switch_at"])?.unwrap_or(0.0) > 0.0 {
        warnings.push("refiner_checkpoint was ignored: one model draws all steps.".to_owned());
    }
    if is_named(settings, "sd_vae") {
        warnings.push("sd_vae was ignored: the model's own VAE is used.".to_owned());
    }
    Ok(())
}
