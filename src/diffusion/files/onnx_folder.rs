//! The files of an exported part: its graph, and what lies beside it.

use std::fs::{self, Metadata};
use std::path::Path;
use std::time::SystemTime;

use super::model_place::has_extension;

/// What exporters call a part's graph, the usual name first.
pub const GRAPH_NAMES: [&str; 3] = ["model.onnx", "model_fp16.onnx", "model.fp16.onnx"];

/// The ONNX graph in a part's folder: by one of its usual names, else the only `.onnx` there.
pub fn onnx_graph(folder: &Path) -> Option<String> {
    let names = onnx_files(folder);
    let usual = GRAPH_NAMES.iter().find(|usual| names.iter().any(|name| name == *usual));
    match (usual, names.as_slice()) {
        (Some(usual), _) => Some((*usual).to_owned()),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}

/// The names of the ONNX files in a folder. Empty if it cannot be read.
pub fn onnx_files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // macOS leaves `._model.onnx` beside the file on foreign disks.
    let mut names: Vec<_> =
        names.filter(|name| has_extension(name, "onnx") && !name.starts_with('.')).collect();
    names.sort();
    names
}

/// A folder's files apart from configurations, each with its size in bytes.
pub fn files_with_weights(folder: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<_> = weights(folder).map(|(name, metadata)| (name, metadata.len())).collect();
    files.sort();
    files
}

/// When the last of these files was written.
pub fn last_modified(folder: &Path) -> Option<SystemTime> {
    weights(folder).filter_map(|(_, metadata)| metadata.modified().ok()).max()
}

fn weights(folder: &Path) -> impl Iterator<Item = (String, Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // By path: the folders of a download cache are made of links.
        let metadata = fs::metadata(entry.path()).ok()?;
        (metadata.is_file() && !is_configuration(&name)).then_some((name, metadata))
    })
}

/// Whether a file is a configuration, by its name.
fn is_configuration(name: &str) -> bool {
    ["json", "txt", "md"].iter().any(|extension| has_extension(name, extension)) || name.starts_with('.')
}
