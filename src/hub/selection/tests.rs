//! The files that are selected from typical repositories.

use super::super::api::TreeFile;
use super::*;

fn tree(paths: &[&str]) -> Tree {
    let file = TreeFile { size: 1, checksum: None };
    paths.iter().map(|path| (path.parse().unwrap(), file.clone())).collect()
}

fn select(paths: &[&str]) -> Result<Selection, HubError> {
    Selection::from_tree(&tree(paths), "org/name")
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
fn a_diffusers_folder_gives_each_weight_once_in_half_precision_if_possible() {
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
fn the_index_names_the_shards() {
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
        assert!(error.contains("no such file beside it"), "{error}");
    }
}

#[test]
fn an_onnx_folder_gives_its_data_but_no_variants() {
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
fn the_only_checkpoint_is_selected_and_one_of_several_must_be_named() {
    let one = select(&["README.md", "dream.safetensors", "dream.ckpt"]).unwrap();
    assert_eq!((one.kind, names(&one)), (ModelKind::File, vec!["dream.safetensors"]));
    let error = select(&["a.safetensors", "b.safetensors"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "org/name has more than one model; name one file: org/name:a.safetensors, org/name:b.safetensors"
    );
}

#[test]
fn pickles_are_refused_with_their_name() {
    for paths in [&["v1.ckpt"][..], &["unet/diffusion_pytorch_model.bin", "model_index.json"]] {
        let error = select(paths).unwrap_err().to_string();
        assert!(error.starts_with("org/name has only pickles"), "{error}");
    }
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("text_encoder/model"));
    let error = select(&paths).unwrap_err().to_string();
    assert!(error.contains("its text_encoder only as pickles"), "{error}");
    assert!(error.ends_with("name one file: org/name:v1-5-pruned.safetensors"), "{error}");
    let file = "v1-5-pruned.ckpt".parse().unwrap();
    let error = Selection::file(&tree(&DIFFUSERS), "org/name", &file).unwrap_err().to_string();
    assert!(error.starts_with("v1-5-pruned.ckpt is a pickle"), "{error}");
}

#[test]
fn a_missing_file_is_refused_with_a_list_of_existing_files() {
    let file = |name: &str| {
        Selection::file(&tree(&DIFFUSERS), "org/name", &name.parse().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        file("none.safetensors"),
        "org/name has no file none.safetensors; name one file: org/name:v1-5-pruned.safetensors"
    );
    assert!(file("README.md").starts_with("org/name:README.md is not a .safetensors file"));
}
