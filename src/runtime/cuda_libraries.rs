//! Finds and loads CUDA's libraries where pip puts them: in `nvidia/*/lib`, beside the package of the ONNX Runtime in use.
//!
//! The system's loader does not search these folders, and ONNX Runtime's CUDA provider asks it for libraries by name. The
//! loader finds a library by name once it is in the process, so the libraries are loaded by path beforehand. (This includes
//! NVRTC's builtins, which NVRTC would not find, and cuDNN's parts, which could come from an older cuDNN in
//! `LD_LIBRARY_PATH`.)

use std::fs;
use std::path::{Path, PathBuf};

/// The libraries to load: each comes after those that it depends on. Versions differ between releases of ONNX Runtime.
const LIBRARIES: [&str; 17] = [
    "libcudart.so.",
    "libcublasLt.so.",
    "libcublas.so.",
    "libnvrtc-builtins.so.",
    "libnvrtc.so.",
    "libcurand.so.",
    "libcufft.so.",
    "libcudnn.so.",
    "libcudnn_graph.so.",
    "libcudnn_ops.so.",
    "libcudnn_heuristic.so.",
    "libcudnn_adv.so.",
    "libcudnn_cnn.so.",
    "libcudnn_engines_precompiled.so.",
    "libcudnn_engines_runtime_compiled.so.",
    "libcudnn_engines_tensor_ir.so.",
    "libcudnn_ext.so.",
];

/// The libraries that the pinned CUDA runtime requires, by the names that it gives to the loader.
const NEEDED: [&str; 6] = [
    "libcudart.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libnvrtc.so.13",
    "libcudnn.so.9",
];

/// A library that CUDA needs, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaLibrary {
    pub name: &'static str,
    pub place: Option<LibraryPlace>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryPlace {
    /// Beside ONNX Runtime, where pip or `stablehand runtime install` puts it.
    Beside(PathBuf),
    /// In a folder that the system's loader searches.
    System,
}

/// Looks for the libraries that the pinned CUDA runtime needs. `onnxruntime` is the path of ONNX Runtime's library.
pub fn cuda_libraries(onnxruntime: &Path) -> Vec<CudaLibrary> {
    let beside = beside(onnxruntime);
    let place = |name: &str| {
        let found = beside.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        let on_system = || ort::util::preload_dylib(name).is_ok().then_some(LibraryPlace::System);
        found.cloned().map(LibraryPlace::Beside).or_else(on_system)
    };
    NEEDED.into_iter().map(|name| CudaLibrary { name, place: place(name) }).collect()
}

/// Loads the libraries that pip or `stablehand runtime install` put beside ONNX Runtime.
pub(super) fn preload(onnxruntime: &Path) {
    for library in beside(onnxruntime) {
        if let Err(error) = ort::util::preload_dylib(&library) {
            // If CUDA needs the library, it fails later with a better message.
            tracing::debug!(library = %library.display(), %error, "not preloaded");
        }
    }
}

/// The libraries to load for the ONNX Runtime at `site-packages/onnxruntime/capi/libonnxruntime.so.*`.
fn beside(onnxruntime: &Path) -> Vec<PathBuf> {
    let Some(packages) = onnxruntime.ancestors().nth(3) else { return Vec::new() };
    let names = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let folders = names(&packages.join("nvidia"));
    let files: Vec<_> = folders.iter().flat_map(|folder| names(&folder.join("lib"))).collect();
    let begins = |path: &Path, name: &str| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
    };
    LIBRARIES.iter().filter_map(|name| files.iter().find(|file| begins(file, name)).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_s_folders_are_searched_in_the_order_of_dependence() {
        let packages = tempfile::tempdir().unwrap();
        let found = [
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
        ];
        for file in
            found.iter().chain(&["nvidia/cu13/lib/libother.so.1", "onnxruntime/capi/libonnxruntime.so.1"])
        {
            let path = packages.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let libraries = beside(&packages.path().join("onnxruntime/capi/libonnxruntime.so.1"));
        let names: Vec<_> = libraries
            .iter()
            .map(|path| path.strip_prefix(packages.path()).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, [found[2], found[1], found[0], found[3], found[4]]);
    }

    #[test]
    fn without_pip_s_folders_no_library_is_found() {
        for path in ["", "/", "/usr/lib/libonnxruntime.so", "libonnxruntime.so"] {
            assert_eq!(beside(Path::new(path)), Vec::<PathBuf>::new());
        }
    }
}
