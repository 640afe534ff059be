//! Random numbers: the noise that `torch.randn` draws for a seed, with one generator an image.
//!
//! A seed gives the reference's picture only if it gives the reference's noise, so the generators follow torch.
//! `torch_cpu.rs` is torch's generator on the CPU, `philox.rs` the one on CUDA. `brownian.rs` is torchsde's Brownian motion,
//! whose seeds `seed_sequence.rs` makes as numpy does. Nothing here knows schedulers or models.

mod brownian;
mod philox;
mod seed_sequence;
mod torch_cpu;
mod variation;

use ndarray::Array4;

pub use brownian::BrownianNoise;
pub use torch_cpu::TorchGenerator;
pub use variation::NoiseVariation;

use self::philox::PhiloxGenerator;
use super::bytes::{ByteReader, ByteWriter};
use crate::domain::NoiseSource;

/// One image's generator.
#[derive(Debug, Clone)]
enum Generator {
    Cpu(TorchGenerator),
    Cuda(PhiloxGenerator),
}

impl Generator {
    fn new(source: NoiseSource, seed: u64) -> Self {
        match source {
            NoiseSource::Cpu => Self::Cpu(TorchGenerator::new(seed)),
            NoiseSource::Cuda => Self::Cuda(PhiloxGenerator::new(seed)),
        }
    }

    fn fill(&mut self, out: &mut [f32]) {
        match self {
            Self::Cpu(generator) => generator.fill(out),
            Self::Cuda(generator) => generator.fill(out),
        }
    }

    fn save(&self, out: &mut ByteWriter) {
        match self {
            Self::Cpu(generator) => generator.save(out),
            Self::Cuda(generator) => generator.save(out),
        }
    }

    fn read(source: NoiseSource, saved: &mut ByteReader) -> Option<Self> {
        Some(match source {
            NoiseSource::Cpu => Self::Cpu(TorchGenerator::read(saved)?),
            NoiseSource::Cuda => Self::Cuda(PhiloxGenerator::read(saved)?),
        })
    }
}

/// The noise of a batch, as diffusers' `randn_tensor` draws it from a list of generators.
///
/// Each image has its own generator, so it does not depend on its neighbours.
#[derive(Debug, Clone)]
pub struct BatchNoise {
    generators: Vec<Generator>,
    source: NoiseSource,
    seeds: Vec<u64>,
    /// What changes the first noise.
    variation: Option<NoiseVariation>,
}

impl BatchNoise {
    pub fn new(source: NoiseSource, seeds: impl IntoIterator<Item = u64>) -> Self {
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let generators = seeds.iter().map(|&seed| Generator::new(source, seed)).collect();
        Self { generators, source, seeds, variation: None }
    }

    /// For `images` images. Image `i` has the seed `seed + i`, wrapping.
    pub fn consecutive(source: NoiseSource, seed: u64, images: usize) -> Self {
        Self::new(source, (0..images as u64).map(|i| seed.wrapping_add(i)))
    }

    /// Writes how far its generators are, once [`Self::first`] was called.
    pub fn save(&self, out: &mut ByteWriter) {
        self.generators.iter().for_each(|generator| generator.save(out));
    }

    /// The same noise, as far as it was when it was saved.
    pub fn resumed(&self, saved: &mut ByteReader) -> Option<Self> {
        let generators = self.seeds.iter().map(|_| Generator::read(self.source, saved));
        let generators = generators.collect::<Option<_>>()?;
        Some(Self { generators, source: self.source, seeds: self.seeds.clone(), variation: None })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.generators.len()
    }

    pub fn is_empty(&self) -> bool {
        self.generators.is_empty()
    }

    /// A Brownian motion of shape `[images, c, h, w]` between two times, one for each image by its seed. What has been drawn
    /// before does not change it.
    pub fn brownian(&self, shape: (usize, usize, usize), between: (f32, f32)) -> BrownianNoise {
        BrownianNoise::new(self.source, &self.seeds, shape, between)
    }

    /// Changes the noise that [`Self::first`] draws.
    pub fn vary(&mut self, variation: NoiseVariation) {
        self.variation = Some(variation);
    }

    /// The noise that a generation begins with: [`Self::randn`], changed by a variation if there is one.
    pub fn first(&mut self, shape: (usize, usize, usize)) -> Array4<f32> {
        let mut noise = self.randn(shape);
        if let Some(variation) = self.variation.take() {
            variation.apply(self.source, &self.seeds, &mut noise);
        }
        noise
    }

    /// Standard normals of shape `[images, c, h, w]`. Each image is one draw of `(1, c, h, w)`.
    pub fn randn(&mut self, (c, h, w): (usize, usize, usize)) -> Array4<f32> {
        let row = c * h * w;
        let mut out = Array4::zeros((self.generators.len(), c, h, w));
        if row > 0
            && let Some(values) = out.as_slice_mut()
        {
            for (generator, values) in self.generators.iter_mut().zip(values.chunks_exact_mut(row)) {
                generator.fill(values);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_of_a_batch_is_drawn_from_its_own_seed() {
        for source in NoiseSource::ALL {
            let mut batch = BatchNoise::consecutive(source, u64::MAX, 2);
            let drawn = batch.randn((4, 2, 3));
            assert_eq!(drawn.dim(), (2, 4, 2, 3));
            for (row, seed) in drawn.outer_iter().zip([u64::MAX, 0]) {
                let mut alone = [0.0; 24];
                Generator::new(source, seed).fill(&mut alone);
                assert_eq!(row.iter().copied().collect::<Vec<_>>(), alone);
            }
        }
    }

    #[test]
    fn an_empty_draw_is_empty() {
        assert_eq!(BatchNoise::new(NoiseSource::Cpu, [1]).randn((0, 8, 8)).len(), 0);
    }
}
