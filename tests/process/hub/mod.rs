//! `stablehand models pull`, `list` and `rm` with a fake hub on this machine.

#[cfg(unix)]
mod add_ons;
mod cached;
mod fake_hub;
mod interrupted;
mod links;
mod list_and_rm;
mod pulled;
mod refused;
mod served;
mod sites;

use std::path::Path;
use std::process::{Command, Output};

use crate::helpers::{output, stablehand};
use fake_hub::FakeHub;

/// The command `stablehand models …` with this models folder and the fake hub.
fn models(hub: &FakeHub, folder: &Path, args: &[&str]) -> Command {
    let mut command = on_hub(hub, "models", args);
    command.env("STABLEHAND_MODELS_DIR", folder);
    command
}

/// The command `stablehand WHAT …` with the fake hub.
fn on_hub(hub: &FakeHub, what: &str, args: &[&str]) -> Command {
    let mut command = stablehand(&[what]);
    command.args(args).env("HF_ENDPOINT", &hub.url);
    for name in
        ["HF_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    {
        command.env_remove(name);
    }
    command
}

fn pull(hub: &FakeHub, folder: &Path, model: &str) -> Output {
    output(models(hub, folder, &["pull", model]))
}

/// The standard output of a command that must have succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The standard error of a command.
fn noted(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file that begins like a .safetensors file and continues with random bytes from `seed`.
fn safetensors(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = b"\x08\0\0\0\0\0\0\0{}      ".to_vec();
    let mut state = seed + 1;
    bytes.extend(std::iter::repeat_with(|| crate::helpers::next(&mut state).to_le_bytes()[0]).take(size));
    bytes
}

/// A file that begins like one of `torch.save`.
fn pickle(size: usize) -> Vec<u8> {
    [b"PK\x03\x04", &safetensors(size - 20, 3)[..]].concat()
}

/// A repository in diffusers' layout, with a checkpoint and other files that stablehand does not use.
fn diffusers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (".gitattributes", b"*.safetensors filter=lfs".to_vec()),
        ("README.md", b"# A model".to_vec()),
        ("model_index.json", br#"{"_class_name": "StableDiffusionPipeline"}"#.to_vec()),
        ("scheduler/scheduler_config.json", b"{}".to_vec()),
        ("text_encoder/config.json", b"{}".to_vec()),
        ("text_encoder/model.fp16.safetensors", safetensors(2000, 1)),
        ("text_encoder/model.safetensors", safetensors(4000, 2)),
        ("text_encoder/pytorch_model.bin", b"a pickle".to_vec()),
        ("tokenizer/vocab.json", b"{}".to_vec()),
        ("unet/config.json", br#"{"cross_attention_dim": 768}"#.to_vec()),
        ("unet/diffusion_pytorch_model.fp16.safetensors", safetensors(3_000_000, 3)),
        ("unet/diffusion_pytorch_model.safetensors", safetensors(6000, 4)),
        ("v1-5.safetensors", safetensors(9000, 5)),
        ("v1-5.ckpt", b"a pickle".to_vec()),
        ("vae/config.json", b"{}".to_vec()),
        ("vae/diffusion_pytorch_model.safetensors", safetensors(1000, 6)),
    ]
}
