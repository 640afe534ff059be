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

const DIFFUSERS: [&str; 25] = [
    ".gitattributes",
    "README.md",
    "v1-5-pruned.safetensors",
    "v1-5-pruned.ckpt",
    "model_index.json",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.fp16.safetensors",
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
            "safety_checker/config.json",
            "safety_checker/model.fp16.safetensors",
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
fn a_safety_checker_is_pulled_if_there_is_one() {
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("safety_checker/"));
    assert!(names(&select(&paths).unwrap()).iter().all(|name| !name.contains("safety_checker")));
    // As with the other parts, a pickle only where there is nothing else.
    paths.push("safety_checker/pytorch_model.bin");
    assert!(names(&select(&paths).unwrap()).contains(&"safety_checker/pytorch_model.bin"));
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
        "org/name has more than one model; name one: org/name:a.safetensors, org/name:b.safetensors"
    );
}

#[test]
fn files_and_model_folders_below_are_named_and_the_only_one_is_selected() {
    let one = select(&["README.md", "sub dir/model v1.safetensors"]).unwrap();
    assert_eq!(one.checkpoint.as_ref().map(RepoPath::as_str), Some("sub dir/model v1.safetensors"));
    let error = select(&["Models/A/a.safetensors", "Models/B b/b.safetensors", "VAE/v.vae.pt"]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "org/name has more than one model; name one: org/name:Models/A/a.safetensors, \
         'org/name:Models/B b/b.safetensors'"
    );
    let below = DIFFUSERS.map(|path| format!("big/sub/{path}"));
    let mut paths: Vec<&str> = below.iter().map(String::as_str).collect();
    paths.retain(|path| !path.contains("v1-5-pruned"));
    let only = select(&paths).unwrap();
    assert_eq!(
        (only.kind, only.folder.as_ref().map(RepoPath::as_str)),
        (ModelKind::Diffusers, Some("big/sub"))
    );
    let unet: RepoPath = "big/sub/unet/diffusion_pytorch_model.fp16.safetensors".parse().unwrap();
    assert!(only.files.contains(&unet));
    assert_eq!(only.local(&unet).unwrap().as_str(), "unet/diffusion_pytorch_model.fp16.safetensors");

    paths.push("z.safetensors");
    paths.push("y/y.safetensors");
    paths.push("y/y.ckpt");
    // One checkpoint at the top is what the repository is about.
    assert_eq!(select(&paths).unwrap().checkpoint.unwrap().as_str(), "z.safetensors");
    paths.push("x.safetensors");
    assert!(select(&paths).unwrap_err().to_string().ends_with(
        "name one: org/name:x.safetensors, org/name:z.safetensors, org/name:big/sub, org/name:y/y.safetensors"
    ));
    let many: Vec<String> = (0..13).map(|index| format!("{index:02}/a.safetensors")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(select(&many).unwrap_err().to_string().ends_with("org/name:09/a.safetensors, and 3 more"));
}

fn at(paths: &[&str], path: &str) -> Result<Selection, HubError> {
    Selection::at(&tree(paths), "org/name", &path.parse().unwrap())
}

#[test]
fn a_folder_is_selected_by_its_path() {
    let mut paths = vec!["a/unet/model.onnx", "a/text_encoder/model.onnx", "a/vae_decoder/model.onnx"];
    paths.extend(["b/x.safetensors", "b/c/y.safetensors"]);
    let onnx = at(&paths, "a").unwrap();
    assert_eq!((onnx.kind, names(&onnx)), (ModelKind::Onnx, vec![paths[1], paths[0], paths[2]]));
    assert_eq!(names(&at(&paths, "b").unwrap()), ["b/x.safetensors"]);
    assert_eq!(names(&at(&paths, "b/c").unwrap()), ["b/c/y.safetensors"]);
    assert!(at(&paths, "d").unwrap_err().to_string().starts_with("org/name:d is not a .safetensors file or"));
}

#[test]
fn what_lies_beside_a_checkpoint_comes_with_it() {
    let all = [
        "a/dream.safetensors",
        "a/dream.vae.ckpt",
        "a/dream.vae.pt",
        "a/dream.vae.safetensors",
        "a/dream.yaml",
    ];
    let files = |paths: &[&str]| {
        let selection = select(paths).unwrap();
        assert_eq!((selection.kind, selection.checkpoint.is_some()), (ModelKind::File, true));
        names(&selection).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(files(&all), [all[0], all[3], all[4]]);
    assert_eq!(files(&all[..3]), all[..2]);
    assert_eq!(files(&[all[0], all[2]]), [all[0], all[2]]);
    for vae in ["a/dream.vae.bin", "a/dream.vae.pth"] {
        assert_eq!(files(&[all[0], vae]), [all[0], vae]);
        assert_eq!(files(&["a/dream.ckpt", vae]), ["a/dream.ckpt", vae]);
    }
    let checker = "a/dream.safety_checker.safetensors";
    assert_eq!(files(&[all[0], checker, all[3]]), [all[0], checker, all[3]]);
    assert_eq!(files(&["a/dream.ckpt", checker]), ["a/dream.ckpt", checker]);
    assert_eq!(names(&at(&[all[0], checker], all[0]).unwrap()), [all[0], checker]);
    // Without its checkpoint it is a file like any other.
    assert_eq!(files(&[checker]), [checker]);
    assert_eq!(names(&at(&all, all[0]).unwrap()), [all[0], all[3], all[4]]);
    // A VAE can be named, too.
    assert_eq!(names(&at(&all, all[3]).unwrap()), [all[3]]);
    assert_eq!(files(&["other.safetensors", "b/dream.vae.safetensors"]), ["other.safetensors"]);
}

#[test]
fn pickles_are_selected_only_where_there_is_nothing_else() {
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("text_encoder/model"));
    let selection = select(&paths).unwrap();
    assert_eq!(selection.kind, ModelKind::Diffusers);
    assert_eq!(
        selection.note_on_pickles().unwrap(),
        "text_encoder/pytorch_model.bin is a pickle: stablehand reads only tensors from pickles and runs no code"
    );
    assert_eq!(select(&DIFFUSERS).unwrap().note_on_pickles(), None);

    let pickled = ["text_encoder/pytorch_model.bin", "unet/diffusion_pytorch_model.bin", "vae/only.bin"];
    let selection = select(&pickled).unwrap();
    assert_eq!((selection.kind, names(&selection)), (ModelKind::Diffusers, pickled.to_vec()));
    assert!(
        selection.note_on_pickles().unwrap().starts_with(&format!("{} are pickles: ", pickled.join(", ")))
    );
    let with_checkpoint = [&pickled[..], &["v1.safetensors", "v1.ckpt"]].concat();
    assert_eq!(names(&select(&with_checkpoint).unwrap()), ["v1.safetensors"]);

    for (paths, selected) in [
        (&["v1.ckpt"][..], Some("v1.ckpt")),
        (&["v1.ckpt", "optimizer.bin"], Some("v1.ckpt")),
        (&["v1.ckpt", "a/v1.safetensors"], None),
        (&["a/v1.ckpt", "a/v1.safetensors"], Some("a/v1.safetensors")),
        (&["v1.pt", "README.md"], Some("v1.pt")),
        (&["v1.ckpt", "v2.ckpt"], None),
    ] {
        match select(paths) {
            Ok(selection) => {
                assert_eq!(selection.checkpoint.as_ref().map(RepoPath::as_str), selected, "{paths:?}");
            }
            Err(error) => {
                assert!(selected.is_none() && error.to_string().contains("more than one"), "{error}");
            }
        }
    }
    let error = select(&["README.md", "x.pkl", ".hidden.ckpt"]).unwrap_err().to_string();
    assert!(
        error.starts_with("org/name has no .safetensors file, no .ckpt file and no folder unet"),
        "{error}"
    );
}

#[test]
fn the_list_of_pickled_shards_names_pickles() {
    let index: RepoPath = "unet/diffusion_pytorch_model.bin.index.json".parse().unwrap();
    let paths =
        ["text_encoder/pytorch_model.bin", index.as_str(), "unet/1.bin", "unet/1.safetensors", "vae/a.bin"];
    let mut selection = Selection::at(&tree(&paths), "org/name", &"unet/1.bin".parse().unwrap()).unwrap();
    selection.add_shards(&index, ["1.bin"], &tree(&paths)).unwrap();
    assert!(selection.add_shards(&index, ["1.safetensors"], &tree(&paths)).is_err());
}

#[test]
fn a_part_without_weights_is_named() {
    let mut paths = DIFFUSERS.to_vec();
    paths.retain(|path| !path.starts_with("text_encoder/"));
    let error = select(&paths).unwrap_err().to_string();
    assert_eq!(
        error,
        "org/name has no weights with a usual name for its text_encoder; name one: org/name:v1-5-pruned.safetensors"
    );
}

#[test]
fn a_missing_file_is_refused_with_a_list_of_existing_files() {
    let file = |name: &str| at(&DIFFUSERS, name).unwrap_err().to_string();
    assert_eq!(
        file("none.safetensors"),
        "org/name has no file none.safetensors; name one: org/name:v1-5-pruned.safetensors"
    );
    assert!(file("README.md").starts_with("org/name:README.md is not a .safetensors file"));
}
