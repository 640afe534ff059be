//! `GET /model`: what the model of an endpoint takes.

use stablehand::domain::GenerationInput;

use crate::client::Request;
use crate::engine::Script;
use crate::helpers::TestApp;

const MODEL: &str = "/v2/stable-diffusion-v1/model";

fn names(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn a_model_names_the_fields_that_it_takes() {
    let app = TestApp::start();
    let model = app.get(MODEL).json();
    assert_eq!(model["name"], "scripted");
    let fields = names(&model["fields"]);
    // The scripted model takes no LoRAs, gives only its last layer, is no InstructPix2Pix model, has no tiny VAE, and draws in
    // full precision alone.
    let missing: Vec<&str> =
        GenerationInput::FIELDS.into_iter().filter(|field| !fields.contains(field)).collect();
    assert_eq!(
        missing,
        ["clip_skip", "precision", "image_guidance_scale", "controlnet", "vae", "lora", "lora_scale"]
    );
    assert_eq!(names(&model["required"]), ["prompt"]);
    assert_eq!(model["defaults"]["scheduler"], "K-LMS");
    assert_eq!(model["defaults"]["cache_interval"], 1);
    assert!(model["defaults"].get("vae").is_none(), "it takes none");
    assert_eq!((&model["grid"], &model["max_clip_skip"]), (&64.into(), &1.into()));
    let scheduler =
        |name: &str| model["schedulers"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    let (ancestral, own) = (scheduler("EULER-A"), scheduler("IPNDM"));
    assert_eq!((&ancestral["title"], &ancestral["from_image"]), (&"Euler a".into(), &true.into()));
    assert!(
        names(&ancestral["options"]).contains(&"eta") && names(&ancestral["spacings"]).contains(&"karras")
    );
    assert_eq!((&own["from_image"], names(&own["spacings"]).len()), (&false.into(), 0));
    let (enlarging, preparing) = (names(&model["built_in_upscalers"]), names(&model["preprocessors"]));
    assert!(enlarging.contains(&"latent-bicubic") && enlarging.contains(&"lanczos"));
    assert_eq!(preparing.iter().filter(|name| name.starts_with("blur")).count(), 1, "one name each");
    assert_eq!(Request::new("GET", MODEL).send(app.port).status, 401);
}

#[test]
fn a_model_that_changes_pictures_needs_one_and_takes_no_mask() {
    let app = TestApp::launch(|_| {}, Script::editing());
    let model = app.get(MODEL).json();
    assert_eq!(names(&model["required"]), ["prompt", "init_image"]);
    let fields = names(&model["fields"]);
    assert!(fields.contains(&"image_guidance_scale") && !fields.contains(&"mask"));
    assert!(!fields.contains(&"hires"), "a request with it is refused");
}
