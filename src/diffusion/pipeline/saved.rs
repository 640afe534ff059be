//! A generation's place on its way, as bytes: what another process needs to go on to the same pictures.
//!
//! The bytes hold what changes from call to call: the pass, the number of the next call, the latents, the noise
//! generators, and what the sampler remembers. All else (prompts, pictures, schedule) is begun again from the request. An
//! identity says of what all of it is; with another model, request, picture or LoRA, it is of no use. A checksum shows
//! damage. (It is not called a checkpoint: that is a file of a model here.)

use ndarray::Array4;
use sha2::{Digest, Sha256};

use super::control::Control;
use super::deep_features::Depth;
use super::{DiffusionError, Generation, Pipeline};
use crate::diffusion::bytes::{ByteReader, ByteWriter};
use crate::diffusion::noise::BatchNoise;
use crate::diffusion::schedulers::SchedulerState;
use crate::domain::{GenerationInput, ImageSource, Vae};

/// Raise it with every change after which a job that an earlier program began would not end in the same bytes: of this
/// layout, of a sampler, of noise. Programs whose versions differ in the first two numbers never go on with each other's
/// jobs.
const FORMAT: u32 = 1;
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
const HASH: usize = 32;
type Hash = [u8; HASH];

/// What the pictures of a request were, which are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PictureHash(Hash);

impl PictureHash {
    pub fn new(input: &GenerationInput) -> Self {
        let mut hash = Sha256::new();
        let shown = input.controlnets.iter().map(|unit| &unit.image);
        for picture in input.init_image.iter().chain(&input.mask).chain(shown) {
            if let ImageSource::Bytes(bytes) = picture {
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
        Self(hash.finalize().into())
    }
}

/// A generation's place on its way.
struct Place {
    call: usize,
    latents: Array4<f32>,
    noise: BatchNoise,
    state: SchedulerState,
    /// Of the first pass: the pictures that are enlarged for the second one.
    enlarged: Vec<Array4<f32>>,
}

impl Pipeline {
    /// What [`Self::resume`] goes on with from here, or from the last call of the whole UNet where the next call is not one.
    /// None where there is nothing to go on with: no call was made, or none is left.
    pub fn save(&self, generation: &Generation) -> Option<Vec<u8>> {
        let is_new = generation.first.is_none() && generation.place().0 == 0;
        // A picture that may be withheld is not stored in any form.
        let is_checked = self.checking.is_some() && !generation.input.nsfw;
        if is_new || is_checked || generation.is_done() {
            return None;
        }
        let mut out = ByteWriter::default();
        out.u8(generation.first.is_some().into());
        out.raw(&self.identity(generation, generation.request()));
        match generation.is_drawing() && generation.depth() == Depth::Outer {
            true => out.raw(generation.deep.place.as_ref()?),
            false => out.raw(&generation.place_bytes()),
        }
        let enlarged = generation.next.as_ref().map_or(&[][..], |next| next.enlarged());
        out.count(enlarged.len());
        for latents in enlarged {
            out.array(latents);
        }
        Some(sealed(&out.into_bytes()))
    }

    /// Brings a generation that has just begun to where `saved` left off. False if that is damaged or of something else; the
    /// generation then begins with its first step.
    pub fn resume(&mut self, generation: &mut Generation, saved: &[u8]) -> Result<bool, DiffusionError> {
        let Some(mut saved) = opened(saved) else { return Ok(false) };
        let Some(is_second) = saved.u8().map(|pass| pass != 0) else { return Ok(false) };
        if !is_second {
            let identity = self.identity(generation, generation.request());
            let Some(place) = Place::read(&mut saved, generation, &identity) else { return Ok(false) };
            generation.resume(place);
            return Ok(true);
        }
        let Some(mut second) = self.begin_second_empty(generation)? else { return Ok(false) };
        let identity = self.identity(&second, generation.request());
        let Some(place) = Place::read(&mut saved, &second, &identity) else { return Ok(false) };
        second.resume(place);
        generation.become_second(second);
        Ok(true)
    }

    /// What the pictures of a pass depend on. `request` is that of all passes.
    fn identity(&self, pass: &Generation, request: &GenerationInput) -> Hash {
        let adapted = pass.adapted.as_ref();
        let controlnets: Vec<_> = pass.controls.iter().map(Control::key).collect();
        let device = self.device.label();
        // Of pictures, Debug shows the length alone.
        // On a CPU, the last bits depend on how it computes.
        let means = self.means().unwrap_or_default();
        let stamp = self.model.files.stamp();
        let of_files = format!("{VERSION} {} {device} {means} {stamp:?}", ort::info());
        let of_scheduler = format!("{:?} {:?}", self.model.description.scheduler, pass.scheduler.timesteps());
        let of_request = format!("{} {request:?} {:?} {:?}", pass.seed, pass.input, pass.drawn);
        let upscaler = pass.next.as_ref().and_then(|next| self.upscalers.stamp(next.upscaler()));
        let of_add_ons =
            format!("{:?} {controlnets:?} {upscaler:?}", adapted.map(|adapted| adapted.hashes()));
        // Between two passes, it has decoded some of the pictures.
        let tiny = self.tiny.stamp().filter(|_| request.vae == Vae::Tiny);
        let of_tiny = tiny.map(|file| format!("{file:?}")).unwrap_or_default();
        let mut out = ByteWriter::default();
        for text in [of_files, of_scheduler, of_request, of_add_ons, of_tiny] {
            out.count(text.len());
            out.raw(text.as_bytes());
        }
        out.raw(&pass.pictures.0);
        out.raw(pass.prompts.hash());
        Sha256::digest(out.into_bytes()).into()
    }
}

impl Generation {
    /// What changes from call to call.
    pub(super) fn place_bytes(&self) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.count(self.call);
        out.array(&self.latents);
        self.noise.save(&mut out);
        self.scheduler.state().save(&mut out);
        out.into_bytes()
    }

    fn resume(&mut self, place: Place) {
        let Place { call, latents, noise, state, enlarged } = place;
        (self.call, self.seen_since) = (call, call);
        self.latents = latents;
        self.noise = noise;
        self.scheduler.resume(state);
        let images = self.images();
        if let Some(next) = &mut self.next {
            next.resume(enlarged, images);
        }
    }
}

impl Place {
    /// A place on the way of `pass`, which is of the same as what was saved if its identity is the same.
    fn read(saved: &mut ByteReader, pass: &Generation, identity: &Hash) -> Option<Self> {
        if saved.raw(HASH)? != identity {
            return None;
        }
        let (begin, calls) = (pass.call, pass.scheduler.timesteps().len());
        let call = saved.count().filter(|call| (begin..=calls).contains(call))?;
        let shape = pass.latents.shape();
        let latents = saved.array().filter(|latents| latents.shape() == shape)?;
        let noise = pass.noise.resumed(saved)?;
        let state = SchedulerState::read(saved, shape)?;
        let enlarged = saved.count().filter(|enlarged| *enlarged <= pass.images())?;
        let enlarged = (0..enlarged).map(|_| saved.array()).collect::<Option<Vec<_>>>()?;
        let shapes =
            enlarged.iter().all(|latents| latents.dim().0 == 1 && latents.dim() == enlarged[0].dim());
        (shapes && saved.is_empty()).then_some(Self { call, latents, noise, state, enlarged })
    }
}

/// With the format's number and a checksum before it.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut out = ByteWriter::default();
    out.u32(FORMAT);
    out.raw(&Sha256::digest(content));
    out.raw(content);
    out.into_bytes()
}

/// The content, if it is of this format and whole.
fn opened(saved: &[u8]) -> Option<ByteReader<'_>> {
    let mut reader = ByteReader::new(saved);
    let is_ours = reader.u32()? == FORMAT;
    let sum = reader.raw(HASH)?;
    let content = reader.rest();
    (is_ours && Sha256::digest(content)[..] == *sum).then_some(ByteReader::new(content))
}
