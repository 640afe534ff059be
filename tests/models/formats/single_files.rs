//! Everything in one file.

use std::fs;

use half::f16;
use safetensors::tensor::Dtype;

use super::weights::{
    below, brain, double, e4m3, e5m2, from_brain, from_e4m3, from_e5m2, full, renamed, reshape, zeros,
};
use super::workbench::bytes_of;
use super::{Becomes, Row, hold};
use crate::checkpoints::{FILES, Tensors, component, original, write};

const TEXT: &str = "cond_stage_model.transformer.";
const TEXT_MODEL: &str = "cond_stage_model.transformer.text_model.";
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";

fn full_original() -> Tensors {
    full(&original())
}

/// The UNet's averaged weights, which the original code names without dots.
fn averaged(name: &str) -> Option<String> {
    name.strip_prefix(UNET).map(|rest| format!("model_ema.diffusion_model{}", rest.replace('.', "")))
}

fn without(tensors: &mut Tensors, prefix: &str) {
    tensors.retain(|name, _| !name.starts_with(prefix));
}

#[rustfmt::skip] // a row is a line where it fits
pub const ROWS: &[Row] = &[
    // Types of numbers.
    Row { what: "half precision", becomes: Becomes::Drawn, made: |bench| bench.edited(|_| {}) },
    Row { what: "single precision", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &full_original()) },
    Row { what: "bfloat16", becomes: Becomes::DrawnAs(|| from_brain(&original())), made: |bench| bench.checkpoint("fox", &brain(&original())) },
    Row { what: "double precision", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &double(&original())) },
    Row { what: "eight bits, E4M3", becomes: Becomes::DrawnAs(|| from_e4m3(&original())), made: |bench| bench.checkpoint("fox", &e4m3(&original())) },
    Row { what: "eight bits, E5M2", becomes: Becomes::DrawnAs(|| from_e5m2(&original())), made: |bench| bench.checkpoint("fox", &e5m2(&original())) },
    Row { what: "a half UNet with a single VAE", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        let vae: Tensors = tensors.iter().filter(|(name, _)| name.starts_with(VAE)).map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
        tensors.extend(full(&vae));
    }) },
    Row { what: "a weight of whole numbers", becomes: Becomes::Refused(&["time_embed.0.weight"]), made: |bench| bench.edited(|tensors| {
        let weight = tensors.get_mut("model.diffusion_model.time_embed.0.weight").unwrap();
        *weight = zeros(Dtype::I64, &weight.shape.clone());
    }) },
    // Names of the same tensors.
    Row { what: "a text encoder without text_model", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &renamed(&original(), |name| {
        name.replace(TEXT_MODEL, TEXT)
    })) },
    Row { what: "averaged weights beside the others, which count", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        let averages: Vec<_> = tensors.iter().filter_map(|(name, tensor)| Some((averaged(name)?, zeros(tensor.dtype, &tensor.shape)))).collect();
        tensors.extend(averages);
    }) },
    Row { what: "averaged weights alone", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &renamed(&original(), |name| {
        averaged(name).unwrap_or_else(|| name.to_owned())
    })) },
    Row { what: "1×1 convolutions as matrices", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        reshape(tensors, |name| name.ends_with("proj_in.weight") || name.ends_with("proj_out.weight"), false);
    }) },
    Row { what: "the VAE's attention as matrices", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        reshape(tensors, |name| name.contains("mid.attn_1.") && name.ends_with(".weight") && !name.contains("norm"), false);
    }) },
    Row { what: "the VAE's attention as 1×1 convolutions", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        let attention = |name: &str| name.contains("mid.attn_1.") && name.ends_with(".weight") && !name.contains("norm");
        reshape(tensors, attention, false);
        reshape(tensors, attention, true);
    }) },
    Row { what: "diffusers' names behind the names of the parts", becomes: Becomes::Drawn, made: |bench| {
        let parts = FILES.iter().flat_map(|(part, file)| renamed(&component(part, file), |name| format!("{part}.{name}")));
        bench.checkpoint("fox", &parts.collect())
    } },
    Row { what: "the prefix of a torch module", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &renamed(&original(), |name| format!("module.{name}"))) },
    Row { what: "the prefix of a compiled torch module", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &renamed(&original(), |name| format!("_orig_mod.{name}"))) },
    Row { what: "a text encoder with ComfyUI's name", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("fox", &renamed(&original(), |name| {
        name.replace(TEXT, "text_encoders.clip_l.transformer.")
    })) },
    // What it says about itself.
    Row { what: "a tensor v_pred", becomes: Becomes::DrawnDifferently, made: |bench| bench.edited(|tensors| {
        tensors.insert("v_pred".to_owned(), zeros(Dtype::F32, &[0]));
    }) },
    Row { what: "a yaml beside it that says v", becomes: Becomes::DrawnDifferently, made: |bench| {
        let path = bench.edited(|_| {});
        fs::write(path.with_extension("yaml"), "model:\n  params:\n    parameterization: \"v\"\n").unwrap();
        path
    } },
    Row { what: "a yaml beside it that makes no sense", becomes: Becomes::Refused(&["fox.yaml"]), made: |bench| {
        let path = bench.edited(|_| {});
        fs::write(path.with_extension("yaml"), "model: {").unwrap();
        path
    } },
    // What lies beside the weights in the same file.
    Row { what: "a LoRA's tensor", becomes: Becomes::DrawnWithWarning(&["not read are 1 tensor of fox.safetensors: lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"]), made: |bench| bench.edited(|tensors| {
        tensors.insert("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight".to_owned(), zeros(Dtype::F16, &[2, 2]));
    }) },
    Row { what: "a tensor that nobody knows", becomes: Becomes::DrawnWithWarning(&["not read are 1 tensor of fox.safetensors: unknown.weight"]), made: |bench| bench.edited(|tensors| {
        tensors.insert("unknown.weight".to_owned(), zeros(Dtype::F16, &[2, 2]));
    }) },
    Row { what: "position ids of whole numbers", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        tensors.insert(format!("{TEXT_MODEL}embeddings.position_ids"), zeros(Dtype::I64, &[1, 77]));
    }) },
    Row { what: "position ids of floats", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        tensors.insert(format!("{TEXT_MODEL}embeddings.position_ids"), zeros(Dtype::F32, &[1, 77]));
    }) },
    Row { what: "what training leaves behind", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        for name in ["betas", "alphas_cumprod", "sqrt_alphas_cumprod", "posterior_variance", "logvar"] {
            tensors.insert(name.to_owned(), zeros(Dtype::F32, &[1000]));
        }
        tensors.insert("model_ema.decay".to_owned(), zeros(Dtype::F32, &[]));
        tensors.insert("model_ema.num_updates".to_owned(), zeros(Dtype::I32, &[]));
    }) },
    Row { what: "the loss of the VAE's training", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| {
        tensors.insert("first_stage_model.loss.logvar".to_owned(), zeros(Dtype::F32, &[]));
    }) },
    Row { what: "a header with notes", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|_| {});
        let bytes = fs::read(&path).unwrap();
        let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
        let notes = r#"{"__metadata__":{"format":"pt","modelspec.title":"fox \u72d0"},"#;
        let mut header = [notes.as_bytes(), &bytes[9..8 + length]].concat();
        header.resize(header.len().next_multiple_of(8), b' ');
        let length = u64::try_from(header.len()).unwrap().to_le_bytes();
        fs::write(&path, [&length[..], &header, &bytes[8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap()..]].concat()).unwrap();
        path
    } },
    // The file itself.
    Row { what: "a name in capitals", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|_| {});
        let other = path.with_file_name("FOX.SAFETENSORS");
        fs::rename(path, &other).unwrap();
        other
    } },
    Row { what: "a name with spaces, points and other scripts", becomes: Becomes::Drawn, made: |bench| bench.checkpoint("狐 v1.5 (final) é", &original()) },
    #[cfg(unix)]
    Row { what: "a link, as download caches have them", becomes: Becomes::Drawn, made: |bench| {
        let blob = bench.edited(|_| {});
        let link = bench.place().join("fox.safetensors");
        std::os::unix::fs::symlink(blob, &link).unwrap();
        link
    } },
    Row { what: "cut short", becomes: Becomes::Refused(&["fox.safetensors"]), made: |bench| {
        let path = bench.edited(|_| {});
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
        path
    } },
    Row { what: "an empty file", becomes: Becomes::Refused(&["fetch it again"]), made: |bench| bench.file("fox.safetensors", b"") },
    Row { what: "git's pointer to a large file", becomes: Becomes::Refused(&["fox.safetensors"]), made: |bench| {
        bench.file("fox.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n")
    } },
    Row { what: "a web page", becomes: Becomes::Refused(&["fox.safetensors"]), made: |bench| bench.file("fox.safetensors", b"<!DOCTYPE html><html><body>Log in</body></html>") },
    Row { what: "GGUF", becomes: Becomes::Refused(&["GGUF"]), made: |bench| bench.file("fox.gguf", b"GGUF\x03\0\0\0") },
    Row { what: "one ONNX graph", becomes: Becomes::Refused(&["name the folder"]), made: |bench| bench.file("fox.onnx", b"") },
    Row { what: "a text", becomes: Becomes::Refused(&["not one of weights"]), made: |bench| bench.file("fox.txt", b"a red fox") },
    Row { what: "no file at all", becomes: Becomes::Refused(&["No such file"]), made: |bench| bench.place().join("fox.safetensors") },
    // Parts that are missing, broken or elsewhere.
    Row { what: "no VAE", becomes: Becomes::Refused(&["it has no VAE", "fox.vae.safetensors"]), made: |bench| bench.edited(|tensors| without(tensors, VAE)) },
    Row { what: "no text encoder", becomes: Becomes::Refused(&["it has no text encoder"]), made: |bench| bench.edited(|tensors| without(tensors, "cond_stage_model.")) },
    Row { what: "no UNet", becomes: Becomes::Refused(&["fox.safetensors is not a Stable Diffusion model"]), made: |bench| bench.edited(|tensors| without(tensors, "model.")) },
    Row { what: "no VAE encoder", becomes: Becomes::Drawn, made: |bench| bench.edited(|tensors| without(tensors, "first_stage_model.encoder.")) },
    Row { what: "a VAE beside it, with diffusers' names", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|tensors| without(tensors, VAE));
        fs::write(path.with_extension("vae.safetensors"), bytes_of("vae")).unwrap();
        path
    } },
    Row { what: "a VAE beside it, with the original names", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|tensors| without(tensors, VAE));
        write(&below(&original(), VAE), &path.with_extension("vae.safetensors"));
        path
    } },
    Row { what: "a VAE beside it, with the names of a checkpoint", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|tensors| without(tensors, VAE));
        let vae = original().into_iter().filter(|(name, _)| name.starts_with(VAE)).collect();
        write(&vae, &path.with_extension("vae.safetensors"));
        path
    } },
    Row { what: "a VAE beside it, which counts before its own", becomes: Becomes::Drawn, made: |bench| {
        let path = bench.edited(|tensors| {
            for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name.starts_with(VAE)) {
                tensor.bytes.fill(0);
            }
        });
        fs::write(path.with_extension("vae.safetensors"), bytes_of("vae")).unwrap();
        path
    } },
    Row { what: "a tensor is missing", becomes: Becomes::Refused(&["output_blocks.3.0.in_layers.2.weight", "fox.safetensors"]), made: |bench| bench.edited(|tensors| {
        tensors.remove("model.diffusion_model.output_blocks.3.0.in_layers.2.weight").unwrap();
    }) },
    Row { what: "a tensor of another shape", becomes: Becomes::Refused(&["time_embed.0.weight", "[48, 192]", "[192, 48]"]), made: |bench| bench.edited(|tensors| {
        tensors.get_mut("model.diffusion_model.time_embed.0.weight").unwrap().shape.swap(0, 1);
    }) },
    Row { what: "a weight that is no number", becomes: Becomes::Refused(&["infinite or not a number"]), made: |bench| bench.edited(|tensors| {
        let weight = tensors.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap();
        weight.bytes[..2].copy_from_slice(&f16::NAN.to_le_bytes());
    }) },
];

#[test]
fn everything_in_one_file() {
    hold(ROWS);
}
