//! Caches as the hub's own client leaves them: complete, interrupted, damaged, and with models of other kinds.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A cache with the files of one repository. The content of a file is its own name.
struct Fixture(TempDir);

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn is_json(file: &str) -> bool {
    Path::new(file).extension() == Some(OsStr::new("json"))
}

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn cache(&self) -> HubCache {
        HubCache::at(self.0.path().to_owned())
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.0.path().join(format!("models--{}", repository.replace('/', "--")))
    }

    fn add(&self, repository: &str, reference: &str, files: &[&str]) {
        let folder = self.folder(repository);
        let (snapshot, blobs) = (folder.join("snapshots").join(COMMIT), folder.join("blobs"));
        let reference = folder.join("refs").join(reference);
        fs::create_dir_all(reference.parent().unwrap()).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(reference, COMMIT).unwrap();
        for (index, file) in files.iter().enumerate() {
            let link = snapshot.join(file);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let blob = blobs.join(format!("{repository}-{index}").replace('/', "-"));
            fs::write(&blob, if is_json(file) { "{}" } else { file }).unwrap();
            symlink(blob, link).unwrap();
        }
    }

    fn remove_content(&self, repository: &str, file: &str) {
        let link = self.folder(repository).join("snapshots").join(COMMIT).join(file);
        fs::remove_file(link.canonicalize().unwrap()).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.cache().list().into_iter().map(|model| model.name).collect()
    }

    fn refusal(&self, name: &str) -> String {
        self.cache().find(name).unwrap_err().to_string()
    }
}

const FOLDER: [&str; 6] = [
    "model_index.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "tokenizer/vocab.json",
];

#[test]
fn a_model_is_found_by_its_name_where_it_is() {
    let fixture = Fixture::new();
    fixture.add("org/name", "main", &FOLDER);
    fixture.add("org/name", "refs/pr/1", &[]);
    let snapshot = fixture.folder("org/name").join("snapshots").join(COMMIT);
    let found = fixture.cache().find("org/name").unwrap().unwrap();
    assert_eq!((found.kind, &found.path), (ModelKind::Diffusers, &snapshot));
    // Three contents are their file's name, the others `{}`.
    let weights = FOLDER.iter().filter(|file| !is_json(file)).map(|file| file.len() as u64);
    assert_eq!(found.bytes, weights.sum::<u64>() + 6);
    for name in ["org/name@refs/pr/1", &format!("org/name@{COMMIT}")] {
        assert_eq!(fixture.cache().find(name).unwrap().unwrap().path, snapshot, "{name}");
    }
    for name in ["org/none", "name", "org/name@v2", "../x", "org/name@../../x", "org/name:none.safetensors"] {
        assert_eq!(fixture.cache().find(name).unwrap(), None, "{name}");
    }
    assert_eq!(fixture.names(), ["org/name", "org/name@refs/pr/1"]);
}

#[test]
fn files_and_folders_below_are_found_too() {
    let fixture = Fixture::new();
    fixture.add("org/file", "main", &["a b/dream.safetensors", "a b/dream.vae.safetensors"]);
    fixture.add("org/two", "main", &["x.safetensors", "y.ckpt"]);
    let below = FOLDER.map(|file| format!("sub/{file}"));
    fixture.add("org/sub", "main", &below.each_ref().map(String::as_str));
    let ends = |name: &str, end: &str| {
        let found = fixture.cache().find(name).unwrap().unwrap();
        assert!(found.path.ends_with(end), "{}", found.path.display());
    };
    ends("org/file", "a b/dream.safetensors");
    ends("org/two:y.ckpt", "y.ckpt");
    ends("org/sub", "sub");
    ends("org/sub:sub", "sub");
    assert_eq!(fixture.names(), ["org/file:a b/dream.safetensors", "org/sub:sub", "org/two:x.safetensors"]);
    assert_eq!(fixture.cache().list()[0].bytes, 21 + 25);
}

#[test]
fn what_is_missing_is_named() {
    let fixture = Fixture::new();
    fixture.add("org/name", "main", &FOLDER);
    fixture.remove_content("org/name", "unet/diffusion_pytorch_model.safetensors");
    let refusal = fixture.refusal("org/name");
    assert!(
        refusal.contains("(the content of unet/diffusion_pytorch_model.safetensors is missing)"),
        "{refusal}"
    );
    assert!(refusal.ends_with("or use `stablehand models pull org/name`"), "{refusal}");
    assert!(fixture.cache().list()[0].problem.is_some());

    let fixture = Fixture::new();
    fixture.add("org/name", "main", &FOLDER[..3]);
    let refusal = fixture.refusal("org/name");
    assert!(refusal.contains("(org/name has no weights with a usual name for its unet)"), "{refusal}");
    fs::write(fixture.folder("org/name").join("blobs/abc.incomplete"), "").unwrap();
    assert!(fixture.refusal("org/name").contains("(a download was interrupted)"));
    assert_eq!(fixture.cache().list()[0].problem.as_deref(), Some("a download was interrupted"));
}

#[test]
fn a_folder_is_judged_by_its_own_files() {
    let fixture = Fixture::new();
    let all: Vec<_> = ["A", "AB"].iter().flat_map(|sub| FOLDER.map(|file| format!("{sub}/{file}"))).collect();
    fixture.add("org/name", "main", &all.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.remove_content("org/name", "AB/unet/diffusion_pytorch_model.safetensors");
    assert!(fixture.cache().find("org/name:A").unwrap().unwrap().path.ends_with("A"));
    let refusal = fixture.refusal("org/name:AB");
    assert!(refusal.contains("(the content of AB/unet/diffusion_pytorch_model.safetensors is missing)"));

    let fixture = Fixture::new();
    let part: Vec<_> = FOLDER[..3].iter().map(|file| format!("A/{file}")).collect();
    let mut files: Vec<_> = part.iter().map(String::as_str).collect();
    files.push("AB/notes.txt");
    fixture.add("org/name", "main", &files);
    let refusal = fixture.refusal("org/name:A");
    assert!(refusal.starts_with("org/name:A in the cache") && refusal.contains("/A, is not complete"));
    assert!(refusal.contains("has no weights with a usual name for its unet"), "{refusal}");
    for name in ["org/name:AB", "org/name:B", "org/name:A/none.safetensors"] {
        assert_eq!(fixture.cache().find(name).unwrap(), None, "{name}");
    }
}

#[test]
fn the_shards_that_a_list_names_must_be_there() {
    let fixture = Fixture::new();
    let index = "unet/diffusion_pytorch_model.safetensors.index.json";
    let mut files = FOLDER.to_vec();
    files[3] = index;
    files.push("unet/1.safetensors");
    fixture.add("org/name", "main", &files);
    let path = fixture.folder("org/name").join("snapshots").join(COMMIT).join(index).canonicalize().unwrap();
    fs::write(&path, r#"{"weight_map": {"a": "../x.safetensors"}}"#).unwrap();
    assert!(fixture.refusal("org/name").contains("names the shard \"../x.safetensors\""));
    fs::write(&path, "[").unwrap();
    assert!(fixture.refusal("org/name").contains("index.json cannot be read"));
}

#[test]
fn models_of_other_kinds_are_not_listed() {
    let fixture = Fixture::new();
    fixture.add("org/language", "main", &["config.json", "model.safetensors", "tokenizer.json"]);
    fixture.add("org/sound", "main", &["sound.pt"]);
    fixture.add("org/texts", "main", &["README.md"]);
    fixture.add("org/xl", "main", &FOLDER);
    let index = fixture.folder("org/xl").join("snapshots").join(COMMIT).join("model_index.json");
    fs::write(index.canonicalize().unwrap(), r#"{"_class_name": "StableDiffusionXLPipeline"}"#).unwrap();
    fs::create_dir(fixture.0.path().join("models--alone")).unwrap();
    fs::create_dir(fixture.0.path().join("datasets--org--name")).unwrap();
    assert_eq!(fixture.names(), Vec::<String>::new());
    assert_eq!(HubCache::at("/nowhere".into()).list(), []);
}

#[test]
fn a_hostile_cache_leads_nowhere() {
    let fixture = Fixture::new();
    fixture.add("org/name", "main", &FOLDER);
    let refs = fixture.folder("org/name").join("refs");
    for commit in ["../../..", "", "/etc", &"a".repeat(70)] {
        fs::write(refs.join("main"), commit).unwrap();
        assert_eq!(fixture.cache().find("org/name").unwrap(), None, "{commit}");
    }
    fs::write(refs.join("main"), COMMIT).unwrap();
    let snapshot = fixture.folder("org/name").join("snapshots").join(COMMIT);
    symlink(&snapshot, snapshot.join("loop")).unwrap();
    symlink("/dev/zero", snapshot.join("unet/zero.safetensors")).unwrap();
    assert!(fixture.refusal("org/name").contains("the content of unet/zero.safetensors is missing"));
}
