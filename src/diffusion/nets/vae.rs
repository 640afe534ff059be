//! The VAE: latents to pixels, and pixels to the distribution of their latents.
//!
//! Pixels are `[n, 3, height, width]` of about -1..1; latents are scaled as the UNet reads them. Large pictures are
//! processed in tiles, so that they need no more memory than a tile (`tiling.rs`).

mod tiling;

use std::time::Duration;

use ndarray::{Array4, Axis, s};

use self::tiling::Tiling;
pub use self::tiling::pixels_per_call;
use super::ModelError;
use super::port::Port;
use super::session::{PartSession, ranked, tensor};
use crate::diffusion::files::VaeConfig;
use crate::diffusion::noise::BatchNoise;
use crate::domain::ModelPart;

pub struct VaeDecoder {
    session: PartSession,
    latent_sample: Port,
    sample: Port,
    scaling_factor: f32,
    tiling: Tiling,
}

impl VaeDecoder {
    /// A tiny decoder, in a model with this VAE: it reads latents as the UNet has them.
    pub fn tiny(session: PartSession, config: &VaeConfig) -> Result<Self, ModelError> {
        Ok(Self { scaling_factor: 1.0, ..Self::new(session, config)? })
    }

    pub fn new(session: PartSession, config: &VaeConfig) -> Result<Self, ModelError> {
        let latent_sample = session.input("latents", |port| port.rank() == 4)?;
        session.only(&[&latent_sample])?;
        if let (Some(height), Some(width)) = (latent_sample.fixed(2), latent_sample.fixed(3)) {
            return Err(session.refuse(format!(
                "it was exported for latents of {width}×{height} only; export it with dynamic axes"
            )));
        }
        let sample = session.output("picture", 4)?;
        let tiling = Tiling::new(config.scale_factor());
        Ok(Self { session, latent_sample, sample, scaling_factor: config.scaling_factor(), tiling })
    }

    /// Pixels from latents.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<Array4<f32>, ModelError> {
        let unscaled = latents / self.scaling_factor;
        let tiling = self.tiling;
        tiling.enlarging(&unscaled, |tile| {
            let inputs = vec![(self.latent_sample.name.as_str(), tensor(&self.latent_sample, tile)?)];
            ranked(ModelPart::VaeDecoder, self.session.run(inputs, &self.sample)?)
        })
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run()
    }
}

pub struct VaeEncoder {
    session: PartSession,
    sample: Port,
    latents: Port,
    latent_channels: u32,
    scaling_factor: f32,
    tiling: Tiling,
}

impl VaeEncoder {
    pub fn new(session: PartSession, config: &VaeConfig) -> Result<Self, ModelError> {
        let sample = session.input("picture", |port| port.rank() == 4)?;
        let latents = session.output("latents", 4)?;
        session.only(&[&sample])?;
        if let (Some(height), Some(width)) = (sample.fixed(2), sample.fixed(3)) {
            return Err(session.refuse(format!(
                "it was exported for pictures of {width}×{height} only; export it with dynamic axes"
            )));
        }
        Ok(Self {
            session,
            sample,
            latents,
            latent_channels: config.latent_channels(),
            scaling_factor: config.scaling_factor(),
            tiling: Tiling::new(config.scale_factor()),
        })
    }

    /// Whether the graph draws its own random numbers and returns latents.
    pub fn draws_by_itself(&self) -> bool {
        self.latents.fixed(1) == Some(self.latent_channels.into())
    }

    /// The distribution of latents for `pixels`.
    pub fn encode(&mut self, pixels: &Array4<f32>) -> Result<Posterior, ModelError> {
        let tiling = self.tiling;
        let encoded: Array4<f32> = tiling.shrinking(pixels, |tile| {
            let inputs = vec![(self.sample.name.as_str(), tensor(&self.sample, tile)?)];
            ranked(ModelPart::VaeEncoder, self.session.run(inputs, &self.latents)?)
        })?;
        Posterior::new(encoded, self.latent_channels as usize, self.scaling_factor)
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run()
    }
}

/// The distribution of a picture's latents (diffusers' `DiagonalGaussianDistribution`).
pub struct Posterior {
    mean: Array4<f32>,
    /// `None` if the graph has drawn the latents itself.
    std: Option<Array4<f32>>,
    scaling_factor: f32,
}

impl Posterior {
    /// Reads an encoder's output: means and log-variances, or latents that the graph drew from them.
    fn new(encoded: Array4<f32>, channels: usize, scaling_factor: f32) -> Result<Self, ModelError> {
        let found = encoded.dim().1;
        if found == channels {
            return Ok(Self { mean: encoded, std: None, scaling_factor });
        }
        if found != 2 * channels {
            return Err(ModelError::Run {
                part: ModelPart::VaeEncoder,
                reason: format!("it returned {found} channels instead of {channels} or twice as many"),
            });
        }
        let (mean, logvar) = encoded.view().split_at(Axis(1), channels);
        let std = logvar.mapv(|logvar| (0.5 * logvar.clamp(-30.0, 20.0)).exp());
        Ok(Self { mean: mean.to_owned(), std: Some(std), scaling_factor })
    }

    /// Whether all values are finite numbers.
    pub fn is_finite(&self) -> bool {
        self.mean.iter().chain(self.std.iter().flatten()).all(|value| value.is_finite())
    }

    /// The likeliest latents `[1, channels, h, w]`, not scaled: what InstructPix2Pix sees of its picture.
    pub fn mode(self) -> Array4<f32> {
        self.mean
    }

    /// The likeliest latents `[1, channels, h, w]`, scaled for the UNet.
    pub fn likeliest(self) -> Array4<f32> {
        self.mean * self.scaling_factor
    }

    /// Latents `[images, channels, h, w]` for the UNet. Each image draws its own, as in diffusers with a list of
    /// generators.
    pub fn sample(&self, noise: &mut BatchNoise) -> Array4<f32> {
        let (_, channels, height, width) = self.mean.dim();
        let images = noise.len();
        let mut latents = match &self.std {
            None => Array4::zeros((images, channels, height, width)),
            Some(std) => noise.randn((channels, height, width)) * std.slice(s![0..1, .., .., ..]),
        };
        latents += &self.mean.slice(s![0..1, .., .., ..]);
        latents * self.scaling_factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::files::ModelFiles;
    use crate::diffusion::noise::TorchGenerator;
    use crate::domain::NoiseSource;
    use crate::runtime::{DeviceChoice, Runtime};

    fn noise(seeds: impl IntoIterator<Item = u64>) -> BatchNoise {
        BatchNoise::new(NoiseSource::Cpu, seeds)
    }

    #[test]
    fn latents_are_drawn_from_moments_and_used_as_they_are_otherwise() {
        let encoded = Array4::from_shape_fn((1, 8, 2, 2), |(_, c, _, _)| if c < 4 { 3.0 } else { 100.0 });
        let posterior = Posterior::new(encoded, 4, 0.5).unwrap();
        let drawn = posterior.sample(&mut noise([7, 8]));
        assert_eq!(drawn.dim(), (2, 4, 2, 2));
        let expected = (3.0 + 10.0_f32.exp() * TorchGenerator::new(8).randn(16)[0]) * 0.5;
        assert!((drawn[[1, 0, 0, 0]] - expected).abs() < 1e-3 * expected.abs());

        let mut untouched = noise([7]);
        let posterior = Posterior::new(Array4::from_elem((1, 4, 2, 2), 3.0), 4, 0.5).unwrap();
        assert!(posterior.sample(&mut untouched).iter().all(|&value| (value - 1.5).abs() < 1e-6));
        assert_eq!(untouched.randn((1, 1, 4)), noise([7]).randn((1, 1, 4)), "nothing was drawn");

        assert!(Posterior::new(Array4::zeros((1, 3, 2, 2)), 4, 0.5).is_err());
    }

    /// The step from the line before `edge` to the line at `edge` that is in `tiled` but not in `whole`, as a mean along
    /// the line, in 255ths.
    fn seam(tiled: &Array4<f32>, whole: &Array4<f32>, axis: Axis, edge: usize) -> f32 {
        let difference = (tiled - whole) * 127.5;
        let line = |at: usize| difference.index_axis(axis, at);
        (&line(edge) - &line(edge - 1)).mapv(f32::abs).mean().unwrap()
    }

    #[test]
    fn a_large_picture_has_no_seams() {
        let (files, _) = ModelFiles::open(None).unwrap();
        let config = &files.configs.vae;
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let session = |part| PartSession::load(files.part(part).unwrap(), &runtime).unwrap();
        let mut encoder = VaeEncoder::new(session(ModelPart::VaeEncoder), config).unwrap();
        let mut decoder = VaeDecoder::new(session(ModelPart::VaeDecoder), config).unwrap();
        // A disc on a slope, of three tiles by two.
        let pixels = Array4::from_shape_fn((1, 3, 768, 1024), |(_, channel, y, x)| {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let (x, y) = (x as f32 / 1024.0, y as f32 / 768.0);
            let in_disc = (x - 0.5).powi(2) + (y - 0.5).powi(2) < 0.1;
            if in_disc { [0.8, -0.7, -0.7][channel] } else { [2.0 * x - 1.0, 2.0 * y - 1.0, 0.5][channel] }
        });
        let one_call = encoder.tiling.off();

        let tiled = encoder.encode(&pixels).unwrap().mean;
        encoder.tiling = one_call;
        let whole = encoder.encode(&pixels).unwrap().mean;
        // A tile normalises by what it sees, and this picture has no two alike: 7 % is what was measured.
        let (difference, size) = ((&tiled - &whole).mapv(f32::abs).sum(), whole.mapv(f32::abs).sum());
        assert!(difference < 0.1 * size, "{difference} of {size}");

        let latents = whole * config.scaling_factor();
        let tiled = decoder.decode(&latents).unwrap();
        decoder.tiling = one_call;
        let whole = decoder.decode(&latents).unwrap();
        // Where a tile begins or ends.
        for (axis, edge) in [(2, 256), (2, 512), (3, 256), (3, 512), (3, 768)] {
            let seam = seam(&tiled, &whole, Axis(axis), edge);
            assert!(seam < 0.5, "{seam} at {edge} of axis {axis}");
        }
    }
}
