//! A run that is saved after any call goes on in a fresh scheduler, with fresh generators, to the same bits.

use super::*;
use crate::diffusion::bytes::{ByteReader, ByteWriter};
use crate::domain::NoiseSource;

const SHAPE: (usize, usize, usize) = (4, 4, 5);
const SEEDS: [u64; 2] = [42, 7];

/// A run on its way.
struct Way {
    scheduler: Scheduler,
    noise: BatchNoise,
    sample: Array4<f32>,
    call: usize,
}

impl Way {
    /// `strength`: from a picture.
    fn begin(kind: SchedulerKind, sampling: Sampling, source: NoiseSource, strength: Option<f64>) -> Self {
        let scheduler = build(kind, &SchedulerConfig::default(), 9, sampling).unwrap();
        let mut noise = BatchNoise::new(source, SEEDS);
        let first = noise.first(SHAPE);
        let call = strength.map_or(0, |strength| scheduler.begin_index(9, strength));
        let sample = match strength {
            None => first * scheduler.init_noise_sigma(),
            Some(_) => scheduler.add_noise(&Array4::from_elem(first.dim(), 0.5), &first, call).unwrap(),
        };
        Self { scheduler, noise, sample, call }
    }

    fn has_calls(&self) -> bool {
        self.call < self.scheduler.timesteps().len()
    }

    fn step(&mut self) {
        let Self { scheduler, noise, sample, call } = self;
        scheduler.prepare(*call, sample, noise).unwrap();
        let mut input = sample.clone();
        scheduler.scale_model_input(sample, *call, input.view_mut()).unwrap();
        let pred = model(&input, scheduler.timesteps()[*call]);
        scheduler.step(&pred, *call, sample, noise).unwrap();
        *call += 1;
    }

    fn save(&self) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.array(&self.sample);
        self.noise.save(&mut out);
        self.scheduler.state().save(&mut out);
        out.into_bytes()
    }

    /// A run that has just begun goes on where another was saved before call `call`.
    fn resume(&mut self, call: usize, saved: &[u8]) {
        let mut saved = ByteReader::new(saved);
        self.sample = saved.array().unwrap();
        self.noise = self.noise.resumed(&mut saved).unwrap();
        let state = SchedulerState::read(&mut saved, self.sample.shape()).unwrap();
        self.scheduler.resume(state);
        self.call = call;
        assert!(saved.is_empty());
    }
}

fn bits(latents: &Array4<f32>) -> Vec<u32> {
    latents.iter().map(|value| value.to_bits()).collect()
}

/// Saves after every call, and goes on from each place.
fn assert_resumes(kind: SchedulerKind, sampling: Sampling, source: NoiseSource, strength: Option<f64>) {
    let begin = || Way::begin(kind, sampling, source, strength);
    let mut way = begin();
    let mut saved = Vec::new();
    while way.has_calls() {
        way.step();
        saved.push((way.call, way.save()));
    }
    for (call, saved) in saved {
        let mut resumed = begin();
        resumed.resume(call, &saved);
        while resumed.has_calls() {
            resumed.step();
        }
        assert!(
            bits(&resumed.sample) == bits(&way.sample),
            "{kind} {source:?} {sampling:?} {strength:?} after call {call}"
        );
    }
}

#[test]
fn every_scheduler_goes_on_to_the_same_bits_after_any_call() {
    for kind in SchedulerKind::ALL {
        for source in NoiseSource::ALL {
            assert_resumes(kind, Sampling::default(), source, None);
            if kind.starts_from_image() {
                assert_resumes(kind, Sampling::default(), source, Some(0.7));
            }
        }
    }
}

#[test]
fn every_spacing_goes_on_to_the_same_bits() {
    for kind in SchedulerKind::ALL {
        for spacing in Spacing::ALL.into_iter().filter(|spacing| kind.takes(*spacing)) {
            assert_resumes(kind, spaced(spacing), NoiseSource::Cpu, None);
        }
    }
}

#[test]
fn churn_and_chosen_shares_of_noise_go_on_to_the_same_bits() {
    for kind in SchedulerKind::ALL {
        let churn = Sampling { s_churn: Some(2.0), s_noise: Some(1.01), ..Sampling::default() };
        assert_resumes(kind, churn, NoiseSource::Cpu, None);
        if kind.has_option("eta") {
            let eta = Sampling { eta: Some(0.4), ..Sampling::default() };
            assert_resumes(kind, eta, NoiseSource::Cuda, None);
        }
    }
}

/// PNDM with its Runge-Kutta start, and multistep solvers of third order.
#[test]
fn what_a_model_asks_of_its_scheduler_goes_on_to_the_same_bits() {
    let third = r#"{"solver_order": 3}"#;
    let sde = r#"{"algorithm_type": "sde-dpmsolver++"}"#;
    for (kind, json) in [
        (SchedulerKind::Pndm, r#"{"skip_prk_steps": false}"#),
        (SchedulerKind::DpmM, third),
        (SchedulerKind::DpmM, sde),
        (SchedulerKind::DpmS, third),
        (SchedulerKind::Deis, third),
        (SchedulerKind::UniPc, third),
    ] {
        let config = SchedulerConfig::from_json(json).unwrap();
        let begin = || {
            let scheduler = build(kind, &config, 9, Sampling::default()).unwrap();
            let mut noise = BatchNoise::new(NoiseSource::Cpu, SEEDS);
            let sample = noise.first(SHAPE);
            Way { scheduler, noise, sample, call: 0 }
        };
        let mut whole = begin();
        while whole.has_calls() {
            whole.step();
        }
        for cut in 1..whole.call {
            let (mut first, mut second) = (begin(), begin());
            (0..cut).for_each(|_| first.step());
            second.resume(cut, &first.save());
            while second.has_calls() {
                second.step();
            }
            assert!(bits(&second.sample) == bits(&whole.sample), "{kind} {json} after call {cut}");
        }
    }
}

#[test]
fn a_state_of_other_latents_or_of_too_many_answers_is_refused() {
    let mut way = Way::begin(SchedulerKind::UniPc, Sampling::default(), NoiseSource::Cpu, None);
    (0..3).for_each(|_| way.step());
    let mut out = ByteWriter::default();
    way.scheduler.state().save(&mut out);
    let saved = out.into_bytes();
    let read = |bytes: &[u8], shape: &[usize]| SchedulerState::read(&mut ByteReader::new(bytes), shape);
    let shape = way.sample.shape();
    assert_eq!(read(&saved, shape).as_ref(), Some(way.scheduler.state()));
    assert_eq!(read(&saved, &[2, 4, 5, 4]), None);
    for end in 0..saved.len() {
        assert_eq!(read(&saved[..end], shape), None, "{end}");
    }
    for count in [u64::MAX, 9, 1 << 40] {
        let mut many = saved.clone();
        many[8..16].copy_from_slice(&count.to_le_bytes());
        assert_eq!(read(&many, shape), None, "{count}");
    }
}
