//! Starts the binary with a clean environment, and talks to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const KEY: &str = "test-key";
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The cache folder. All tests share it, so that ONNX Runtime is unpacked only once.
fn cache_dir() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache"))
}

/// The binary, with an environment without any of the machine's settings for stablehand and for hubs.
pub fn stablehand(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stablehand"));
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("STABLEHAND_")) {
        command.env_remove(name);
    }
    for name in ["HF_TOKEN", "HUGGINGFACE_HUB_CACHE", "HF_HOME"] {
        command.env_remove(name);
    }
    // The models of whoever runs the tests are not theirs.
    command.env("HF_HUB_CACHE", cache_dir().join("no-hub"));
    // Bytes are compared: nothing may depend on what is faster here.
    command.env("STABLEHAND_CPU_SPEED", "memory");
    command.env("STABLEHAND_CACHE_DIR", cache_dir()).args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn output(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// Checks that a command failed with this exit code and one line on standard error.
pub fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let lines: Vec<_> = stderr.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 1, "stderr should be one line: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "'{part}' in {stderr}");
    }
}

/// A running server.
pub struct Server {
    child: Child,
    base: String,
}

impl Server {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, |_| {})
    }

    /// Starts a server that accepts jobs but runs none.
    pub fn start_without_workers(data: &Path) -> Self {
        Self::start_with(data, |command| {
            command.env("STABLEHAND_WORKERS", "0");
        })
    }

    /// Starts `stablehand serve` on a free port and waits until it prints its URL.
    pub fn start_with(data: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        Self::start_at("127.0.0.1:0", data, configure)
    }

    /// The same on this address.
    pub fn start_at(listen: &str, data: &Path, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = stablehand(&["serve", "--listen", listen, "--data-dir"]);
        command
            .arg(data)
            .env("STABLEHAND_API_KEYS", KEY)
            .env("STABLEHAND_DEVICE", "cpu")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        configure(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let base = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
            })
            .expect("the server prints its URL");
        thread::spawn(move || lines.for_each(drop));
        Self { child, base: base.trim_end_matches('/').to_owned() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub fn url(&self, path: &str) -> String {
        self.url_at("stable-diffusion-v1", path)
    }

    pub fn url_at(&self, endpoint: &str, path: &str) -> String {
        format!("{}/v2/{endpoint}/{path}", self.base)
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        let request = ureq::get(self.url(path)).header("Authorization", KEY);
        request.call().ok()?.body_mut().read_json().ok()
    }

    pub fn post(&self, path: &str, body: &Value) -> Option<Value> {
        let request = ureq::post(self.url(path)).header("Authorization", KEY);
        request.send_json(body).ok()?.body_mut().read_json().ok()
    }

    /// Submits a job. Returns its id if the server acknowledged it.
    pub fn submit(&self, input: &Value) -> Option<String> {
        Some(self.post("run", &json!({ "input": input }))?["id"].as_str()?.to_owned())
    }

    /// The sum of what the metrics page says of `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let request = ureq::get(format!("{}/metrics", self.base)).header("Authorization", KEY);
        let page = request.call().unwrap().body_mut().read_to_string().unwrap();
        let values = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until the job has ended. Returns its status body.
    pub fn wait(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = self
                .get(&format!("status-sync/{id}?wait=10000"))
                .unwrap_or_else(|| panic!("{id} is unknown"));
            if !["IN_QUEUE", "IN_PROGRESS"].contains(&body["status"].as_str().unwrap()) {
                return body;
            }
            assert!(Instant::now() < deadline, "{body}");
        }
    }

    /// Waits until a job is running.
    pub fn wait_until_running(&self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.get(&format!("status/{id}")).unwrap()["status"] != "IN_PROGRESS" {
            assert!(Instant::now() < deadline, "{id} starts");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9` while clients still talk to the server.
    pub fn kill_now(&self) {
        self.send("-KILL");
    }

    /// Sends a signal, such as `-STOP`.
    pub fn send(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM. Returns the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        self.send("-TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "SIGTERM ends the server");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the folder of the built-in model.
pub fn model_copy(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    for part in ["scheduler", "tokenizer", "text_encoder", "unet", "vae", "graphs"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for entry in fs::read_dir(from.join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(part).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(from.join("model_index.json"), to.join("model_index.json")).unwrap();
}

/// The input of a small job: two steps at the smallest size.
pub fn small(prompt: &str) -> Value {
    json!({"prompt": prompt, "width": 64, "height": 64, "num_inference_steps": 2})
}

/// Downloads a picture.
pub fn download(url: &str) -> Vec<u8> {
    let mut response = ureq::get(url).call().unwrap();
    assert_eq!(response.headers()["content-type"], "image/png");
    response.body_mut().read_to_vec().unwrap()
}

/// A xorshift generator. The kills come at different times in each round, but at the same times in each test run.
pub fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

pub fn data_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// All files under `root`, relative to it.
pub fn files_under(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().strip_prefix(root).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}
