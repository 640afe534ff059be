//! What was found out about this processor, in the cache folder: small texts, so that every start decides alike.
//!
//! A text is kept for all that it depends on: the processor, its cores, ONNX Runtime and this program. Where the folder
//! cannot be written to, each start finds it out anew.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::cores::physical_cores;
use super::{Runtime, cache_dir};

/// Far more than any such text has.
const LONGEST: u64 = 4096;

/// A question about the processor, and where its answer is kept.
pub struct Remembered {
    path: PathBuf,
    /// The first lines of its file: what the answer depends on.
    of: String,
}

impl Remembered {
    /// The question of this name, for this processor and this runtime.
    pub fn new(question: &str, runtime: &Runtime) -> Self {
        let version = runtime.library().version().unwrap_or_default();
        Self::in_folder(&cache_dir(), question, &version, &processor())
    }

    /// The same in any folder, and for any processor.
    pub fn in_folder(cache: &Path, question: &str, runtime: &str, processor: &str) -> Self {
        // Without optimisation, our own code is slower by far.
        let build = if cfg!(debug_assertions) { " (debug)" } else { "" };
        let of = format!(
            "stablehand {}{build}\nONNX Runtime {runtime}\n{} cores\n{processor}\n",
            env!("CARGO_PKG_VERSION"),
            physical_cores()
        );
        let hash = Sha256::digest(&of).iter().take(8).fold(String::new(), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        });
        Self { path: cache.join(format!("{question}-{hash}.txt")), of }
    }

    /// What was answered before.
    pub fn recall(&self) -> Option<String> {
        let mut text = String::new();
        // Another user may have put anything there.
        let is_file = fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_file());
        File::open(&self.path).ok().filter(|_| is_file)?.take(LONGEST).read_to_string(&mut text).ok()?;
        text.strip_prefix(&*self.of).map(|answer| answer.trim_end().to_owned())
    }

    /// Keeps an answer, where the cache folder can be written to.
    pub fn keep(&self, answer: &str) {
        if let Err(error) = self.write(answer) {
            tracing::warn!(
                %error,
                path = %self.path.display(),
                "what was found out about this processor cannot be kept: each start finds it out anew"
            );
        }
    }

    fn write(&self, answer: &str) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // With another ONNX Runtime than the embedded one, nothing has made it yet.
        fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        // Users who share a cache may read what root found out.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let mut file = builder.tempfile_in(folder)?;
        writeln!(file, "{}{answer}", self.of)?;
        file.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

/// Which processor this is, in the system's words.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let described = describe(&text);
    match described.is_empty() {
        true => format!(
            "{} {}",
            std::env::consts::ARCH,
            std::env::var("PROCESSOR_IDENTIFIER").unwrap_or_default()
        ),
        false => described,
    }
}

/// What is the same at every start of the first processor in Linux's list.
fn describe(cpuinfo: &str) -> String {
    const LINES: [&str; 10] = [
        "vendor_id",
        "cpu family",
        "model",
        "model name",
        "stepping",
        "cache size",
        "CPU implementer",
        "CPU variant",
        "CPU part",
        "CPU revision",
    ];
    let lines = cpuinfo.lines().take_while(|line| !line.trim().is_empty());
    let lines =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
    let mut described = Vec::new();
    for (name, value) in lines {
        if LINES.contains(&name) {
            described.push(format!("{name}: {value}"));
        } else if matches!(name, "flags" | "Features") {
            // Too long to be read by anybody.
            let hash = Sha256::digest(value);
            described.push(format!("{name}: {:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
        }
    }
    described.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEN: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\ncpu MHz\t\t: 2595.1\n\
                       flags\t\t: fpu avx2\n\nprocessor\t: 1\nvendor_id\t: other\n";

    #[test]
    fn an_answer_is_kept_for_its_processor_and_its_runtime_alone() {
        let cache = tempfile::tempdir().unwrap();
        let question =
            |runtime, processor| Remembered::in_folder(cache.path(), "fastest", runtime, processor);
        let first = question("1.0", "zen");
        assert_eq!(first.recall(), None);
        first.keep("ours");
        assert_eq!(question("1.0", "zen").recall().as_deref(), Some("ours"));
        assert_eq!(question("1.1", "zen").recall(), None);
        assert_eq!(question("1.0", "ice").recall(), None);
        first.keep("theirs");
        assert_eq!(first.recall().as_deref(), Some("theirs"));
        // Of something else, under the same name.
        fs::write(&first.path, "ours").unwrap();
        assert_eq!(first.recall(), None);
    }

    #[test]
    fn where_there_can_be_no_folder_nothing_is_remembered() {
        let parent = tempfile::tempdir().unwrap();
        let (file, missing) = (parent.path().join("file"), parent.path().join("missing"));
        fs::write(&file, "no folder").unwrap();
        let question = |folder: &Path| Remembered::in_folder(folder, "fastest", "1.0", "zen");
        question(&file).keep("ours");
        assert_eq!(question(&file).recall(), None);
        question(&missing).keep("ours");
        assert_eq!(question(&missing).recall().as_deref(), Some("ours"), "the folder is made");
    }

    #[test]
    fn a_processor_is_described_without_what_changes() {
        let described = describe(ZEN);
        assert!(
            described.starts_with("vendor_id: AuthenticAMD\ncpu family: 26\nmodel: 2\nflags: "),
            "{described}"
        );
        assert!(!described.contains("MHz") && !described.contains("other"));
        assert_ne!(described, describe(&ZEN.replace("avx2", "avx512f")));
        assert_eq!(describe(""), "");
    }
}
