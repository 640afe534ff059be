//! Tensors under other names are found, strays make a checkpoint nothing else, and what is not read is said by name.

use std::fs;

use safetensors::tensor::Dtype;
use stablehand::diffusion::Model;

use crate::check::{check, one_line};
use crate::checkpoints::{
    Checkpoint, FILES, Tensor, Tensors, assert_draws_as_the_built_in, component, diffusers_folder, original,
    pipeline, refusal, write,
};
use crate::drawing::heart;
use stablehand::domain::SchedulerKind;

fn small() -> Tensor {
    Tensor { dtype: Dtype::F16, shape: vec![2, 2], bytes: vec![0; 8] }
}

fn renamed(rename: impl Fn(&str) -> String) -> Tensors {
    original().into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

#[test]
fn a_checkpoint_with_strays_is_a_checkpoint_and_they_are_said() {
    let strays = [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("control_model.zero_convs.0.0.bias", "a ControlNet"),
        ("emb_params", "a textual inversion"),
        ("conditioner.embedders.1.model.ln_final.bias", "conditioner.embedders.1"),
        ("double_blocks.0.img_attn.qkv.weight", "double_blocks.0"),
        ("unknown.weight", "unknown.weight"),
    ];
    for (name, what) in strays {
        let mut tensors = original();
        tensors.insert(name.to_owned(), small());
        let checkpoint = Checkpoint::of(&tensors);
        assert_draws_as_the_built_in(&checkpoint.path());
        let (code, stdout, _) = check(&checkpoint.path());
        let said = one_line(&stdout);
        assert_eq!(code, Some(0), "{stdout}");
        assert!(said.contains(&format!("not read are 1 tensor of fox.safetensors: {name}")), "{stdout}");
        assert!(said.contains(what), "{stdout}");
        let drawn =
            pipeline(&checkpoint.path()).unwrap().draw(&heart(SchedulerKind::EulerD), 7).unwrap().remove(0);
        let text = String::from_utf8_lossy(&drawn.png).into_owned();
        assert!(text.contains("Not read: "), "the picture's text says it");
    }
}

#[test]
fn what_drawing_does_not_need_is_no_warning() {
    let mut tensors = original();
    for name in [
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "model_ema.decay",
        "alphas_cumprod",
        "first_stage_model.loss.logvar",
        "cond_stage_model.logit_scale",
    ] {
        tensors.insert(name.to_owned(), small());
    }
    let checkpoint = Checkpoint::of(&tensors);
    let model = Model::open(Some(&checkpoint.path()), None).unwrap();
    assert_eq!(model.unread().not_read, Vec::<String>::new());
    let not_needed = model.unread().not_needed.join("\n");
    for part in ["position_ids", "model_ema.decay", "alphas_cumprod", "loss.logvar", "logit_scale"] {
        assert!(not_needed.contains(part), "{not_needed}");
    }
    assert!(
        Model::open(Some(&Checkpoint::of(&original()).path()), None).unwrap().unread().not_needed.is_empty()
    );
}

#[test]
fn the_same_tensors_under_other_names_draw_the_same() {
    let text = "cond_stage_model.transformer.text_model.";
    let prefixes = ["model.diffusion_model.", "first_stage_model."];
    let with = |unet: &'static str, vae: &'static str, text_encoder: &'static str| {
        move |name: &str| {
            let name = name.replacen(prefixes[0], unet, 1).replacen(prefixes[1], vae, 1);
            name.replacen(text, text_encoder, 1)
        }
    };
    for rename in [
        with(prefixes[0], prefixes[1], "cond_stage_model.transformer."),
        with(prefixes[0], prefixes[1], "te.text_model."),
        with(prefixes[0], prefixes[1], "text_encoder.text_model."),
        with(prefixes[0], prefixes[1], "conditioner.embedders.0.transformer.text_model."),
        with("unet.", "vae.", "text_encoder."),
        with("diffusion_model.", "vae.", "text_encoders.clip_l.transformer.text_model."),
        with("model.diffusion_model._orig_mod.", prefixes[1], text),
    ] {
        assert_draws_as_the_built_in(&Checkpoint::of(&renamed(rename)).path());
    }
    for wrapper in ["module.", "_orig_mod.", "state_dict."] {
        assert_draws_as_the_built_in(&Checkpoint::of(&renamed(|name| format!("{wrapper}{name}"))).path());
    }

    // All parts of a diffusers folder in one file.
    let mut dump = Tensors::new();
    for (part, file) in FILES {
        dump.extend(
            component(part, file).into_iter().map(|(name, tensor)| (format!("{part}.{name}"), tensor)),
        );
    }
    assert_draws_as_the_built_in(&Checkpoint::of(&dump).path());
}

#[test]
fn weights_in_a_folder_may_have_other_file_names_and_wrapped_names() {
    let folder = diffusers_folder();
    let rename = |part: &str, from: &str, to: &str| {
        fs::rename(folder.path().join(part).join(from), folder.path().join(part).join(to)).unwrap();
    };
    rename("text_encoder", FILES[0].1, "pytorch_model.safetensors");
    rename("vae", FILES[2].1, "sd-vae-ft-mse-840000-ema-pruned.safetensors");
    let unet = component("unet", FILES[1].1).into_iter();
    let unet = unet.map(|(name, tensor)| (format!("_orig_mod.{name}"), tensor)).collect();
    write(&unet, &folder.path().join("unet").join(FILES[1].1));
    assert_draws_as_the_built_in(folder.path());

    fs::copy(
        folder.path().join("vae/sd-vae-ft-mse-840000-ema-pruned.safetensors"),
        folder.path().join("vae/another.safetensors"),
    )
    .unwrap();
    let model = Model::open(Some(folder.path()), None).unwrap();
    assert_eq!(
        model.unread().not_read,
        ["vae/sd-vae-ft-mse-840000-ema-pruned.safetensors is not read: other weights of that folder are"]
    );
}

#[test]
fn a_folder_with_one_checkpoint_in_it_is_that_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("My Models (2023)/Fox v1.0 – final");
    fs::create_dir_all(&inner).unwrap();
    let tensors = original();
    write(&tensors, &inner.join("fox mix.safetensors"));
    let vae = tensors.into_iter().filter(|(name, _)| name.starts_with("first_stage_model.")).collect();
    write(&vae, &inner.join("fox mix.vae.safetensors"));
    fs::write(inner.join("read me.txt"), "").unwrap();
    assert_draws_as_the_built_in(&inner);
    assert_eq!(Model::open(Some(&inner), None).unwrap().name(), "fox mix");

    write(&vae, &inner.join("another.safetensors"));
    let sentence = refusal(&inner);
    assert!(
        sentence.contains("another.safetensors") && sentence.contains("fox mix.safetensors"),
        "{sentence}"
    );
}

#[test]
fn a_vae_beside_it_that_is_not_read_is_said() {
    let checkpoint = Checkpoint::of(&original());
    write(&component("vae", FILES[2].1), &checkpoint.path().with_extension("vae.safetensors"));
    fs::write(checkpoint.path().with_extension("vae.pt"), b"another").unwrap();
    let (code, stdout, _) = check(&checkpoint.path());
    assert_eq!(code, Some(0), "{stdout}");
    let sentence = "fox.vae.pt beside it is not read: fox.vae.safetensors is";
    assert!(one_line(&stdout).contains(sentence), "{stdout}");
    let drawn =
        pipeline(&checkpoint.path()).unwrap().draw(&heart(SchedulerKind::EulerD), 7).unwrap().remove(0);
    assert!(String::from_utf8_lossy(&drawn.png).contains("Not read: fox.vae.pt"));
}

#[test]
fn hostile_names_make_short_sentences() {
    let mut tensors = original();
    for number in 0..2000 {
        tensors.insert(format!("{number}{}\n\u{1b}[31m.weight", "x".repeat(300)), small());
    }
    let (code, stdout, _) = check(&Checkpoint::of(&tensors).path());
    assert_eq!(code, Some(0));
    assert!(stdout.len() < 8000 && !stdout.contains('\u{1b}'), "{stdout}");
    assert!(one_line(&stdout).contains("tensors of 1992 other kinds in fox.safetensors"), "{stdout}");
}
