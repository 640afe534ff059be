//! Repositories as people publish them, and what is taken of each.

use super::super::api::TreeFile;
use super::*;

fn tree(paths: &[&str]) -> Tree {
    let file = TreeFile { size: 1, checksum: None };
    paths.iter().map(|path| (path.parse().unwrap(), file.clone())).collect()
}

fn select(paths: &[&str]) -> Result<Selection, HubError> {
    Selection::of(&tree(paths), "org/name")
}

fn names(selection: &Selection) -> Vec<&str> {
    selection.files.iter().map(RepoPath::as_str).collect()
}

const DIFFUSERS: [&str; 24] = [
    ".gitattributes",
    "README.md",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "model_index.json",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/flax_model.msgpack",
    "vae/.hidden.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

#[test]
fn of_a_diffusers_folder_each_weight_comes_once_and_half_where_it_can() {
    let selection = select(&DIFFUSERS).unwrap();
    assert_eq!(selection.kind, ModelKind::Diffusers);
    assert_eq!(
        names(&selection),
        [
            "feature_extractor/preprocessor_config.json",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "tokenizer/merges.txt",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ]
    );
}

#[test]
fn shards_are_those_that_the_index_names() {
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("unet/diffusion"));
    let index = "unet/diffusion_pytorch_model.safetensors.index.fp16.json";
    let shard = "diffusion_pytorch_model.fp16-00001-of-00001.safetensors";
    let shard_path = format!("unet/{shard}");
    paths.extend([index, &shard_path]);
    let mut selection = select(&paths).unwrap();
    let index: RepoPath = index.parse().unwrap();
    assert_eq!(selection.indexes, std::slice::from_ref(&index));
    selection.add_shards(&index, [shard, shard], &tree(&paths)).unwrap();
    assert!(names(&selection).contains(&shard_path.as_str()));
    for hostile in ["../v1-5-pruned.safetensors", "/etc/passwd", "none.safetensors", "config.json", ""] {
        let error = selection.add_shards(&index, [hostile], &tree(&paths)).unwrap_err().to_string();
        assert!(error.contains("no file beside it"), "{error}");
    }
}

#[test]
fn an_onnx_folder_comes_with_its_data_and_without_its_variants() {
    let selection = select(&[
        "model_index.json",
        "unet/model.onnx",
        "unet/model.onnx_data",
        "unet/model_fp16.onnx",
        "unet/model_fp16.onnx_data",
        "unet/config.json",
        "unet/onnx__MatMul_7321",
        "text_encoder/model.onnx",
        "text_encoder/pytorch_model.bin",
        "vae_decoder/model.onnx",
        "vae_decoder/weights.pb",
    ])
    .unwrap();
    assert_eq!(selection.kind, ModelKind::Onnx);
    assert_eq!(
        names(&selection),
        [
            "model_index.json",
            "text_encoder/model.onnx",
            "unet/config.json",
            "unet/model.onnx",
            "unet/model.onnx_data",
            "unet/onnx__MatMul_7321",
            "vae_decoder/model.onnx",
            "vae_decoder/weights.pb",
        ]
    );
}

#[test]
fn the_only_checkpoint_is_taken_and_of_several_one_must_be_named() {
    let one = select(&["README.md", "dream.safetensors", "dream.ckpt"]).unwrap();
    assert_eq!((one.kind, names(&one)), (ModelKind::File, vec!["dream.safetensors"]));
    let error = select(&["a.safetensors", "b.safetensors"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "org/name has more than one model; name one file: org/name:a.safetensors, org/name:b.safetensors"
    );
}

#[test]
fn pickles_are_refused_by_name() {
    for paths in [&["v1.ckpt"][..], &["unet/diffusion_pytorch_model.bin", "model_index.json"]] {
        let error = select(paths).unwrap_err().to_string();
        assert!(error.starts_with("org/name has nothing but pickles"), "{error}");
    }
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("text_encoder/model"));
    let error = select(&paths).unwrap_err().to_string();
    assert!(error.contains("its text_encoder as pickles alone"), "{error}");
    assert!(error.ends_with("name one file: org/name:v1-5-pruned.safetensors"), "{error}");
    let file = "v1-5-pruned.ckpt".parse().unwrap();
    let error = Selection::file(&tree(&DIFFUSERS), "org/name", &file).unwrap_err().to_string();
    assert!(error.starts_with("v1-5-pruned.ckpt is a pickle"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_answered_with_those_that_are() {
    let file = |name: &str| {
        Selection::file(&tree(&DIFFUSERS), "org/name", &name.parse().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        file("none.safetensors"),
        "org/name has no file none.safetensors; name one file: org/name:v1-5-pruned.safetensors"
    );
    assert!(file("README.md").starts_with("org/name:README.md is no .safetensors file"));
}
