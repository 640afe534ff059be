//! One denoising step of a batch: which images share a UNet call, and guidance.

use std::cell::RefCell;

use ndarray::{Array1, Array4, Axis, Zip, s};

use super::guidance::rescale_noise_pred;
use super::{DiffusionError, Generation, Pipeline};
use crate::diffusion::nets::{ModelError, UNet, UNetRows, WorkingMemory};
use crate::domain::ModelPart;

impl Pipeline {
    /// One denoising step of each generation that is not done yet. Between two passes it is a piece of what lies there.
    pub fn step(&mut self, batch: &mut [&mut Generation]) -> Result<(), DiffusionError> {
        for generation in batch.iter_mut().filter(|generation| generation.is_between_passes()) {
            self.enlarge(generation)?;
        }
        let mut units = Vec::new();
        for (index, generation) in batch.iter_mut().enumerate().filter(|(_, g)| g.is_drawing()) {
            generation.scale_model_input()?;
            units.extend((0..generation.images()).map(|image| Unit { generation: index, image }));
        }
        while !units.is_empty() {
            let call = self.take_call(&mut units, batch);
            self.predict(&call, batch)?;
        }
        for generation in batch.iter_mut().filter(|generation| generation.is_drawing()) {
            generation.advance()?;
        }
        Ok(())
    }

    /// Removes from `units` those that can share a UNet call with the first one.
    fn take_call(&self, units: &mut Vec<Unit>, batch: &[&mut Generation]) -> Vec<Unit> {
        let first = &batch[units[0].generation];
        let mut call = Vec::new();
        units.retain(|unit| {
            let other = &batch[unit.generation];
            #[expect(clippy::float_cmp, reason = "two schedules at the very same timestep")]
            let shares = is_one(first.adapted_unet(), other.adapted_unet())
                && other.latents.dim().2 == first.latents.dim().2
                && other.latents.dim().3 == first.latents.dim().3
                && other.prompts.positive.values().dim() == first.prompts.positive.values().dim()
                && (self.unet.takes_mixed_timesteps() || other.timestep() == first.timestep());
            let taken = shares && call.len() < self.batching.images;
            if taken {
                call.push(*unit);
            }
            !taken
        });
        call
    }

    /// One UNet call: the negative rows of guided images first, then a positive row for every image, in the order of the
    /// reference, then the rows that see no picture to change. Writes the guided prediction into each generation's
    /// `noise_pred`.
    fn predict(&mut self, call: &[Unit], batch: &mut [&mut Generation]) -> Result<(), ModelError> {
        let guided: Vec<Unit> =
            call.iter().copied().filter(|unit| batch[unit.generation].guided_by().is_some()).collect();
        let blind = guided.iter().filter(|unit| batch[unit.generation].blind_input.is_some());
        let rows = guided.iter().map(|unit| (unit, Row::Negative));
        let rows = rows.chain(call.iter().map(|unit| (unit, Row::Positive)));
        let rows = rows.chain(blind.map(|unit| (unit, Row::Blind)));
        let mut sample = Vec::new();
        let mut embeddings = Vec::new();
        let mut timesteps = Vec::new();
        let mut guidance_scales = Vec::new();
        for (unit, row) in rows {
            let generation = &batch[unit.generation];
            let embedding = generation.guided_by().filter(|_| row != Row::Positive);
            let input = generation.blind_input.as_ref().filter(|_| row == Row::Blind);
            sample.push(input.unwrap_or(&generation.model_input).index_axis(Axis(0), unit.image));
            embeddings.push(embedding.unwrap_or(&generation.prompts.positive));
            timesteps.push(generation.timestep());
            guidance_scales.push(generation.input.guidance_scale);
        }
        let mismatch =
            |error: ndarray::ShapeError| ModelError::Run { part: ModelPart::UNet, reason: error.to_string() };
        let rows = UNetRows {
            sample: ndarray::stack(Axis(0), &sample).map_err(mismatch)?,
            embeddings,
            timesteps: Array1::from(timesteps),
            guidance_scales,
        };
        // All generations of a call have the same UNet and the same size.
        let Some(first) = call.first().map(|unit| &batch[unit.generation]) else { return Ok(()) };
        let adapted = first.adapted.as_ref().filter(|adapted| adapted.unet.is_some());
        let mut with_this_unet = batch.iter().filter(|g| is_one(g.adapted_unet(), first.adapted_unet()));
        let memory = match with_this_unet.all(|generation| generation.is_at_last_call()) {
            true => WorkingMemory::GiveBack,
            false => WorkingMemory::Keep,
        };
        let taken = self.memory_needs.unet(first.drawn_at, rows.embeddings.len() as u64);
        let predicted: Array4<f32> = match first.adapted_unet() {
            Some(unet) => unet.borrow_mut().predict(&rows, memory)?,
            None => self.unet.predict(&rows, memory)?,
        };
        let gives_back = self.device.is_cpu() && memory == WorkingMemory::GiveBack;
        let kept = |before: u64| if gives_back { 0 } else { before.max(taken) };
        match adapted {
            Some(adapted) => adapted.unet_keeps.set(kept(adapted.unet_keeps.get())),
            None => self.kept.unet = kept(self.kept.unet),
        }

        let mut negatives = predicted.outer_iter();
        let mut positives = predicted.slice(s![guided.len().., .., .., ..]).into_outer_iter();
        let mut blinds = predicted.slice(s![guided.len() + call.len().., .., .., ..]).into_outer_iter();
        for unit in call {
            let generation = &mut *batch[unit.generation];
            let is_guided = generation.guided_by().is_some();
            let (scale, rescale) = (generation.input.guidance_scale, generation.input.guidance_rescale);
            let mut noise_pred = generation.noise_pred.index_axis_mut(Axis(0), unit.image);
            let conditional = positives.next().expect("a row for each image");
            noise_pred.assign(&conditional);
            if is_guided {
                let unconditional = negatives.next().expect("a row for each guided image");
                match generation.input.image_guidance_scale.filter(|_| generation.blind_input.is_some()) {
                    None => {
                        noise_pred.zip_mut_with(&unconditional, |c, u| *c = u + scale * (*c - u));
                    }
                    // The negative row sees the picture to change, and the blind one does not.
                    Some(image_scale) => {
                        let blind = blinds.next().expect("a row for each guided image with a picture");
                        Zip::from(&mut noise_pred).and(&unconditional).and(&blind).for_each(|c, i, u| {
                            *c = u + scale * (*c - i) + image_scale * (i - u);
                        });
                    }
                }
                rescale_noise_pred(noise_pred, conditional, rescale);
            }
        }
        Ok(())
    }
}

/// Whether two generations have the same UNet.
fn is_one(a: Option<&RefCell<UNet>>, b: Option<&RefCell<UNet>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// What a row of a call shows the UNet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Positive,
    /// The negative prompt.
    Negative,
    /// The negative prompt, and no picture to change.
    Blind,
}

/// One image of one generation in the batch.
#[derive(Clone, Copy)]
struct Unit {
    generation: usize,
    image: usize,
}
