//! Embeds ONNX Runtime's shared library in the binary.
//!
//! The library comes from a pinned `onnxruntime` wheel. pip downloads it, or `STABLEHAND_ORT_WHEEL` names a wheel file. A
//! wheel is a zip file. This script copies the library's deflate stream unchanged, and `src/runtime/embedded.rs` inflates it
//! at the first start. Every error is one sentence with a remedy.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sha2::{Digest, Sha256};
use zip::{CompressionMethod, ZipArchive};

const VERSION: &str = "1.32.0";

/// The wheel of one platform.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    /// The value for pip's `--platform`.
    platform: &'static str,
    sha256: &'static str,
    /// The beginning and the end of the library's file name in the wheel.
    library: (&'static str, &'static str),
}

const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        library: ("libonnxruntime.so.", VERSION),
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        library: ("libonnxruntime.so.", VERSION),
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        library: ("libonnxruntime.", ".dylib"),
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
        library: ("onnxruntime.dll", ""),
    },
];

const REMEDY: &str =
    "or build with `--no-default-features` and name a library with STABLEHAND_ORT_DYLIB at run time";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=STABLEHAND_ORT_WHEEL");
    if env::var_os("CARGO_FEATURE_EMBED_ONNXRUNTIME").is_none() {
        return ExitCode::SUCCESS;
    }
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR.")?);
    let variable = |name| env::var(name).unwrap_or_default();
    let (os, arch) = (variable("CARGO_CFG_TARGET_OS"), variable("CARGO_CFG_TARGET_ARCH"));
    let wheel = WHEELS
        .iter()
        .find(|wheel| wheel.os == os && wheel.arch == arch && variable("CARGO_CFG_TARGET_ENV") != "musl")
        .ok_or_else(|| {
            format!("There is no pinned ONNX Runtime wheel for the target {arch}-{os}: build with `--no-default-features` and name a library with STABLEHAND_ORT_DYLIB at run time.")
        })?;

    let path = match env::var_os("STABLEHAND_ORT_WHEEL") {
        Some(path) => PathBuf::from(path),
        None => download(wheel, &out)?,
    };
    let digest = sha256_of(&path)?;
    if digest != wheel.sha256 {
        return Err(format!(
            "{} has SHA-256 {digest}, but the pinned onnxruntime {VERSION} wheel for {} has {}: delete it and build again, {REMEDY}.",
            path.display(),
            wheel.platform,
            wheel.sha256
        ));
    }
    unpack(wheel, &path, &out).map_err(|error| format!("Cannot read {}: {error}.", path.display()))
}

/// Lets pip download the wheel into `out`, unless it is there from an earlier build.
fn download(wheel: &Wheel, out: &Path) -> Result<PathBuf, String> {
    let folder = out.join("wheel");
    let find = || {
        let entries = fs::read_dir(&folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        entries.into_iter().find(|path| path.extension() == Some(OsStr::new("whl")))
    };
    if let Some(path) = find().filter(|path| sha256_of(path).is_ok_and(|digest| digest == wheel.sha256)) {
        return Ok(path);
    }
    let _ = fs::remove_dir_all(&folder);

    let python = ["python3", "python"].into_iter().find(|python| {
        Command::new(python)
            .args(["-m", "pip", "--version"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    let python = python.ok_or_else(|| {
        format!("The build needs pip to download ONNX Runtime, but neither `python3 -m pip` nor `python -m pip` works: install Python's pip, {REMEDY}.")
    })?;
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12"])
        .args(["--platform", wheel.platform, "--dest"])
        .arg(&folder)
        .arg(format!("onnxruntime=={VERSION}"))
        .output()
        .map_err(|error| format!("Cannot run {python}: {error}."))?;
    find().filter(|_| output.status.success()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().rfind(|line| line.starts_with("ERROR")).unwrap_or("it gave no reason").trim();
        format!(
            "pip could not download onnxruntime {VERSION} for {} ({reason}): check the network, set STABLEHAND_ORT_WHEEL to the path of the wheel, {REMEDY}.",
            wheel.platform
        )
    })
}

fn sha256_of(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| format!("Cannot read {}: {error}.", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes the deflate streams of the library and of the licence notices, and a Rust file that describes them.
fn unpack(wheel: &Wheel, path: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut archive = ZipArchive::new(File::open(path)?)?;
    let mut names = Vec::new();
    for index in 0..archive.len() {
        names.push(archive.by_index_raw(index)?.name()?.into_owned());
    }
    let (begins, ends) = wheel.library;
    let is_library = |name: &&String| {
        let file = name.strip_prefix("onnxruntime/capi/");
        file.is_some_and(|file| file.starts_with(begins) && file.ends_with(ends))
    };
    let library = names.iter().find(is_library).ok_or("it holds no ONNX Runtime library")?;

    let mut bytes = Vec::new();
    archive.by_name(library)?.read_to_end(&mut bytes)?;
    let streams =
        [(library.as_str(), "library.deflate"), ("onnxruntime/ThirdPartyNotices.txt", "notices.deflate")];
    for (name, file) in streams {
        let index = archive.index_for_name(name).ok_or_else(|| format!("it holds no {name}"))?;
        let mut entry = archive.by_index_raw(index)?;
        if entry.compression() != CompressionMethod::Deflated {
            return Err(format!("{name} is not compressed with deflate").into());
        }
        io::copy(&mut entry, &mut File::create(out.join(file))?)?;
    }
    let name = library.rsplit('/').next().unwrap_or(library);
    let description = format!(
        "pub const VERSION: &str = \"{VERSION}\";\n\
         pub const FILE_NAME: &str = \"{name}\";\n\
         #[expect(clippy::unreadable_literal, reason = \"generated\")]\n\
         pub const SIZE: u64 = {};\n\
         pub const SHA256: &str = \"{}\";\n",
        bytes.len(),
        hex(&Sha256::digest(&bytes))
    );
    fs::write(out.join("library.rs"), description)?;
    Ok(())
}
