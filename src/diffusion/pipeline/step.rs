//! One denoising step of a batch: which images share a UNet call, and guidance.

use std::collections::BTreeMap;
use std::iter;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use ndarray::{Array1, Array4, Axis, Zip, s};

use super::control::{OwnRows, residuals};
use super::deep_features::{Depth, Row, deep_features};
use super::guidance::{compose, rescale_noise_pred};
use super::tiling::within_rim;
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
            generation.note_place();
            generation.scale_model_input()?;
            units.extend((0..generation.images()).map(|image| Unit { generation: index, image }));
        }
        while !units.is_empty() {
            let call = self.take_call(&mut units, batch);
            self.predict(&call, batch)?;
        }
        for generation in batch.iter_mut().filter(|generation| generation.is_drawing()) {
            generation.advance()?;
            generation.drop_deep_features();
        }
        Ok(())
    }

    /// Removes from `units` those that can share a UNet call with the first one.
    fn take_call(&self, units: &mut Vec<Unit>, batch: &[&mut Generation]) -> Vec<Unit> {
        let first = &batch[units[0].generation];
        let tokens = first.prompts.tokens(units[0].image);
        let mut call = Vec::new();
        units.retain(|unit| {
            let other = &batch[unit.generation];
            #[expect(clippy::float_cmp, reason = "two schedules at the very same timestep")]
            let shares = is_one(first.adapted_unet(), other.adapted_unet())
                && other.latents.dim().2 == first.latents.dim().2
                && other.latents.dim().3 == first.latents.dim().3
                && other.has_rim() == first.has_rim()
                && other.depth() == first.depth()
                && other.prompts.tokens(unit.image) == tokens
                && (self.unet.takes_mixed_timesteps() || other.timestep() == first.timestep());
            let taken = shares && call.len() < self.batching.images;
            if taken {
                call.push(*unit);
            }
            !taken
        });
        call
    }

    /// One UNet call: the negative rows of guided images first, then a positive row for each part of every image's prompt, in
    /// the order of the reference, then the rows that see no picture to change. Writes the guided prediction into each generation's
    /// `noise_pred`.
    fn predict(&mut self, call: &[Unit], batch: &mut [&mut Generation]) -> Result<(), ModelError> {
        let guided: Vec<Unit> = call
            .iter()
            .copied()
            .filter(|unit| batch[unit.generation].guided_by(unit.image).is_some())
            .collect();
        let blind = guided.iter().filter(|unit| batch[unit.generation].blind_input.is_some());
        let negative = |unit: &Unit| batch[unit.generation].guided_by(unit.image);
        let negatives = guided.iter().filter_map(|unit| Some((unit, negative(unit)?, Row::Negative)));
        let positives = call.iter().flat_map(|unit| {
            let parts = batch[unit.generation].positives(unit.image).enumerate();
            parts.map(move |(part, (prompt, _))| (unit, prompt, Row::Positive(part)))
        });
        let blinds = blind.filter_map(|unit| Some((unit, negative(unit)?, Row::Blind)));
        let rows = negatives.chain(positives).chain(blinds);
        let mut positive_rows = 0;
        let mut sample = Vec::new();
        let mut embeddings = Vec::new();
        let mut timesteps = Vec::new();
        let mut guidance_scales = Vec::new();
        let mut shown = Vec::new();
        for (unit, prompt, row) in rows {
            let generation = &batch[unit.generation];
            sample.push(generation.unet_input(row == Row::Blind).index_axis(Axis(0), unit.image));
            embeddings.push(prompt);
            positive_rows += usize::from(matches!(row, Row::Positive(_)));
            shown.push((unit.generation, (unit.image, row)));
            timesteps.push(generation.timestep());
            guidance_scales.push(generation.input.guidance_scale);
        }
        let mismatch =
            |error: ndarray::ShapeError| ModelError::Run { part: ModelPart::UNet, reason: error.to_string() };
        let mut rows = UNetRows {
            sample: ndarray::stack(Axis(0), &sample).map_err(mismatch)?,
            embeddings,
            timesteps: Array1::from(timesteps),
            guidance_scales,
            features: Vec::new(),
        };
        // All generations of a call have the same UNet and the same size.
        let Some(first) = call.first().map(|unit| &batch[unit.generation]) else { return Ok(()) };
        let depth = first.depth();
        if depth == Depth::Outer {
            rows.features = vec![deep_features(&shown, batch)?];
        }
        let keeps = call.iter().any(|unit| batch[unit.generation].keeps_deep_features());
        let adapted = first.adapted.as_ref().filter(|adapted| adapted.unet.is_some());
        let mut with_this_unet = batch.iter().filter(|g| is_one(g.adapted_unet(), first.adapted_unet()));
        let memory = match with_this_unet.all(|generation| generation.is_at_last_call_of(depth)) {
            true => WorkingMemory::GiveBack,
            false => WorkingMemory::Keep,
        };
        let seen_at = self.size_with_rim(&first.input, first.drawn_at);
        let taken = self.memory_needs.unet_of(depth, seen_at, rows.embeddings.len() as u64);
        let run = |unet: &mut UNet, rows: &UNetRows<'_>| match (depth, keeps) {
            (Depth::Outer, _) => Ok((unet.predict_shallow(rows, memory)?, None)),
            (Depth::Whole, false) => Ok((unet.predict(rows, memory)?, None)),
            (Depth::Whole, true) => {
                unet.predict_and_keep(rows, memory).map(|(predicted, deep)| (predicted, Some(deep)))
            }
        };
        let ((predicted, deep), bound) = match first.adapted_unet() {
            Some(unet) => {
                let mut unet = unet.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, _, height, width) = rows.sample.dim();
                let shapes = unet.residual_shapes(height, width);
                if !shapes.is_empty() {
                    rows.features = residuals(&own_rows(call, batch), &rows, &shapes, &self.memory_needs)?;
                }
                (run(&mut unet, &rows)?, unet.bound_bytes())
            }
            None => (run(&mut self.unet, &rows)?, self.unet.bound_bytes()),
        };
        let gives_back = self.device.is_cpu() && memory == WorkingMemory::GiveBack;
        let kept = |before: u64| if gives_back { 0 } else { before.max(taken + bound) };
        match adapted {
            Some(adapted) => {
                let keeps = &adapted.unet_keeps[depth as usize];
                keeps.store(kept(keeps.load(Ordering::Relaxed)), Ordering::Relaxed);
            }
            None => self.kept.unet[depth as usize] = kept(self.kept.unet[depth as usize]),
        }

        for ((generation, row), feature) in
            shown.into_iter().zip(deep.iter().flat_map(|deep| deep.outer_iter()))
        {
            if batch[generation].keeps_deep_features() {
                batch[generation].deep.keep(row, &feature);
            }
        }
        guide(&predicted, call, batch, (guided.len(), positive_rows));
        Ok(())
    }
}

/// Writes the guided prediction of each image of a call into its generation. The rows are those of [`Pipeline::predict`]: so
/// many `guided` ones, then so many `positive` ones, then the rest.
fn guide(
    predicted: &Array4<f32>,
    call: &[Unit],
    batch: &mut [&mut Generation],
    (guided, positive_rows): (usize, usize),
) {
    let mut negatives = predicted.outer_iter();
    let mut positives = predicted.slice(s![guided.., .., .., ..]).into_outer_iter();
    let mut blinds = predicted.slice(s![guided + positive_rows.., .., .., ..]).into_outer_iter();
    for unit in call {
        let generation = &mut *batch[unit.generation];
        let is_guided = generation.guided_by(unit.image).is_some();
        let step = generation.step_of_pass();
        let (scale, rescale) = (generation.guidance_scale(), generation.input.guidance_rescale);
        let has_rim = generation.has_rim();
        let mut noise_pred = generation.noise_pred.index_axis_mut(Axis(0), unit.image);
        let negative = is_guided.then(|| negatives.next().expect("a row for each guided image"));
        let unconditional = negative.map(|rows| within_rim(rows, has_rim));
        let mut weights = generation.prompts.positives(unit.image, step).map(|(_, weight)| weight);
        let first = within_rim(positives.next().expect("a row for each image"), has_rim);
        let composed;
        let conditional = match (weights.next(), weights.len()) {
            (Some(weight), others @ 1..) => {
                let others =
                    positives.by_ref().take(others).map(|rows| within_rim(rows, has_rim)).zip(weights);
                let parts = iter::once((first, weight)).chain(others);
                composed = compose(parts, unconditional.unwrap_or(first));
                composed.view()
            }
            _ => first,
        };
        noise_pred.assign(&conditional);
        if let Some(unconditional) = unconditional {
            match generation.input.image_guidance_scale.filter(|_| generation.blind_input.is_some()) {
                None => {
                    noise_pred.zip_mut_with(&unconditional, |c, u| *c = u + scale * (*c - u));
                }
                // The negative row sees the picture to change, and the blind one does not.
                Some(image_scale) => {
                    let blind = blinds.next().expect("a row for each guided image with a picture");
                    let blind = within_rim(blind, has_rim);
                    Zip::from(&mut noise_pred).and(&unconditional).and(&blind).for_each(|c, i, u| {
                        *c = u + scale * (*c - i) + image_scale * (i - u);
                    });
                }
            }
            rescale_noise_pred(noise_pred, conditional, rescale);
        }
    }
}

/// The rows of each generation in a call, as [`Pipeline::predict`] orders them.
fn own_rows<'a>(call: &[Unit], batch: &'a [&mut Generation]) -> Vec<OwnRows<'a>> {
    let mut own: BTreeMap<usize, OwnRows<'a>> = BTreeMap::new();
    for unit in call {
        let generation: &'a Generation = &*batch[unit.generation];
        let new = || OwnRows { generation, positive: Vec::new(), negative: Vec::new() };
        own.entry(unit.generation).or_insert_with(new);
    }
    let mut rows = 0..;
    for unit in call.iter().filter(|unit| batch[unit.generation].guided_by(unit.image).is_some()) {
        if let Some(own) = own.get_mut(&unit.generation) {
            own.negative.extend(rows.next());
        }
    }
    for unit in call {
        if let Some(own) = own.get_mut(&unit.generation) {
            let parts = own.generation.positives(unit.image).count();
            own.positive.extend(rows.by_ref().take(parts));
        }
    }
    own.into_values().collect()
}

/// Whether two generations have the same UNet.
fn is_one(a: Option<&Mutex<UNet>>, b: Option<&Mutex<UNet>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => std::ptr::eq(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// One image of one generation in the batch.
#[derive(Clone, Copy)]
struct Unit {
    generation: usize,
    image: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::diffusion::Model;
    use crate::domain::GenerationInput;
    use crate::runtime::{DeviceChoice, Runtime};

    #[test]
    fn a_call_that_is_made_again_adds_no_more_noise() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let mut pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap();
        let request = json!({
            "prompt": "a dog", "scheduler": "EULER-D", "s_churn": 3, "width": 64, "height": 64, "num_inference_steps": 4,
        });
        let input = GenerationInput::parse(&request, pipeline.model().rules()).unwrap();
        let mut draw = |fails: bool| {
            let mut generation = pipeline.begin(&input, 7).unwrap();
            let mut saved = Vec::new();
            while !generation.is_done() {
                if fails {
                    // What comes before a UNet call for which the memory does not suffice.
                    generation.scale_model_input().unwrap();
                }
                saved.push(pipeline.save(&generation));
                pipeline.step(&mut [&mut generation]).unwrap();
            }
            (generation.latents().clone(), saved)
        };
        assert!(draw(true) == draw(false));
    }
}
