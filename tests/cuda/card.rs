//! The pretended card: where it is installed, how a test gets one, and what it counted.
//!
//! The architecture is read once a process, so a test that wants a card runs again in a process of its own.

use std::any::type_name;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use stablehand::runtime::Attention;

/// The architectures that the provider treats differently, from Turing to Blackwell.
pub const ARCHITECTURES: [u32; 7] = [75, 80, 86, 89, 90, 100, 120];
/// What a test takes that needs one card.
pub const USUAL: u32 = 90;

/// Bytes of a name and of a number in the card's file (tests/cuda/card/card.c).
const NAME: usize = 24;
const ENTRY: usize = 32;

/// A card in a file: the libraries count in it, and take its memory from it.
#[derive(Debug, Clone)]
pub struct Card {
    file: PathBuf,
}

/// What a card has counted, by name: "launches", "to card bytes", "held" and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Card {
    /// A new card of this architecture in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { file: folder.join("card") }
    }

    /// What a program must find in its environment to see the card.
    pub fn plug_into(&self, command: &mut Command, architecture: u32) {
        let kit = kit();
        // The loader tries attention kernels by what they compute, which is nothing here. So it is told what it would
        // choose.
        let attention = Attention::candidates(Some((architecture / 10, architecture % 10)))[0];
        command
            .env("STABLEHAND_CUDA_ATTENTION", attention.name())
            .env("STUB_CARD", &self.file)
            .env("STUB_SM", architecture.to_string())
            .env("LD_LIBRARY_PATH", kit.join("driver"))
            .env("STABLEHAND_ORT_DYLIB", runtime_library(kit));
    }

    /// Whether a program has come to it yet.
    pub fn exists(&self) -> bool {
        self.file.exists()
    }

    pub fn counts(&self) -> Counts {
        let bytes = fs::read(&self.file).unwrap();
        let entries = bytes.chunks_exact(ENTRY).map(|entry| {
            let name = String::from_utf8_lossy(&entry[..NAME]);
            let value = u64::from_le_bytes(entry[NAME..].try_into().unwrap());
            (name.trim_end_matches('\0').to_owned(), value)
        });
        Counts(entries.collect())
    }

    /// What `work` did to the card, beside its result.
    pub fn count<T>(&self, work: impl FnOnce() -> T) -> (Counts, T) {
        let before = self.counts();
        let result = work();
        (self.counts().since(&before), result)
    }

    /// Gives the card so many bytes in all, while others use it.
    pub fn set_memory(&self, bytes: u64) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        let content = fs::read(&self.file).unwrap();
        let entry = content.chunks_exact(ENTRY).position(|entry| entry.starts_with(b"memory\0")).unwrap();
        file.write_all_at(&bytes.to_le_bytes(), (entry * ENTRY + NAME) as u64).unwrap();
    }

    /// Leaves the card no byte beyond those in use.
    pub fn fill(&self) {
        self.set_memory(self.counts().get("held"));
    }
}

impl Counts {
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the card counts no {name}"))
    }

    fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().map(|(name, now)| (name.clone(), now.saturating_sub(before.get(name)))).collect())
    }
}

/// Runs `body` once for each architecture, each time in a process of its own that sees such a card.
#[track_caller]
pub fn on_cards<F: FnOnce(Card)>(architectures: &[u32], body: F) {
    if let Some(file) = env::var_os("STUB_CARD") {
        let card = Card { file: file.into() };
        body(card.clone());
        // Nothing at all was counted where no session came to the card.
        let counts = card.counts();
        assert!(counts.get("launches") > 0 && counts.get("faults") == 0, "{counts:?}");
        return;
    }
    // Of the closure, such as `cuda::graphs::every_graph_runs::{{closure}}`.
    let test = type_name::<F>().trim_end_matches("::{{closure}}").split_once("::").unwrap().1;
    for &architecture in architectures {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--include-ignored", "--nocapture"]);
        Card::new(folder.path()).plug_into(&mut command, architecture);
        let output = command.output().unwrap();
        let printed =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let is_run = printed[0].contains("1 passed");
        assert!(output.status.success() && is_run, "{test} on sm_{architecture}:\n{}", printed.concat());
    }
}

/// The folder that `tests/cuda/install` made.
fn kit() -> &'static Path {
    static KIT: OnceLock<PathBuf> = OnceLock::new();
    KIT.get_or_init(|| {
        let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/install");
        // Builds the libraries anew where their sources have changed.
        let output = Command::new(install).arg("--offline").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

fn runtime_library(kit: &Path) -> PathBuf {
    let folder = kit.join("site-packages/onnxruntime/capi");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_library = |path: &PathBuf| path.to_string_lossy().contains("/libonnxruntime.so.");
    paths.into_iter().find(is_library).unwrap()
}
