//! What is measured: a loaded model on a device, and the ways in which measurements drive it.

use std::time::{Duration, Instant};

use super::Failure;
use super::row::Row;
use crate::diffusion::{Generation, Model, Picture, Pipeline, RgbImage};
use crate::domain::{GenerationInput, ImageSize, Sampling};
use crate::runtime::{CardSettings, CpuSettings, DeviceChoice, MemoryUse, Runtime};

pub(super) struct Subject {
    pub name: String,
    pub runtime: Runtime,
    pub pipeline: Pipeline,
    pub sizes: Vec<ImageSize>,
    /// Of the UNet calls that are timed as a step.
    pub rows: Vec<usize>,
    /// Of the card, before anything was loaded.
    pub memory_before: Option<MemoryUse>,
    /// What other measurements found, for those that calculate.
    pub found: Found,
    model: Model,
    /// The same model on the CPU, once somebody has asked for it.
    on_cpu: Option<Pipeline>,
}

/// In milliseconds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub prompt: Option<f64>,
    /// By size.
    pub decodes: Vec<(ImageSize, f64)>,
    /// By size and rows.
    pub steps: Vec<(ImageSize, usize, f64)>,
}

/// Rows of the UNet calls that are timed, if nobody says otherwise.
const ROWS: [usize; 5] = [1, 2, 4, 8, 16];
/// Rows that one call of the UNet takes here: a guided picture has two.
const IMAGES_PER_CALL: usize = 8;
pub(super) const PROMPT: &str = "a red fox in the snow, a photograph";
pub(super) const SEED: u64 = 1;

impl Subject {
    /// Loads the model. Also returns how long that took.
    pub fn load(
        model: Model,
        device: DeviceChoice,
        cpu: CpuSettings,
        sizes: &[ImageSize],
    ) -> Result<(Self, Vec<Row>), Failure> {
        let started = Instant::now();
        let runtime = Runtime::load(device)?.with_cpu(cpu);
        let runtime_took = started.elapsed();
        let memory_before = runtime.device().memory_use();
        let started = Instant::now();
        let pipeline = pipeline(&model, &runtime)?;
        let rows = vec![
            Row::new("load", seconds(runtime_took), "s").note("ONNX Runtime"),
            Row::new("load", seconds(started.elapsed()), "s").note("the model"),
        ];
        let description = model.description();
        let side = description.native_side;
        let sizes = match sizes {
            [] => vec![ImageSize { width: side, height: side }],
            sizes => sizes.to_vec(),
        };
        let name = description.name.clone();
        let found = Found::default();
        let subject = Self {
            name,
            runtime,
            pipeline,
            sizes,
            rows: ROWS.to_vec(),
            memory_before,
            found,
            model,
            on_cpu: None,
        };
        Ok((subject, rows))
    }

    /// A guided picture, by the scheduler that the model's requests get.
    pub fn input(&self, size: ImageSize, steps: u32) -> GenerationInput {
        let rules = self.model.rules();
        GenerationInput {
            size,
            num_inference_steps: steps,
            scheduler: rules.scheduler,
            sampling: Sampling { spacing: rules.spacing, ..Sampling::default() },
            ..GenerationInput::new(PROMPT)
        }
    }

    /// Generations whose next steps are one UNet call of so many rows: guided pictures, or one without guidance.
    pub fn batch(&mut self, size: ImageSize, rows: usize, steps: u32) -> Result<Vec<Generation>, Failure> {
        let input = self.input(size, steps);
        if rows == 1 {
            let unguided = GenerationInput { guidance_scale: 1.0, ..input };
            return Ok(vec![self.pipeline.begin(&unguided, SEED)?]);
        }
        let begin = |seed| Ok(self.pipeline.begin(&input, SEED + seed)?);
        (0..rows as u64 / 2).map(begin).collect()
    }

    /// The whole way to the first picture of a request.
    pub fn draw(&mut self, input: &GenerationInput, seed: u64) -> Result<RgbImage, Failure> {
        draw(&mut self.pipeline, input, seed)
    }

    /// Goes another way on the card for one measurement, with the model loaded anew, and comes back.
    pub fn on_card<T>(
        &mut self,
        settings: CardSettings,
        measure: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let other = pipeline(&self.model, &self.runtime.clone().with_card_settings(settings))?;
        let usual = std::mem::replace(&mut self.pipeline, other);
        let outcome = measure(self);
        self.pipeline = usual;
        outcome
    }

    /// The same on the CPU.
    pub fn draw_on_cpu(&mut self, input: &GenerationInput, seed: u64) -> Result<RgbImage, Failure> {
        let pipeline = match &mut self.on_cpu {
            Some(pipeline) => pipeline,
            on_cpu => on_cpu.insert(pipeline(
                &self.model,
                &Runtime::load(DeviceChoice::Cpu)?.with_cpu(self.runtime.cpu()),
            )?),
        };
        draw(pipeline, input, seed)
    }
}

/// The model, loaded for measuring.
fn pipeline(model: &Model, runtime: &Runtime) -> Result<Pipeline, Failure> {
    Ok(model.load(runtime)?.with_images_per_call(IMAGES_PER_CALL))
}

fn draw(pipeline: &mut Pipeline, input: &GenerationInput, seed: u64) -> Result<RgbImage, Failure> {
    first(pipeline.draw(input, seed)?)
}

pub(super) fn first_image(pipeline: &mut Pipeline, generation: &Generation) -> Result<RgbImage, Failure> {
    first(pipeline.finish(generation)?)
}

fn first(pictures: Vec<Picture>) -> Result<RgbImage, Failure> {
    let first = pictures.into_iter().next();
    first.map(|picture| picture.image).ok_or_else(|| Failure::Other("no picture came".to_owned()))
}

pub(super) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
