//! A card that fills up while the real binary works: the job fails alone and says what to change, the server goes on,
//! and smaller jobs are drawn. Nobody gets to read where in ONNX Runtime's source that was.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stablehand::runtime::is_out_of_memory;
use tempfile::TempDir;

use crate::card::{Card, USUAL};
use crate::process::{KEY, Server, assert_refused, output, stablehand};

/// The device's memory does not suffice for a job, or for a model.
const JOB: &str =
    "The server's device (cuda:0) has too little memory for this: ask for a smaller picture or fewer outputs";
const MODEL: &str =
    "The server's device (cuda:0) has too little memory to load the model: let the server use";

/// A server on a card of its own, that has drawn one picture.
struct World {
    folder: TempDir,
    card: Card,
    server: Server,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let card = Card::new(folder.path());
        let server = start(&card, folder.path());
        let world = Self { folder, card, server };
        assert_eq!(world.draw(&json!({}))["status"], "COMPLETED");
        world
    }

    /// The status body of a small job with these fields besides.
    fn draw(&self, more: &Value) -> Value {
        let mut input = json!({
            "prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 2, "scheduler": "EULER-D",
        });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = self.server.submit(&input).unwrap();
        self.server.wait(&id)
    }

    /// A job fails because the card is full, after so many UNet calls, with a sentence. Then a small job is drawn on
    /// the full card, and the job that failed is drawn once there is room.
    #[track_caller]
    fn fails_alone(&self, input: &Value, unet_calls: u64) {
        self.card.fill();
        let (counts, body) = self.card.count(|| self.draw(input));
        assert_eq!(body["status"], "FAILED", "{body}");
        assert!(body["error"].as_str().unwrap().starts_with(JOB), "{body}");
        assert_eq!(counts.get("replays"), unet_calls, "{counts:?}");
        let body = self.draw(&json!({}));
        assert_eq!(body["status"], "COMPLETED", "{body}");
        self.card.set_memory(80 << 30);
        let body = self.draw(input);
        assert_eq!(body["status"], "COMPLETED", "{body}");
    }

    /// Ends the server and looks at its log.
    fn end(self) {
        assert!(self.server.terminate().success());
        let log = log(self.folder.path());
        assert!(log.contains("out of memory"), "{log}");
        assert_clean(&log);
        let held = self.card.counts().get("held");
        assert_eq!(held, 0, "of the card's memory is still held");
        assert_eq!(self.card.counts().get("faults"), 0);
    }
}

fn start(card: &Card, folder: &Path) -> Server {
    Server::start_with(&folder.join("data"), |command| {
        card.plug_into(command, USUAL);
        let log = File::create(folder.join("log")).unwrap();
        command.env("STABLEHAND_DEVICE", "cuda").env("STABLEHAND_LOG", "debug").stderr(log);
    })
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap()
}

/// No line holds a place in somebody's source, or what else an error of ONNX Runtime's CUDA provider brings.
#[track_caller]
fn assert_clean(text: &str) {
    for sign in ["onnxruntime_src", ".cc:", "hostname=", "expr=", "onnxruntime::", "\u{1b}["] {
        let line = text.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "'{sign}' in {line:?}");
    }
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_card_that_is_full_when_a_job_begins_fails_that_job_alone() {
    let world = World::new();
    // Reading a picture is the first work of the VAE's encoder.
    let picture = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd/gallery.png")).unwrap();
    let picture = STANDARD.encode(picture);
    world.fails_alone(&json!({ "init_image": picture }), 0);
    world.end();
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_card_that_is_full_at_a_step_fails_that_job_alone() {
    let world = World::new();
    // A shape that no UNet call had yet.
    world.fails_alone(&json!({ "width": 128, "height": 64 }), 0);
    world.end();
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_card_that_is_full_when_a_picture_is_decoded_fails_that_job_alone() {
    let world = World::new();
    // UNet calls of the model's own size were timed when it was loaded, and nothing of that size was decoded.
    world.fails_alone(&json!({ "width": 128, "height": 128 }), 2);
    // ONNX Runtime logs this error itself, and its words end up in our log.
    assert!(log(world.folder.path()).contains("ONNX Runtime: "));
    world.end();
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_model_that_the_card_has_no_room_for_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let card = Card::new(folder.path());
    // No room for cuBLAS, for cuDNN, for the weights.
    for bytes in [1_u64 << 20, 9 << 20, 20 << 20, 40 << 20] {
        let mut command =
            stablehand(&["generate", "a red heart", "--device", "cuda", "--steps", "1", "-o", "-"]);
        card.plug_into(&mut command, USUAL);
        command.env("STUB_MEMORY", bytes.to_string());
        if card.exists() {
            card.set_memory(bytes);
        }
        let output = output(command);
        assert_refused(&output, 1, &[]);
        assert!(is_out_of_memory(&String::from_utf8_lossy(&output.stderr)));
        assert_clean(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(card.counts().get("held"), 0);
    }
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_server_whose_card_is_full_says_so_and_starts_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let card = Card::new(folder.path());
    let mut command = stablehand(&["serve", "--listen", "127.0.0.1:0", "--device", "cuda", "--data-dir"]);
    command.arg(folder.path().join("data")).stdout(Stdio::null());
    card.plug_into(&mut command, USUAL);
    // What models may take is told apart from what there is, so that the card itself says no.
    command.env("STUB_MEMORY", (40 << 20).to_string()).env("STABLEHAND_MEMORY_BUDGET", "8GiB");
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(MODEL), "{stderr}");
    assert_clean(&stderr);

    card.set_memory(80 << 30);
    let server = start(&card, folder.path());
    let id = server.submit(&json!({"prompt": "a red heart", "num_inference_steps": 1})).unwrap();
    let body = server.wait(&id);
    assert_eq!((&body["status"], &body["gpu"]), (&json!("COMPLETED"), &json!("80")), "{body}");
    // Cards are looked at every ten seconds.
    let line =
        format!("stablehand_device_memory_used_bytes{{device=\"cuda:0\"}} {}", card.counts().get("held"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !metrics(&server).contains(&line) {
        assert!(Instant::now() < deadline, "no '{line}' in {}", metrics(&server));
        thread::sleep(Duration::from_millis(200));
    }
}

fn metrics(server: &Server) -> String {
    let url = server.url("").replace("/v2/stable-diffusion-v1/", "/metrics");
    ureq::get(url).header("Authorization", KEY).call().unwrap().body_mut().read_to_string().unwrap()
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_picture_is_drawn_by_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    let card = Card::new(folder.path());
    let draw = |configure: &dyn Fn(&mut Command)| {
        let mut command = stablehand(&["generate", "a red heart", "--steps", "2", "-o", "-"]);
        card.plug_into(&mut command, USUAL);
        configure(&mut command);
        output(command)
    };
    for device in ["auto", "cuda", "cuda:0"] {
        let drawn = draw(&|command| {
            command.args(["--device", device]);
        });
        assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
        assert!(drawn.stdout.starts_with(b"\x89PNG") && drawn.stderr.is_empty());
    }
    assert!(card.counts().get("launches") > 0);
    let refused = draw(&|command| {
        command.args(["--device", "cuda:1"]);
    });
    assert_refused(&refused, 1, &["CUDA device 1 cannot be used: the NVIDIA driver shows one card, cuda:0"]);
    assert_clean(&String::from_utf8_lossy(&refused.stderr));
    // Without a card in the machine.
    let refused = draw(&|command| {
        command.args(["--device", "cuda"]).env_remove("STUB_CARD");
    });
    assert_refused(&refused, 1, &["CUDA device 0 cannot be used: the NVIDIA driver shows no card"]);
    assert_clean(&String::from_utf8_lossy(&refused.stderr));
}
