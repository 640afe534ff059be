//! `info` of an answer: JSON as text. Some clients require all of its keys and types.

use chrono::DateTime;
use serde_json::{Value, json};

use super::answer::{Drawn, Picture};
use super::ask::Ask;
use crate::domain::Timestamp;

pub fn info(ask: &Ask, drawn: &Drawn) -> String {
    let pictures = &drawn.pictures;
    let each = |value: &dyn Fn(&Picture) -> Value| -> Vec<Value> { pictures.iter().map(value).collect() };
    let seeds = ask.seeds.of(0);
    let resize = ask.seeds.resize_from.map_or((-1, -1), |(w, h)| (i64::from(w), i64::from(h)));
    let mut extra = json!({});
    if let Some(label) = ask.sampling.spacing_label() {
        extra["Schedule type"] = json!(label);
    }
    json!({
        "prompt": ask.prompt,
        "all_prompts": each(&|_| json!(ask.prompt)),
        "negative_prompt": ask.negative_prompt,
        "all_negative_prompts": each(&|_| json!(ask.negative_prompt)),
        "seed": seeds.0,
        "all_seeds": each(&|picture| json!(picture.seed)),
        "subseed": seeds.1,
        "all_subseeds": each(&|picture| json!(picture.subseed)),
        "subseed_strength": ask.seeds.strength,
        "width": ask.canvas.asked.width,
        "height": ask.canvas.asked.height,
        "sampler_name": ask.sampling.scheduler.a1111_name(),
        "cfg_scale": ask.cfg_scale,
        "steps": ask.steps,
        "batch_size": ask.batches.size,
        "restore_faces": false,
        "face_restoration_model": null,
        "sd_model_name": ask.endpoint.id,
        "sd_model_hash": "",
        "sd_vae_name": null,
        "sd_vae_hash": null,
        "seed_resize_from_w": resize.0,
        "seed_resize_from_h": resize.1,
        "denoising_strength": ask.strength,
        "extra_generation_params": extra,
        "index_of_first_image": 0,
        "infotexts": each(&|picture| json!(picture.infotext)),
        "styles": [],
        "job_timestamp": timestamp(drawn.begun_at),
        "clip_skip": ask.clip_skip,
        "is_using_inpainting_conditioning": false,
        "version": concat!("stablehand ", env!("CARGO_PKG_VERSION")),
    })
    .to_string()
}

/// A time as A1111 writes it, in UTC: `20260131235959`.
pub fn timestamp(time: Timestamp) -> String {
    DateTime::from_timestamp_millis(time.0)
        .map_or("0".to_owned(), |time| time.format("%Y%m%d%H%M%S").to_string())
}
