//! What the long proofs draw: short and long jobs, and the pictures that a server draws for them if nobody disturbs it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::{Value, json};

use crate::helpers::{Server, data_dir, download, next, small};

/// Long enough for a machine with much else to do. What waits that long hangs.
pub const PATIENCE: Duration = Duration::from_mins(10);
/// A short job is queued only while fewer wait.
const MOST_QUEUED: u64 = 8;
const SHORT: usize = 6;
pub const LONG_STEPS: u32 = 120;

/// Inputs with their seeds, and what is drawn for each. The first ones are short.
pub struct Mix {
    pub inputs: Vec<Value>,
    pictures: Vec<Vec<Vec<u8>>>,
}

impl Mix {
    /// Draws everything once.
    pub fn draw() -> Self {
        let (data, mut mix) = (data_dir(), Self { inputs: Vec::new(), pictures: Vec::new() });
        let server = start(data.path(), |_| {});
        let mut draw = |input: Value| {
            let id = server.submit(&input).unwrap();
            let pictures = pictures_of(&wait(&server, &id));
            let first = pictures[0].clone();
            mix.inputs.push(input);
            mix.pictures.push(pictures);
            first
        };
        let mut picture = Vec::new();
        for seed in 0..SHORT {
            let mut input = small(["a dog", "a red heart", "a rocket"][seed % 3]);
            input["seed"] = json!(seed);
            picture = draw(input);
        }
        let picture = data_uri(&picture);
        for (number, own) in [
            json!({"scheduler": "EULER-A", "prompt": "a red {heart|rocket}", "wildcards": true, "num_outputs": 2}),
            json!({"scheduler": "DPM++ 2M SDE", "subseed": 3, "subseed_strength": 0.2}),
            json!({"scheduler": "PNDM", "hires": {"scale": 2, "steps": 60, "strength": 0.7}}),
            json!({"scheduler": "DDIM", "init_image": picture, "prompt_strength": 0.8}),
            json!({"scheduler": "UniPC", "init_image": picture, "mask": picture, "prompt_strength": 1}),
        ]
        .into_iter()
        .enumerate()
        {
            let mut input = small("a panda");
            input["num_inference_steps"] = json!(LONG_STEPS);
            input["seed"] = json!(100 + number);
            for (name, value) in own.as_object().unwrap() {
                input[name] = value.clone();
            }
            draw(input);
        }
        mix
    }

    pub fn short(&self, random: &mut u64) -> usize {
        below(SHORT.min(self.inputs.len()), random)
    }

    pub fn long(&self, random: &mut u64) -> usize {
        SHORT + below(self.inputs.len() - SHORT, random)
    }

    /// Checks the pictures of a completed job to the byte.
    pub fn assert_drawn(&self, input: usize, body: &Value) {
        let drawn = pictures_of(body);
        assert!(drawn == self.pictures[input], "wrong bytes: {} {body}", self.inputs[input]);
    }
}

/// A server that saves its jobs often: the built-in model takes a second for what others take minutes for.
pub fn start(data: &Path, configure: impl FnOnce(&mut Command)) -> Server {
    Server::start_with(data, |command| {
        command
            .env("STABLEHAND_SAVE_EVERY", "50ms")
            .env("STABLEHAND_RATE_LIMITS", "off")
            .env("STABLEHAND_RETENTION", "1day");
        configure(command);
    })
}

/// Whether another short job may be queued.
pub fn has_room(server: &Server) -> bool {
    server.get("health").is_some_and(|health| health["jobs"]["inQueue"].as_u64().unwrap() < MOST_QUEUED)
}

/// What a server that lives answers. A machine that stood still for a while may have cost the connection.
pub fn ask(server: &Server, path: &str) -> Option<Value> {
    (0..5).find_map(|attempt| {
        thread::sleep(Duration::from_millis(100) * attempt);
        server.get(path)
    })
}

/// Waits until a job has ended.
pub fn wait(server: &Server, id: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = ask(server, &format!("status-sync/{id}?wait=10000")).unwrap();
        if !is_open(body["status"].as_str().unwrap()) {
            return body;
        }
        assert!(Instant::now() < deadline, "{body}");
    }
}

/// Waits until a job has done so many steps. False: it has ended, or a purge removed it.
pub fn reaches(server: &Server, id: &str, step: u64) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while let Some(body) = server.get(&format!("status/{id}")) {
        if !is_open(body["status"].as_str().unwrap()) {
            return false;
        }
        if body["progress"]["step"].as_u64().is_some_and(|done| done >= step) {
            return true;
        }
        assert!(Instant::now() < deadline, "step {step}: {body}");
        thread::sleep(Duration::from_millis(2));
    }
    false
}

pub fn is_open(status: &str) -> bool {
    ["IN_QUEUE", "IN_PROGRESS"].contains(&status)
}

pub fn below(limit: usize, random: &mut u64) -> usize {
    usize::try_from(next(random)).unwrap() % limit
}

/// A number from the environment, for the proof at its full size.
pub fn number(name: &str, usual: u32) -> u32 {
    env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn pictures_of(body: &Value) -> Vec<Vec<u8>> {
    assert_eq!(body["status"], "COMPLETED", "{body}");
    let pictures = body["output"].as_array().unwrap().iter();
    pictures.map(|picture| download(picture["image"].as_str().unwrap())).collect()
}

fn data_uri(png: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}
