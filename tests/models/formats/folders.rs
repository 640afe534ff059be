//! Folders: diffusers' with weights, and ONNX exports.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::weights::{brain, from_brain, full, renamed, reshape};
use super::workbench::{Workbench, bytes_of, edit_json, file_of};
use super::{Becomes, Row, hold};
use crate::checkpoints::{Tensors, component, original, write};
use crate::folders::Folder;
use crate::onnx::{BFLOAT16, FLOAT, INT64, cast, port};

/// Puts a test's ONNX folder on the bench.
fn onnx(bench: &Workbench, folder: &Folder) -> PathBuf {
    let place = bench.place().join("fox");
    copy(folder.path(), &place);
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The UNet in two files, named with this pattern, and an index if there is a name for it.
fn shards(path: &Path, pattern: &str, index: Option<&str>) {
    let unet = path.join("unet");
    fs::remove_file(unet.join(file_of("unet"))).unwrap();
    let mut first = component("unet", file_of("unet"));
    let second = first.split_off("mid_block");
    let mut map = serde_json::Map::new();
    for (number, tensors) in ["1", "2"].into_iter().zip([&first, &second]) {
        let name = pattern.replace('#', number);
        write(tensors, &unet.join(&name));
        map.extend(tensors.keys().map(|tensor| (tensor.clone(), Value::from(name.as_str()))));
    }
    if let Some(index) = index {
        fs::write(unet.join(index), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    }
}

fn unet_from_brain() -> Tensors {
    let rounded: Vec<_> =
        from_brain(&original()).into_iter().filter(|(name, _)| name.starts_with("model.")).collect();
    let mut tensors = full(&original());
    tensors.extend(rounded);
    tensors
}

#[rustfmt::skip] // a row is a line where it fits
pub const ROWS: &[Row] = &[
    // diffusers: weights.
    Row { what: "half precision as a variant", becomes: Becomes::Drawn, made: |bench| bench.folder(|_| {}) },
    Row { what: "single precision without a variant", becomes: Becomes::Drawn, made: |bench| bench.part("unet", "diffusion_pytorch_model.safetensors", |tensors| *tensors = full(tensors)) },
    Row { what: "both of them", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        write(&full(&component("unet", file_of("unet"))), &path.join("unet/diffusion_pytorch_model.safetensors"));
    }) },
    Row { what: "bfloat16", becomes: Becomes::DrawnAs(unet_from_brain), made: |bench| bench.part("unet", "diffusion_pytorch_model.bf16.safetensors", |tensors| *tensors = brain(tensors)) },
    Row { what: "shards with an index", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        shards(path, "diffusion_pytorch_model-0000#-of-00002.safetensors", Some("diffusion_pytorch_model.safetensors.index.json"));
    }) },
    Row { what: "shards of a variant with an index", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        shards(path, "diffusion_pytorch_model.fp16-0000#-of-00002.safetensors", Some("diffusion_pytorch_model.safetensors.index.fp16.json"));
    }) },
    Row { what: "shards without an index", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        shards(path, "diffusion_pytorch_model-0000#-of-00002.safetensors", None);
    }) },
    Row { what: "a shard is missing", becomes: Becomes::Refused(&["one of 2 files, but only 1"]), made: |bench| bench.folder(|path| {
        shards(path, "diffusion_pytorch_model-0000#-of-00002.safetensors", None);
        fs::remove_file(path.join("unet/diffusion_pytorch_model-00002-of-00002.safetensors")).unwrap();
    }) },
    Row { what: "a text encoder without text_model", becomes: Becomes::Drawn, made: |bench| bench.part("text_encoder", "model.safetensors", |tensors| {
        *tensors = renamed(tensors, |name| name.trim_start_matches("text_model.").to_owned());
    }) },
    Row { what: "a VAE of diffusers before 0.18", becomes: Becomes::Drawn, made: |bench| bench.part("vae", "diffusion_pytorch_model.safetensors", |tensors| {
        *tensors = renamed(tensors, |name| match name.contains("attentions.0.") {
            true => name.replace("to_q.", "query.").replace("to_k.", "key.").replace("to_v.", "value.").replace("to_out.0.", "proj_attn."),
            false => name.to_owned(),
        });
    }) },
    Row { what: "1×1 convolutions as matrices", becomes: Becomes::Drawn, made: |bench| bench.part("unet", "diffusion_pytorch_model.safetensors", |tensors| {
        reshape(tensors, |name| name.ends_with("proj_in.weight") || name.ends_with("proj_out.weight"), false);
    }) },
    Row { what: "a UNet with the names of a checkpoint", becomes: Becomes::Refused(&["diffusion_pytorch_model.safetensors has no tensor", "a checkpoint of another kind"]), made: |bench| bench.part("unet", "diffusion_pytorch_model.safetensors", |tensors| {
        *tensors = renamed(tensors, |name| format!("model.{name}"));
    }) },
    // diffusers: configurations.
    Row { what: "byte order marks", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        for file in ["model_index.json", "stablehand.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json", "vae/config.json"] {
            let text = fs::read(path.join(file)).unwrap();
            fs::write(path.join(file), [b"\xef\xbb\xbf", text.as_slice()].concat()).unwrap();
        }
    }) },
    Row { what: "lines that end as in Windows", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        for file in ["tokenizer/merges.txt", "scheduler/scheduler_config.json"] {
            let text = fs::read_to_string(path.join(file)).unwrap();
            fs::write(path.join(file), text.replace('\n', "\r\n")).unwrap();
        }
    }) },
    Row { what: "a safety checker of null", becomes: Becomes::Drawn, made: |bench| bench.configured("model_index.json", |index| {
        index.insert("safety_checker".into(), Value::Null);
        index.insert("requires_safety_checker".into(), Value::Null);
    }) },
    Row { what: "a safety checker of two nulls", becomes: Becomes::Drawn, made: |bench| bench.configured("model_index.json", |index| {
        index.insert("safety_checker".into(), json!([null, null]));
        index.insert("feature_extractor".into(), json!([null, null]));
    }) },
    Row { what: "the class of another pipeline of Stable Diffusion v1", becomes: Becomes::Drawn, made: |bench| bench.configured("model_index.json", |index| {
        index.insert("_class_name".into(), "StableDiffusionInpaintPipelineLegacy".into());
    }) },
    Row { what: "no model_index.json", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| fs::remove_file(path.join("model_index.json")).unwrap()) },
    Row { what: "no scheduler", becomes: Becomes::DrawnWithWarning(&["it has no scheduler/scheduler_config.json"]), made: |bench| bench.folder(|path| fs::remove_dir_all(path.join("scheduler")).unwrap()) },
    Row { what: "nulls in the scheduler's configuration", becomes: Becomes::Drawn, made: |bench| bench.configured("scheduler/scheduler_config.json", |config| {
        for key in ["trained_betas", "prediction_type", "timestep_spacing", "use_karras_sigmas", "lambda_min_clipped", "final_sigmas_type"] {
            config.insert(key.into(), Value::Null);
        }
    }) },
    Row { what: "keys of other schedulers", becomes: Becomes::Drawn, made: |bench| bench.configured("scheduler/scheduler_config.json", |config| {
        config.insert("_class_name".into(), "DPMSolverMultistepScheduler".into());
        for (key, value) in [("solver_order", json!(2)), ("algorithm_type", json!("dpmsolver++")), ("a_key_of_tomorrow", json!([1, {"a": null}]))] {
            config.insert(key.into(), value);
        }
    }) },
    Row { what: "Python's infinity", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        let file = path.join("scheduler/scheduler_config.json");
        let text = fs::read_to_string(&file).unwrap().replace("\"clip_sample\": false", "\"clip_sample\": false,\n  \"lambda_min_clipped\": -Infinity");
        fs::write(file, text).unwrap();
    }) },
    Row { what: "v-prediction in the scheduler's configuration", becomes: Becomes::DrawnDifferently, made: |bench| bench.configured("scheduler/scheduler_config.json", |config| {
        config.insert("prediction_type".into(), "v_prediction".into());
    }) },
    Row { what: "steps_offset 0, as old files have it", becomes: Becomes::DrawnWithWarning(&["steps_offset 0: 1 is used"]), made: |bench| bench.configured("scheduler/scheduler_config.json", |config| {
        config.insert("steps_offset".into(), 0.into());
    }) },
    Row { what: "heads in a list", becomes: Becomes::Drawn, made: |bench| bench.configured("unet/config.json", |config| {
        let (heads, levels) = (config["attention_head_dim"].clone(), config["block_out_channels"].as_array().unwrap().len());
        if heads.is_number() {
            config.insert("attention_head_dim".into(), vec![heads; levels].into());
        }
    }) },
    Row { what: "nulls and unknown keys in the UNet's configuration", becomes: Becomes::Drawn, made: |bench| bench.configured("unet/config.json", |config| {
        for key in ["addition_embed_type", "class_embed_type", "encoder_hid_dim", "time_cond_proj_dim", "sample_size_of_tomorrow"] {
            config.insert(key.into(), Value::Null);
        }
    }) },
    Row { what: "no configuration of the VAE", becomes: Becomes::DrawnDifferently, made: |bench| bench.folder(|path| fs::remove_file(path.join("vae/config.json")).unwrap()) },
    Row { what: "a configuration that is no JSON", becomes: Becomes::Refused(&["unet/config.json"]), made: |bench| bench.folder(|path| fs::write(path.join("unet/config.json"), "{").unwrap()) },
    Row { what: "a key of stablehand.json that is misspelled", becomes: Becomes::Refused(&["stablehand.json", "max_sides"]), made: |bench| bench.configured("stablehand.json", |config| {
        config.insert("max_sides".into(), 128.into());
    }) },
    Row { what: "a guidance_end beyond the last step", becomes: Becomes::Refused(&["stablehand.json", "guidance_end is 2; it must be from 0 to 1"]), made: |bench| bench.configured("stablehand.json", |config| {
        config.insert("guidance_end".into(), 2.into());
    }) },
    Row { what: "a spacing that nobody knows", becomes: Becomes::Refused(&["stablehand.json", "'steep' is not a spacing"]), made: |bench| bench.configured("stablehand.json", |config| {
        config.insert("spacing".into(), "steep".into());
    }) },
    Row { what: "a spacing that its scheduler lacks", becomes: Becomes::Refused(&["stablehand.json", "DDIM"]), made: |bench| bench.configured("stablehand.json", |config| {
        config.insert("scheduler".into(), "DDIM".into());
        config.insert("spacing".into(), "karras".into());
    }) },
    // diffusers: what is missing or elsewhere.
    Row { what: "no VAE", becomes: Becomes::Refused(&["vae_decoder"]), made: |bench| bench.folder(|path| fs::remove_dir_all(path.join("vae")).unwrap()) },
    Row { what: "no tokenizer", becomes: Becomes::Refused(&["tokenizer"]), made: |bench| bench.folder(|path| fs::remove_dir_all(path.join("tokenizer")).unwrap()) },
    Row { what: "an empty folder", becomes: Becomes::Refused(&["fox"]), made: |bench| { let path = bench.place().join("fox"); fs::create_dir(&path).unwrap(); path } },
    Row { what: "a checkpoint alone in a folder", becomes: Becomes::Drawn, made: |bench| bench.edited(|_| {}).parent().unwrap().to_owned() },
    Row { what: "two checkpoints in a folder", becomes: Becomes::Refused(&["2 checkpoints", "fox.safetensors", "wolf.safetensors", "name one of them"]), made: |bench| {
        let path = bench.edited(|_| {});
        fs::copy(&path, path.with_file_name("wolf.safetensors")).unwrap();
        path.parent().unwrap().to_owned()
    } },
    Row { what: "a text encoder of fewer layers", becomes: Becomes::DrawnDifferently, made: |bench| bench.configured("text_encoder/config.json", |config| {
        config.insert("num_hidden_layers".into(), 2.into());
    }) },
    Row { what: "weights under a name of their own", becomes: Becomes::Drawn, made: |bench| bench.part("vae", "sd-vae-ft-mse-840000-ema-pruned.safetensors", |_| {}) },
    Row { what: "weights cut short", becomes: Becomes::Refused(&["unet/diffusion_pytorch_model.fp16.safetensors"]), made: |bench| bench.folder(|path| {
        let bytes = bytes_of("unet");
        fs::write(path.join("unet").join(file_of("unet")), &bytes[..bytes.len() / 2]).unwrap();
    }) },
    Row { what: "Stable Diffusion XL, by its pipeline", becomes: Becomes::Refused(&["Stable Diffusion XL"]), made: |bench| bench.configured("model_index.json", |index| {
        index.insert("_class_name".into(), "StableDiffusionXLPipeline".into());
    }) },
    Row { what: "Stable Diffusion XL, by its second text encoder", becomes: Becomes::Refused(&["two text encoders"]), made: |bench| bench.folder(|path| fs::create_dir(path.join("text_encoder_2")).unwrap()) },
    Row { what: "FLUX, by its pipeline", becomes: Becomes::Refused(&["FluxPipeline"]), made: |bench| bench.configured("model_index.json", |index| {
        index.insert("_class_name".into(), "FluxPipeline".into());
    }) },
    Row { what: "Stable Diffusion 2, by its width", becomes: Becomes::Refused(&["Stable Diffusion 2", "1024"]), made: |bench| bench.configured("unet/config.json", |config| {
        config.insert("cross_attention_dim".into(), 1024.into());
    }) },
    // ONNX.
    Row { what: "ONNX as diffusers' old script wrote it", becomes: Becomes::DrawnWithWarning(&["whole timesteps"]), made: |bench| onnx(bench, &Folder::diffusers_legacy()) },
    Row { what: "ONNX as optimum writes it", becomes: Becomes::DrawnWithWarning(&["whole timesteps"]), made: |bench| onnx(bench, &Folder::optimum()) },
    Row { what: "ONNX as Olive writes it", becomes: Becomes::Drawn, made: |bench| onnx(bench, &Folder::olive()) },
    Row { what: "ONNX in half precision, as Unpaint writes it", becomes: Becomes::DrawnNearly, made: |bench| onnx(bench, &Folder::unpaint()) },
    Row { what: "ONNX with a text encoder of two outputs", becomes: Becomes::Drawn, made: |bench| { let folder = Folder::tiny_sd(); folder.pooled_output(); onnx(bench, &folder) } },
    Row { what: "ONNX with ids of 64 bits", becomes: Becomes::Drawn, made: |bench| { let folder = Folder::tiny_sd(); folder.ids(INT64); onnx(bench, &folder) } },
    Row { what: "ONNX with weights in a file beside it", becomes: Becomes::Drawn, made: |bench| {
        let folder = Folder::tiny_sd();
        folder.move_weights(&["unet"], "weights.pb");
        onnx(bench, &folder)
    } },
    Row { what: "ONNX whose weights are missing", becomes: Becomes::Refused(&["unet"]), made: |bench| {
        let folder = Folder::tiny_sd();
        folder.move_weights(&["unet"], "weights.pb");
        folder.remove(&["unet/weights.pb"]);
        onnx(bench, &folder)
    } },
    Row { what: "ONNX under another name", becomes: Becomes::Drawn, made: |bench| {
        let folder = Folder::tiny_sd();
        fs::rename(folder.file("unet/model.onnx"), folder.file("unet/unet.onnx")).unwrap();
        onnx(bench, &folder)
    } },
    Row { what: "ONNX without a VAE encoder", becomes: Becomes::Drawn, made: |bench| { let folder = Folder::tiny_sd(); folder.remove(&["vae_encoder"]); onnx(bench, &folder) } },
    Row { what: "ONNX without a UNet", becomes: Becomes::Refused(&["unet/model.onnx"]), made: |bench| { let folder = Folder::tiny_sd(); folder.remove(&["unet"]); onnx(bench, &folder) } },
    Row { what: "ONNX of one size", becomes: Becomes::Refused(&["64×64 only", "dynamic axes"]), made: |bench| {
        let folder = Folder::tiny_sd();
        folder.edit("unet", |model| {
            let sample = port("sample", FLOAT, &["2", "4", "64", "64"]);
            model.graph().replace_input("sample", sample, |given, inside| vec![cast(given, inside, FLOAT)]);
        });
        onnx(bench, &folder)
    } },
    Row { what: "ONNX in bfloat16", becomes: Becomes::Refused(&["vae_decoder", "bfloat16"]), made: |bench| {
        let folder = Folder::tiny_sd();
        folder.edit("vae_decoder", |model| {
            let latents = port("latent_sample", BFLOAT16, &["batch", "4", "h", "w"]);
            model.graph().replace_input("latent_sample", latents, |given, inside| vec![cast(given, inside, FLOAT)]);
        });
        onnx(bench, &folder)
    } },
    Row { what: "ONNX graphs flat in one folder", becomes: Becomes::Refused(&["lie flat", "optimum-cli export onnx"]), made: |bench| {
        let folder = Folder::tiny_sd();
        fs::rename(folder.file("unet/model.onnx"), folder.file("unet-float16.onnx")).unwrap();
        onnx(bench, &folder)
    } },
    Row { what: "a safetensors UNet with an ONNX VAE", becomes: Becomes::Drawn, made: |bench| bench.folder(|path| {
        let folder = Folder::tiny_sd();
        fs::remove_dir_all(path.join("vae")).unwrap();
        for half in ["vae_decoder", "vae_encoder"] {
            copy(&folder.file(half), &path.join(half));
        }
    }) },
];

#[test]
fn folders_of_diffusers_and_of_onnx() {
    hold(ROWS);
}

/// A row's edit of a file that is not there would test nothing.
#[test]
fn the_bench_edits_what_it_names() {
    let bench = Workbench::new();
    let path = bench.folder(|path| {
        edit_json(&path.join("vae/config.json"), |config| drop(config.remove("scaling_factor")));
    });
    assert!(!fs::read_to_string(path.join("vae/config.json")).unwrap().contains("scaling_factor"));
}
