//! The weights in one folder of a diffusers model: which files they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::model_place::has_extension;

/// The form that is preferred, and torch's. Of torch's, diffusers' own names count: trainers and other exporters lay their
/// `.bin` files beside them.
const FORMS: [(&str, &[&str]); 2] =
    [(".safetensors", &[""]), (".bin", &["diffusion_pytorch_model", "pytorch_model"])];

/// The weights in a part's folder: one file, or all shards. Of several variants, the one without a name (full precision)
/// is chosen, else the first.
pub fn weight_files(folder: &Path) -> Vec<PathBuf> {
    let mut variants: BTreeMap<(usize, bool, String), Vec<PathBuf>> = BTreeMap::new();
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    for name in &names {
        let is_of = |(extension, starts): &(&str, &[&str])| {
            name.ends_with(extension) && starts.iter().any(|start| name.starts_with(start))
        };
        if let Some(form) = FORMS.iter().position(is_of) {
            let (stem, _) = sharded(name);
            let is_variant = stem.contains('.');
            variants.entry((form, is_variant, stem)).or_default().push(folder.join(name));
        }
    }
    let mut files = variants.into_values().next().unwrap_or_else(|| only_file_of_torch(folder, &names));
    files.sort();
    files
}

/// The weights in a part's folder that are neither those of [`weight_files`] nor the same in another precision: those whose
/// names begin differently.
pub fn other_weights(folder: &Path) -> Vec<String> {
    let name_of = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let begins = |name: &str| sharded(name).0.split('.').next().unwrap_or_default().to_owned();
    let Some(chosen) = weight_files(folder).first().map(|path| begins(&name_of(path))) else {
        return Vec::new();
    };
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_weights = |name: &String| has_extension(name, "safetensors") && !name.starts_with('.');
    let mut others: Vec<_> = names.filter(|name| is_weights(name) && begins(name) != chosen).collect();
    others.sort();
    others
}

/// The file of torch in a folder that has one, whatever its name. Beside a graph it would be the graph's.
fn only_file_of_torch(folder: &Path, names: &[String]) -> Vec<PathBuf> {
    let mut found = names.iter().filter(|name| has_extension(name, "bin") || has_extension(name, "onnx"));
    match (found.next(), found.next()) {
        (Some(only), None) if has_extension(only, "bin") => vec![folder.join(only)],
        _ => Vec::new(),
    }
}

/// A file's name without extension and number, and the count of its shards: `model-00001-of-00002.fp16.safetensors`
/// is one of two of `model.fp16`, as `model.fp16-00001-of-00002.safetensors` is.
fn sharded(name: &str) -> (String, Option<usize>) {
    let stem = FORMS.iter().find_map(|(extension, _)| name.strip_suffix(extension)).unwrap_or(name);
    let whole = || (stem.to_owned(), None);
    let Some((left, right)) = stem.split_once("-of-") else { return whole() };
    let Some((left, number)) = left.rsplit_once('-') else { return whole() };
    let (count, variant) = right.split_at(right.find('.').unwrap_or(right.len()));
    match (number.parse::<usize>(), count.parse()) {
        (Ok(_), Ok(count)) => (format!("{left}{variant}"), Some(count)),
        _ => whole(),
    }
}

/// Checks that no shard is missing.
pub fn check_shards(paths: &[PathBuf]) -> Result<(), String> {
    let names = paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    for name in names {
        if let (_, Some(count)) = sharded(&name)
            && count != paths.len()
        {
            return Err(format!("{name} is one of {count} files, but only {} of them exist", paths.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        for name in names {
            fs::write(folder.path().join("unet").join(name), b"").unwrap();
        }
        folder
    }

    fn chosen(names: &[&str]) -> Vec<String> {
        let folder = folder_with(names);
        let files = weight_files(&folder.path().join("unet"));
        files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn full_precision_is_preferred_and_shards_stay_together() {
        let (whole, half) =
            ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors");
        assert_eq!(chosen(&[half, whole, "config.json", "._x.safetensors"]), [whole]);
        assert_eq!(chosen(&[half, "diffusion_pytorch_model.non_ema.safetensors"]), [half]);
        let shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
        assert_eq!(chosen(&[shards[1], shards[0], "m.safetensors.index.json"]), shards);
        for shards in [
            ["m-00001-of-00002.fp16.safetensors", "m-00002-of-00002.fp16.safetensors"],
            ["m.fp16-00001-of-00002.safetensors", "m.fp16-00002-of-00002.safetensors"],
        ] {
            assert_eq!(chosen(&shards), shards);
        }
        assert!(chosen(&["model.onnx"]).is_empty());
    }

    #[test]
    fn weights_of_another_name_are_told_from_those_of_another_precision() {
        let whole = "diffusion_pytorch_model.safetensors";
        let folder =
            folder_with(&[whole, "diffusion_pytorch_model.fp16.safetensors", "sd-vae-ft-mse.safetensors"]);
        assert_eq!(chosen(&[whole, "sd-vae-ft-mse.safetensors"]), [whole]);
        assert_eq!(other_weights(&folder.path().join("unet")), ["sd-vae-ft-mse.safetensors"]);
        assert!(other_weights(folder.path()).is_empty());
    }

    #[test]
    fn files_of_torch_are_chosen_where_there_are_no_others() {
        let (safe, torch) = ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin");
        assert_eq!(chosen(&[torch, safe]), [safe]);
        assert_eq!(chosen(&[torch, "optimizer.bin", "openvino_model.bin"]), [torch]);
        let shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
        assert_eq!(chosen(&[shards[1], shards[0], "pytorch_model.bin.index.json"]), shards);
        assert_eq!(chosen(&["only.bin", "config.json"]), ["only.bin"]);
        assert!(
            chosen(&["one.bin", "other.bin"]).is_empty() && chosen(&["model.onnx", "weights.bin"]).is_empty()
        );
    }

    #[test]
    fn a_missing_shard_is_named() {
        let paths = [PathBuf::from("m-00001-of-00003.safetensors"), "m-00003-of-00003.safetensors".into()];
        assert!(check_shards(&paths).unwrap_err().contains("one of 3 files, but only 2"));
        assert_eq!(check_shards(&[PathBuf::from("m.safetensors")]), Ok(()));
    }
}
