//! The wheels of the CUDA runtime: pinned names, versions and hashes, and the files to unpack from each.
//!
//! The provider needs cuBLAS, cuRAND and the CUDA runtime to load (its `NEEDED` entries), cuDNN for convolutions and
//! attention, and NVRTC for the kernels that cuDNN compiles. It needs cuFFT only for operators that no Stable Diffusion
//! model has. NVIDIA's packages are those of CUDA 13.0, with which the provider was built, so that the oldest driver for
//! CUDA 13 runs them.

/// The version of onnxruntime-gpu, which is also the version of the whole runtime.
pub const CUDA_VERSION: &str = "1.31.1";
/// The version of CUDA that a driver must support at least.
pub const CUDA_MINIMUM: (u32, u32) = (13, 0);
/// The first driver that supports it.
pub const DRIVER_MINIMUM: &str = "580";
/// The compute capabilities for which the provider has machine code. It has no PTX that a driver could compile.
const CAPABILITIES: [(u32, u32); 6] = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)];

/// Whether a card of this compute capability can run the provider's kernels. Kernels for an older minor version of the same
/// major version work too.
pub fn serves((major, minor): (u32, u32)) -> bool {
    CAPABILITIES.iter().any(|&(code_major, code_minor)| code_major == major && code_minor <= minor)
}

/// One wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub name: &'static str,
    pub version: &'static str,
    pub sha256: &'static str,
    /// The bytes to download.
    pub wheel_bytes: u64,
    /// The bytes of the unpacked files.
    pub unpacked_bytes: u64,
    pub licence: Licence,
    /// Paths in the wheel. The files get the same paths in the runtime's folder.
    pub files: &'static [&'static str],
    /// Paths in the wheel. The files go into the folder `licences`.
    pub licence_files: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Licence {
    Mit,
    /// NVIDIA's own terms, which the user accepts by downloading.
    Nvidia,
}

impl Package {
    /// The beginning of the wheel's file name.
    pub fn file_prefix(&self) -> String {
        format!("{}-{}-", self.name.replace('-', "_"), self.version)
    }
}

/// The wheels in the order of their download. The smallest comes first, so that a wrong setup fails early.
pub static CUDA_PACKAGES: [Package; 6] = [
    Package {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        wheel_bytes: 2_243_632,
        unpacked_bytes: 763_550,
        licence: Licence::Nvidia,
        files: &["nvidia/cu13/lib/libcudart.so.13"],
        licence_files: &["nvidia_cuda_runtime-13.0.96.dist-info/licenses/License.txt"],
    },
    Package {
        name: "nvidia-curand",
        version: "10.4.0.35",
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        wheel_bytes: 59_544_258,
        unpacked_bytes: 132_757_590,
        licence: Licence::Nvidia,
        files: &["nvidia/cu13/lib/libcurand.so.10"],
        licence_files: &["nvidia_curand-10.4.0.35.dist-info/licenses/License.txt"],
    },
    Package {
        name: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        wheel_bytes: 90_215_200,
        unpacked_bytes: 113_777_942,
        licence: Licence::Nvidia,
        files: &["nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc-builtins.so.13.0"],
        licence_files: &["nvidia_cuda_nvrtc-13.0.88.dist-info/licenses/License.txt"],
    },
    Package {
        name: "onnxruntime-gpu",
        version: CUDA_VERSION,
        sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        wheel_bytes: 255_569_273,
        unpacked_bytes: 313_790_377,
        licence: Licence::Mit,
        files: &[
            "onnxruntime/capi/libonnxruntime.so.1.31.1",
            "onnxruntime/capi/libonnxruntime_providers_shared.so",
            "onnxruntime/capi/libonnxruntime_providers_cuda.so",
        ],
        licence_files: &["onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"],
    },
    Package {
        name: "nvidia-cublas",
        version: "13.0.2.14",
        sha256: "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
        wheel_bytes: 420_882_912,
        unpacked_bytes: 594_032_454,
        licence: Licence::Nvidia,
        files: &["nvidia/cu13/lib/libcublasLt.so.13", "nvidia/cu13/lib/libcublas.so.13"],
        licence_files: &["nvidia_cublas-13.0.2.14.dist-info/licenses/License.txt"],
    },
    Package {
        name: "nvidia-cudnn-cu13",
        version: "9.28.1.4",
        sha256: "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec",
        wheel_bytes: 516_817_937,
        unpacked_bytes: 940_131_002,
        licence: Licence::Nvidia,
        files: &[
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_adv.so.9",
            "nvidia/cudnn/lib/libcudnn_cnn.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_precompiled.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_runtime_compiled.so.9",
            "nvidia/cudnn/lib/libcudnn_engines_tensor_ir.so.9",
            "nvidia/cudnn/lib/libcudnn_ext.so.9",
            "nvidia/cudnn/lib/libcudnn_graph.so.9",
            "nvidia/cudnn/lib/libcudnn_heuristic.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
        ],
        licence_files: &["nvidia_cudnn_cu13-9.28.1.4.dist-info/licenses/License.txt"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_runs_machine_code_of_its_own_major_version() {
        for served in [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (12, 0), (12, 1)] {
            assert!(serves(served), "{served:?}");
        }
        for other in [(6, 1), (7, 0), (7, 2), (10, 0), (10, 3), (11, 0), (13, 0)] {
            assert!(!serves(other), "{other:?}");
        }
    }

    #[test]
    fn every_package_is_pinned_and_states_its_licence() {
        for package in &CUDA_PACKAGES {
            assert!(package.sha256.len() == 64 && package.sha256.chars().all(|c| c.is_ascii_hexdigit()));
            assert!(!package.files.is_empty() && !package.licence_files.is_empty(), "{}", package.name);
            let is_ours = package.name == "onnxruntime-gpu";
            assert_eq!(package.licence == Licence::Mit, is_ours, "{}", package.name);
        }
        let libraries: Vec<_> = CUDA_PACKAGES.iter().flat_map(|package| package.files).collect();
        assert!(libraries.iter().any(|path| path.ends_with(&format!("libonnxruntime.so.{CUDA_VERSION}"))));
    }
}
