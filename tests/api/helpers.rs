//! A separate server for each test: on a free port, in a temporary folder, with a clock that only the test moves.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::app::{App, Endpoint};
use stablehand::config::{Access, Config, EndpointConfig, usual_add_ons};
use stablehand::domain::{Clock, EndpointId, InputRules, Timestamp};
use stablehand::fetch::AllowedAddresses;
use stablehand::http::HttpSettings;
use stablehand::queue::QueueSettings;
use stablehand::runtime::{CpuSettings, DeviceChoice};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::client::{Request, Response};
use crate::engine::{Script, ScriptedModel};

pub const KEY: &str = "first-key";
pub const VERSIONS: [&str; 2] = ["v1", "v2"];
/// The time at which every test begins.
const START: Timestamp = Timestamp(1_700_000_000_000);

pub struct TestApp {
    pub port: u16,
    pub script: Arc<Script>,
    config: Config,
    clock: Clock,
    now: Arc<AtomicI64>,
    running: Option<Running>,
    _dir: TempDir,
}

struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: JoinHandle<Result<(), String>>,
}

impl TestApp {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A server with a changed configuration.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::launch(change, Script::default())
    }

    /// A server whose engine is built after the script opens.
    pub fn loading_until_opened() -> Self {
        let script = Script::slow_to_start();
        Self::launch(|_| {}, script)
    }

    /// A server whose engine cannot be built.
    pub fn start_broken(reason: &str) -> Self {
        Self::launch(|_| {}, Script::broken(reason))
    }

    /// A server with a changed configuration, whose engines follow `script`.
    pub fn launch(change: impl FnOnce(&mut Config), script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (clock, now) = Clock::manual(START);
        let mut config = Config {
            endpoints: vec![endpoint(EndpointId::DEFAULT, 1)],
            add_ons: usual_add_ons(dir.path()),
            cpu: CpuSettings::default(),
            memory_budget: None,
            unload_after: None,
            save_every: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            allow_addresses: AllowedAddresses::default(),
            access: Access::Keys(vec![KEY.to_owned(), "second-key".to_owned()]),
            http: HttpSettings::default(),
            data_dir: dir.path().join("data"),
            models_dir: dir.path().join("models"),
            manage_models: false,
            queue: QueueSettings::default(),
            sweep_interval: Duration::from_hours(1),
            shutdown_grace: Duration::from_secs(10),
            webhook_secret: None,
            signing_key: None,
            agent_listen: None,
            webhooks_at_once: 2,
        };
        change(&mut config);
        let mut app =
            Self { port: 0, script: Arc::new(script), config, clock, now, running: None, _dir: dir };
        app.serve();
        app
    }

    fn serve(&mut self) {
        let script = Arc::clone(&self.script);
        let endpoints = self.config.endpoints.iter().map(|endpoint| {
            let script = Arc::clone(&script);
            Endpoint {
                id: endpoint.id.clone(),
                workers: endpoint.workers,
                rules: InputRules { edits_images: script.edits_images, ..InputRules::default() },
                model_name: "scripted".to_owned(),
                model_path: None,
                preload: endpoint.preload,
                model: ScriptedModel(Arc::clone(&script)),
            }
        });
        let app = App::build(&self.config, endpoints.collect(), self.clock.clone()).unwrap();
        self.port = app.port();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new()
                .block_on(app.run_until_stopped(async {
                    let _ = stopped.await;
                }))
                .map_err(|error| error.to_string())
        });
        self.running = Some(Running { stop: Some(stop), thread });
    }

    /// Asks the server to stop, and waits until it accepts no more connections.
    pub fn begin_to_stop(&mut self) {
        if let Some(stop) = self.running.as_mut().and_then(|running| running.stop.take()) {
            stop.send(()).unwrap();
        }
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            std::thread::yield_now();
        }
    }

    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            drop(running.stop); // this asks the server to stop, as sending does
            running.thread.join().unwrap().unwrap();
        }
    }

    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// Stops the server and starts another in the same folder.
    pub fn restart(&mut self) {
        self.stop();
        // A thread that read something when the server stopped may hold the folder for a moment longer.
        let stopped = Instant::now();
        while stablehand::store::is_in_use(&self.config.data_dir)
            && stopped.elapsed() < Duration::from_secs(10)
        {
            std::thread::yield_now();
        }
        self.serve();
    }

    /// Waits until the server ends by itself.
    pub fn outcome(mut self) -> Result<(), String> {
        self.running.take().unwrap().thread.join().unwrap()
    }

    pub fn advance_ms(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    pub fn own_key(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("api-key")).unwrap().trim().to_owned()
    }

    pub fn get(&self, target: &str) -> Response {
        keyed("GET", target).send(self.port)
    }

    pub fn post(&self, target: &str, body: Value) -> Response {
        self.post_text(target, &body.to_string())
    }

    pub fn post_text(&self, target: &str, body: &str) -> Response {
        keyed("POST", target).header("Content-Type", "application/json").body(body).send(self.port)
    }

    /// Submits a job through `/run`.
    pub fn submit(&self, body: &Value) -> String {
        let response = self.post_text("/v2/stable-diffusion-v1/run", &body.to_string());
        response.id()
    }

    /// Requests `/status` of a job.
    pub fn status(&self, id: &str) -> Response {
        self.get(&format!("/v2/stable-diffusion-v1/status/{id}"))
    }

    /// Waits with `/status-sync` until a job has ended. Returns its status body.
    pub fn wait(&self, id: &str) -> Value {
        self.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}")).json()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.script.open();
        if let Some(running) = self.running.take() {
            drop(running.stop);
            let outcome = running.thread.join();
            if !std::thread::panicking() {
                outcome.unwrap().unwrap();
            }
        }
    }
}

/// An endpoint with this many workers, which all follow the test's script.
pub fn endpoint(id: &str, workers: u32) -> EndpointConfig {
    EndpointConfig { id: EndpointId::new(id), model: None, device: DeviceChoice::Cpu, workers, preload: true }
}

/// The body of the smallest request.
pub fn prompt(text: &str) -> Value {
    json!({"input": {"prompt": text}})
}

/// A request with a valid key.
pub fn keyed(method: &str, target: &str) -> Request {
    Request::new(method, target).header("Authorization", &format!("Bearer {KEY}"))
}

/// The answer to a request that draws, and the `input` of its job.
pub fn with_input(app: &TestApp, send: impl Fn() -> Response + Sync) -> (Response, Value) {
    app.script.hold();
    std::thread::scope(|scope| {
        let sending = scope.spawn(&send);
        while app.script.steps() == 0 {
            assert!(!sending.is_finished(), "{:?}", send());
            std::thread::yield_now();
        }
        let requests = app.get("/v2/stable-diffusion-v1/requests").json();
        app.script.open();
        let input = requests["requests"][0]["input"].clone();
        (sending.join().unwrap(), input)
    })
}

/// Waits until the endpoint has no job any more.
pub fn wait_until_forgotten(app: &TestApp) {
    let jobs = || app.get("/v2/stable-diffusion-v1/health").json()["jobs"].clone();
    while jobs().as_object().unwrap().values().any(|count| count.as_u64() != Some(0)) {
        std::thread::yield_now();
    }
}
