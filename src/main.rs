//! The program: what the command line asks for, with the engine that this build has.

use std::process::ExitCode;

use stablehand::app::Model;
use stablehand::cli;
use stablehand::config::Config;
use stablehand::domain::{GenerationInput, InputLimits, NewImage};
use stablehand::worker::Engine;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), load)
}

// SEAM: the real pipeline goes here. `load` reads the model folder's grid (quickly, without the
// weights) and answers how to build a pipeline on a worker's thread; `NoEngine` then goes.
#[allow(clippy::unnecessary_wraps)] // the real one can fail
fn load(_: &Config) -> Result<Model<MakeEngine>, String> {
    Ok(Model {
        limits: InputLimits { grid: 64 },
        make_engine: || {
            Err("this build has no engine yet: set STABLEHAND_WORKERS=0 to serve without".to_owned())
        },
    })
}

type MakeEngine = fn() -> Result<NoEngine, String>;

/// An engine that cannot be built.
enum NoEngine {}

impl Engine for NoEngine {
    type Generation = ();
    type Error = String;

    fn begin(&mut self, _: &GenerationInput, _: u64) -> Result<(), String> {
        match *self {}
    }

    fn step(&mut self, _: &mut [&mut ()]) -> Result<(), String> {
        match *self {}
    }

    fn progress(&self, (): &()) -> (u32, u32) {
        match *self {}
    }

    fn finish(&mut self, (): ()) -> Result<Vec<NewImage>, String> {
        match *self {}
    }

    fn capacity(&self) -> usize {
        match *self {}
    }

    fn device(&self) -> String {
        match *self {}
    }
}
