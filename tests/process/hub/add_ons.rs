//! LoRAs, ControlNets and tiny VAEs are pulled into folders of their own.

use super::fake_hub::FakeHub;
use super::pulled::names;
use super::{diffusers, noted, on_hub, pickle, pull, safetensors, said};
use crate::helpers::{assert_refused, data_dir, output, stablehand};

#[test]
fn a_lora_can_be_pulled_into_the_lora_folder() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/loras", &[("styles/ink.safetensors", safetensors(1000, 1))]);
    said(&pull(&hub, folder.path(), "org/loras:styles/ink.safetensors"));
    let mut command = stablehand(&["generate", "a dog <lora:ink:0.5>", "--device", "cpu", "--lora-dir"]);
    command.arg(folder.path());
    // The file is found, but it is not a valid LoRA.
    assert_refused(&output(command), 1, &["ink.safetensors"]);
}

#[test]
fn a_controlnet_is_pulled_into_its_own_folder_and_listed_by_the_name_for_requests() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let config = br#"{"_class_name": "ControlNetModel", "cross_attention_dim": 768}"#;
    hub.add(
        "org/canny",
        &[
            ("README.md", b"# A ControlNet".to_vec()),
            ("config.json", config.to_vec()),
            ("diffusion_pytorch_model.bin", pickle(3000)),
            ("diffusion_pytorch_model.fp16.safetensors", safetensors(2000, 1)),
            ("diffusion_pytorch_model.safetensors", safetensors(4000, 2)),
        ],
    );
    hub.add(
        "org/many",
        &[("a.safetensors", safetensors(100, 1)), ("b_depth.safetensors", safetensors(300, 2))],
    );
    hub.add(
        "org/flux",
        &[
            ("config.json", br#"{"_class_name": "FluxControlNetModel"}"#.to_vec()),
            ("diffusion_pytorch_model.safetensors", safetensors(100, 1)),
        ],
    );
    hub.add("org/model", &diffusers());
    let controlnets = |args: &[&str]| {
        let mut command = on_hub(&hub, "controlnets", args);
        command.env("STABLEHAND_CONTROLNET_DIR", folder.path());
        output(command)
    };
    let pulled = said(&controlnets(&["pull", "org/canny"]));
    assert_eq!(pulled, "org/canny has been pulled (2.1 kB): requests use it as org/canny\n");
    assert_eq!(
        names(&folder.path().join("org/canny")),
        [".pulled.json", "config.json", "diffusion_pytorch_model.fp16.safetensors"]
    );
    let pulled = said(&controlnets(&["pull", "org/many:b_depth.safetensors"]));
    assert!(pulled.contains("b_depth"), "{pulled}");
    let listed = said(&controlnets(&["list"]));
    assert!(listed.contains("org/canny ") && listed.contains("b_depth"), "{listed}");
    for (name, reason) in [
        (
            "org/many",
            "has more than one model; name one: org/many:a.safetensors, org/many:b_depth.safetensors",
        ),
        ("org/flux", "it is a FluxControlNetModel according to its config.json"),
        ("org/model", "is a whole model and no ControlNet"),
    ] {
        let refused = noted(&controlnets(&["pull", name]));
        assert!(refused.contains(reason), "{refused}");
    }
    assert!(said(&controlnets(&["rm", "org/canny"])).starts_with("removed org/canny"));
    assert!(!said(&controlnets(&["list"])).contains("org/canny"));
}

#[test]
fn a_tiny_vae_is_pulled_into_its_own_folder() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let of = |config: &[u8]| {
        vec![
            ("README.md", b"# TAESD".to_vec()),
            ("config.json", config.to_vec()),
            ("diffusion_pytorch_model.safetensors", safetensors(4000, 2)),
            ("taesd_decoder.safetensors", safetensors(2000, 3)),
            ("taesd_encoder.safetensors", safetensors(2000, 4)),
        ]
    };
    hub.add("org/taesd", &of(br#"{"_class_name": "AutoencoderTiny", "latent_channels": 4}"#));
    hub.add("org/taesd3", &of(br#"{"_class_name": "AutoencoderTiny", "latent_channels": 16}"#));
    hub.add("org/vae", &of(br#"{"_class_name": "AutoencoderKL", "latent_channels": 4}"#));
    hub.add("org/model", &diffusers());
    let pull = |name: &str| {
        let mut command = on_hub(&hub, "models", &["pull", "--tiny-vae", name]);
        command.env("STABLEHAND_TINY_VAE_DIR", folder.path());
        output(command)
    };
    let pulled = said(&pull("org/taesd"));
    let expected = "org/taesd has been pulled (4.1 kB): use it with --vae tiny or \"vae\": \"tiny\"\n";
    assert_eq!(pulled, expected);
    assert_eq!(
        names(&folder.path().join("org/taesd")),
        [".pulled.json", "config.json", "diffusion_pytorch_model.safetensors"]
    );
    let pulled = said(&pull("org/taesd3:taesd_decoder.safetensors"));
    assert!(pulled.contains("taesd_decoder"), "{pulled}");
    for (name, reason) in [
        ("org/taesd3", "cannot be used: it decodes latents of 16 channels; Stable Diffusion v1's have 4"),
        (
            "org/vae",
            "it is a AutoencoderKL according to its config.json; only an AutoencoderTiny can be used",
        ),
        ("org/model", "is a whole model and no tiny VAE"),
    ] {
        let refused = noted(&pull(name));
        assert!(refused.contains(reason), "{refused}");
    }
}
