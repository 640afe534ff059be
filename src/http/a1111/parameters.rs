//! `parameters` of an answer: the request with A1111's defaults.
//!
//! Only fields of A1111's API are repeated, and of those only texts, numbers and booleans: pictures are large, and
//! unknown fields may be secrets.

use serde_json::{Map, Value, json};

use super::ask::Kind;
use crate::http::surface::Fields;

/// The longest text that is repeated. Prompts are checked, but nothing else is.
const LONGEST: usize = 65_536;

pub struct Parameters;

impl Parameters {
    pub fn of(fields: &Fields, kind: Kind) -> Value {
        let mut parameters = common();
        parameters.extend(match kind {
            Kind::Text => text(),
            Kind::Image => image(),
        });
        for (name, default) in &mut parameters {
            if let Some(sent) = fields.value(&[name]).filter(|sent| is_small(sent)) {
                *default = sent.clone();
            }
        }
        for picture in ["init_images", "mask"] {
            if let Some(value) = parameters.get_mut(picture) {
                *value = Value::Null;
            }
        }
        if kind == Kind::Image && fields.flag(&["include_init_images"]).ok().flatten() == Some(true) {
            for picture in ["init_images", "mask"] {
                parameters[picture] = fields.value(&[picture]).cloned().unwrap_or_default();
            }
        }
        Value::Object(parameters)
    }
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= LONGEST,
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    }
}

fn common() -> Map<String, Value> {
    let mut common = what_is_drawn();
    common.extend(how_it_is_drawn());
    common
}

fn what_is_drawn() -> Map<String, Value> {
    object(json!({
        "prompt": "", "negative_prompt": "", "styles": null, "seed": -1, "subseed": -1, "subseed_strength": 0,
        "seed_resize_from_h": -1, "seed_resize_from_w": -1, "sampler_name": null, "sampler_index": "Euler",
        "scheduler": null, "batch_size": 1, "n_iter": 1, "steps": 50, "cfg_scale": 7.0, "width": 512, "height": 512,
        "restore_faces": null, "tiling": null,
    }))
}

fn how_it_is_drawn() -> Map<String, Value> {
    object(json!({
        "do_not_save_samples": false, "do_not_save_grid": false, "eta": null,
        "denoising_strength": null, "s_min_uncond": null, "s_churn": null, "s_tmax": null, "s_tmin": null,
        "s_noise": null, "override_settings": null, "override_settings_restore_afterwards": true,
        "refiner_checkpoint": null, "refiner_switch_at": null, "disable_extra_networks": false, "comments": null,
        "firstphase_width": 0, "firstphase_height": 0, "script_name": null, "script_args": [], "send_images": true,
        "save_images": false, "alwayson_scripts": {}, "infotext": null, "force_task_id": null,
    }))
}

fn text() -> Map<String, Value> {
    object(json!({
        "enable_hr": false, "hr_scale": 2.0, "hr_upscaler": null, "hr_second_pass_steps": 0, "hr_resize_x": 0,
        "hr_resize_y": 0, "hr_checkpoint_name": null, "hr_sampler_name": null, "hr_scheduler": null,
        "hr_prompt": "", "hr_negative_prompt": "",
    }))
}

fn image() -> Map<String, Value> {
    object(json!({
        "denoising_strength": 0.75, "init_images": null, "resize_mode": 0, "image_cfg_scale": null, "mask": null,
        "mask_blur_x": 4, "mask_blur_y": 4, "mask_blur": null, "mask_round": true, "inpainting_fill": 0,
        "inpaint_full_res": true, "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0,
        "initial_noise_multiplier": null, "latent_mask": null, "include_init_images": false,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_fields_of_the_api_are_repeated() {
        let sent = json!({
            "prompt": "a fox", "steps": "20", "url": "http://a", "auth": "user:password", "mask": "AAAA",
            "init_images": ["AAAA"], "alwayson_scripts": {"x": {"args": ["secret"]}}, "seed": null,
        });
        let fields = Fields::new(object(sent));
        let parameters = Parameters::of(&fields, Kind::Image);
        assert_eq!((&parameters["prompt"], &parameters["steps"]), (&json!("a fox"), &json!("20")));
        assert_eq!((&parameters["seed"], &parameters["cfg_scale"]), (&json!(-1), &json!(7.0)));
        assert_eq!((&parameters["init_images"], &parameters["mask"]), (&Value::Null, &Value::Null));
        let text = parameters.to_string();
        assert!(!text.contains("password") && !text.contains("secret") && !text.contains("AAAA"), "{text}");
    }

    #[test]
    fn pictures_are_repeated_if_asked() {
        let sent = json!({"init_images": ["AAAA"], "include_init_images": true});
        let parameters = Parameters::of(&Fields::new(object(sent)), Kind::Image);
        assert_eq!((&parameters["init_images"], &parameters["mask"]), (&json!(["AAAA"]), &Value::Null));
    }
}
