//! Models that cannot be used are refused with one sentence that says why.

use std::fs;
use std::path::Path;

use stablehand::config::usual_add_ons;
use stablehand::diffusion::Model;

use crate::drawing::load;
use crate::folders::Folder;
use crate::onnx::{BFLOAT16, FLOAT, cast, int64s, node, port};

#[track_caller]
fn assert_refused(folder: &Folder, parts: &[&str]) {
    let sentence = load(folder).err().unwrap().to_string();
    assert!(!sentence.contains('\n'), "{sentence}");
    for part in parts {
        assert!(sentence.contains(part), "no '{part}' in: {sentence}");
    }
}

#[test]
fn files_that_are_not_checkpoints_are_refused_by_their_kind() {
    let folder = tempfile::tempdir().unwrap();
    for (name, reason) in [
        ("model.safetensors", "fetch it again"),
        ("model.ckpt", "fetch it again"),
        ("model.gguf", "GGUF"),
        ("model.onnx", "name the folder"),
        ("notes.txt", "not one of weights"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, b"").unwrap();
        let sentence = Model::open(Some(&path), None).err().unwrap().to_string();
        assert!(sentence.contains(reason) && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn an_onnx_folder_takes_no_loras() {
    let folder = Folder::tiny_sd();
    let model = Model::open(Some(folder.path()), Some(usual_add_ons(Path::new("/nowhere")))).unwrap();
    assert!(!model.takes_add_ons() && model.rules().loras.is_none() && !model.rules().takes("precision"));
}

#[test]
fn flat_folders_are_refused() {
    let folder = Folder::tiny_sd();
    fs::rename(folder.file("unet/model.onnx"), folder.file("sd-unet-v1.5-model-b2c4h64w64s77-float16.onnx"))
        .unwrap();
    assert_refused(&folder, &["lie flat", "optimum-cli export onnx"]);
}

#[test]
fn fixed_sizes_are_refused() {
    let pass = |given: &str, inside: &str| vec![cast(given, inside, FLOAT)];
    let folder = Folder::tiny_sd();
    folder.edit("unet", |model| {
        model.graph().replace_input("sample", port("sample", FLOAT, &["2", "4", "64", "64"]), pass);
    });
    assert_refused(&folder, &["unet", "64×64 only", "dynamic axes"]);

    let folder = Folder::tiny_sd();
    folder.edit("unet", |model| {
        model.graph().replace_input("sample", port("sample", FLOAT, &["2", "4", "h", "w"]), pass);
    });
    assert_refused(&folder, &["a batch of 2 only"]);
}

#[test]
fn other_families_are_refused_by_name() {
    for (class, family) in [
        ("StableDiffusionXLPipeline", "Stable Diffusion XL"),
        ("ORTStableDiffusionXLImg2ImgPipeline", "Stable Diffusion XL"),
        ("StableDiffusion3Pipeline", "StableDiffusion3Pipeline"),
        ("FluxPipeline", "FluxPipeline"),
    ] {
        let folder = Folder::tiny_sd();
        folder.edit_json("model_index.json", |index| {
            index.insert("_class_name".into(), class.into());
        });
        assert_refused(&folder, &[family, "Stable Diffusion v1"]);
    }
    let folder = Folder::tiny_sd();
    fs::create_dir(folder.file("text_encoder_2")).unwrap();
    assert_refused(&folder, &["two text encoders"]);

    let folder = Folder::tiny_sd();
    folder.edit_json("unet/config.json", |unet| {
        unet.insert("cross_attention_dim".into(), 1024.into());
    });
    assert_refused(&folder, &["Stable Diffusion 2", "1024"]);
}

#[test]
fn a_unet_of_another_family_is_recognised_by_its_graph() {
    let pass = |given: &str, inside: &str| vec![cast(given, inside, FLOAT)];
    let folder = Folder::tiny_sd();
    folder.edit("unet", |model| {
        model.graph().inputs.push(port("text_embeds", FLOAT, &["batch", "1280"]));
    });
    assert_refused(&folder, &["text_embeds"]);

    let folder = Folder::tiny_sd();
    folder.edit("unet", |model| {
        model.graph().replace_input("sample", port("sample", FLOAT, &["batch", "8", "h", "w"]), pass);
    });
    assert_refused(&folder, &["8 channels"]);

    let folder = Folder::tiny_sd();
    folder.edit("unet", |model| {
        let graph = model.graph();
        graph.initializers.extend([int64s("from", &[0]), int64s("to", &[160]), int64s("axis", &[2])]);
        let wide = port("encoder_hidden_states", FLOAT, &["batch", "sequence", "768"]);
        graph.replace_input("encoder_hidden_states", wide, |given, inside| {
            vec![node("Slice", &[given, "from", "to", "axis"], &[inside], &[])]
        });
    });
    assert_refused(&folder, &["width 768", "writes width 160", "different models"]);
}

#[test]
fn bfloat16_is_refused_by_name() {
    let folder = Folder::tiny_sd();
    folder.edit("vae_decoder", |model| {
        let latents = port("latent_sample", BFLOAT16, &["batch", "4", "h", "w"]);
        model
            .graph()
            .replace_input("latent_sample", latents, |given, inside| vec![cast(given, inside, FLOAT)]);
    });
    assert_refused(&folder, &["vae_decoder", "bfloat16"]);
}

#[test]
fn a_missing_file_is_named() {
    for (missing, named) in [
        ("unet/model.onnx", "unet/model.onnx"),
        ("vae_decoder", "vae_decoder/model.onnx"),
        ("tokenizer", "tokenizer"),
        ("tokenizer/vocab.json", "vocab.json"),
    ] {
        let folder = Folder::tiny_sd();
        folder.remove(&[missing]);
        assert_refused(&folder, &[named]);
    }
}

#[test]
fn missing_and_truncated_weights_are_an_error_and_not_a_crash() {
    let folder = Folder::tiny_sd();
    folder.move_weights(&["unet"], "weights.pb");
    let weights = fs::read(folder.file("unet/weights.pb")).unwrap();
    fs::write(folder.file("unet/weights.pb"), &weights[..weights.len() / 2]).unwrap();
    assert_refused(&folder, &["unet"]);
    folder.remove(&["unet/weights.pb"]);
    assert_refused(&folder, &["unet"]);
    fs::write(folder.file("unet/model.onnx"), b"version https://git-lfs.github.com/spec/v1").unwrap();
    assert_refused(&folder, &["unet"]);
}
