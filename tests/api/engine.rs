//! An engine that draws nothing and follows a script.

use std::sync::{Arc, Condvar, Mutex};

use stablehand::diffusion::{RgbImage, encode_png};
use stablehand::domain::{GenerationInput, ImageSize, NewImage};
use stablehand::engine::{Engine, EngineError, Model, Placement, Preparation, PreparationOf, Spare};
use stablehand::runtime::Device;

/// What the engine may do, and how far it is. The test shares it with the engine.
#[derive(Default)]
pub struct Script {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether building the engine waits for `open` too.
    slow_start: bool,
    /// Why the engine cannot be built.
    broken: Option<String>,
    /// The memory for all engines. Each engine needs 1.
    budget: Option<u64>,
    /// Whether its pictures are real PNG files of the size that was asked.
    draws: bool,
    /// Whether its model changes pictures as the prompt says.
    pub edits_images: bool,
}

#[derive(Default)]
struct State {
    /// The steps that are still allowed. None allows any number.
    allowed: Option<u32>,
    /// Steps begun since the last `hold` or `allow`.
    begun: u32,
    /// Previews drawn since the last `hold` or `allow`.
    previews: u32,
}

impl Script {
    /// The engine is built after `open`.
    pub fn slow_to_start() -> Self {
        let script = Self { slow_start: true, ..Self::default() };
        script.hold();
        script
    }

    /// Memory for this many engines.
    pub fn with_room_for(engines: u64) -> Self {
        Self { budget: Some(engines), ..Self::default() }
    }

    /// Its pictures are real PNG files, with a text as A1111 writes it.
    pub fn drawing() -> Self {
        Self { draws: true, ..Self::default() }
    }

    /// Its model changes pictures as the prompt says, like InstructPix2Pix.
    pub fn editing() -> Self {
        Self { edits_images: true, ..Self::default() }
    }

    /// The engine cannot be built.
    pub fn broken(reason: &str) -> Self {
        Self { broken: Some(reason.to_owned()), ..Self::default() }
    }

    /// No step finishes before `open`.
    pub fn hold(&self) {
        self.allow(0);
    }

    pub fn allow(&self, steps: u32) {
        *self.state.lock().unwrap() = State { allowed: Some(steps), ..State::default() };
        self.changed.notify_all();
    }

    pub fn open(&self) {
        self.state.lock().unwrap().allowed = None;
        self.changed.notify_all();
    }

    /// Waits until the engine has begun this many steps.
    pub fn wait_for_step(&self, steps: u32) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.begun < steps).unwrap());
    }

    /// Steps begun since the last `hold` or `allow`.
    pub fn steps(&self) -> u32 {
        self.state.lock().unwrap().begun
    }

    /// Previews drawn since the last `hold` or `allow`.
    pub fn previews(&self) -> u32 {
        self.state.lock().unwrap().previews
    }

    fn step(&self) {
        let mut state = self.state.lock().unwrap();
        state.begun += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.allowed == Some(0)).unwrap();
        state.allowed = state.allowed.map(|allowed| allowed - 1);
    }
}

pub struct ScriptedEngine(Arc<Script>);

pub struct Generation {
    step: u32,
    steps: u32,
    seeds: Vec<u64>,
    nsfw: bool,
    size: ImageSize,
    warnings: Vec<String>,
}

/// A model whose engines all follow one script.
#[derive(Clone)]
pub struct ScriptedModel(pub Arc<Script>);

impl Model for ScriptedModel {
    type Engine = ScriptedEngine;

    fn placement(&self) -> Result<Placement, EngineError> {
        Ok(Placement { device: Device::Cpu, needs: 1, budget: self.0.budget })
    }

    fn load(&self) -> Result<ScriptedEngine, EngineError> {
        let script = &self.0;
        if script.slow_start {
            drop(
                script
                    .changed
                    .wait_while(script.state.lock().unwrap(), |state| state.allowed == Some(0))
                    .unwrap(),
            );
        }
        let refusal = script.broken.clone().map(EngineError::Other);
        refusal.map_or_else(|| Ok(ScriptedEngine(Arc::clone(script))), Err)
    }
}

impl Engine for ScriptedEngine {
    type Generation = Generation;
    type Prepared = ();
    type Made = ();

    fn prepare(&mut self, _: &GenerationInput) -> Result<PreparationOf<Self>, EngineError> {
        Ok(Preparation::ready((), 0))
    }

    fn keep(&mut self, (): ()) {}

    /// Fails for the prompt `fail`, and warns for the prompt `warn`.
    fn begin(&mut self, (): (), input: &GenerationInput, seed: u64) -> Result<Generation, EngineError> {
        if input.prompt == "fail" {
            return Err(EngineError::Other("The script says no.".to_owned()));
        }
        let seeds = (0..input.num_outputs).map(|index| GenerationInput::seed_of(seed, index)).collect();
        let GenerationInput { num_inference_steps: steps, nsfw, size, .. } = *input;
        let warns = input.prompt == "warn";
        let warnings = warns.then(|| "The script has no \"ink\".".to_owned()).into_iter().collect();
        Ok(Generation { step: 0, steps, seeds, nsfw, size, warnings })
    }

    fn step(&mut self, batch: &mut [&mut Generation]) -> Result<(), EngineError> {
        self.0.step();
        for generation in batch {
            generation.step += 1;
        }
        Ok(())
    }

    fn progress(&self, generation: &Generation) -> (u32, u32) {
        (generation.step, generation.steps)
    }

    fn preview(&mut self, generation: &Generation) -> Option<Vec<u8>> {
        self.0.state.lock().unwrap().previews += 1;
        if self.0.draws {
            return Some(picture(ImageSize { width: 16, height: 8 }));
        }
        Some(format!("\u{89}PNG {}", generation.step).into_bytes())
    }

    fn warnings(&self, generation: &Generation) -> Vec<String> {
        generation.warnings.clone()
    }

    fn save(&self, _: &Generation) -> Option<Vec<u8>> {
        None
    }

    fn resume(&mut self, _: &mut Generation, _: &[u8]) -> Result<bool, EngineError> {
        Ok(false)
    }

    fn cut_short(&mut self, generation: &mut Generation) -> Result<(), EngineError> {
        generation.warnings.push(format!("It was stopped after {} steps.", generation.step));
        Ok(())
    }

    /// The safety checker flags even seeds.
    fn finish(&mut self, generation: Generation) -> Result<Vec<NewImage>, EngineError> {
        let png = if self.0.draws { picture(generation.size) } else { b"\x89PNG scripted".to_vec() };
        let kept = |seed: u64| generation.nsfw || !seed.is_multiple_of(2);
        let image = |&seed: &u64| NewImage { seed, png: kept(seed).then(|| png.clone()), prompts: None };
        Ok(generation.seeds.iter().map(image).collect())
    }

    fn capacity(&self) -> usize {
        1
    }

    fn memory_for(&self, _: &[&GenerationInput]) -> u64 {
        1
    }

    fn prepared_memory(&self) -> u64 {
        0
    }

    fn spares(&self) -> Vec<Spare> {
        Vec::new()
    }

    fn drop_spares(&mut self, _: u64) {}
}

/// A grey PNG file.
pub fn picture(ImageSize { width, height }: ImageSize) -> Vec<u8> {
    let pixels = vec![128; width as usize * height as usize * 3];
    let text = format!("a dog\nSteps: 2, Size: {width}x{height}, Model: scripted, Version: stablehand");
    encode_png(&RgbImage { width, height, pixels }, &[("parameters", &text)]).unwrap()
}
