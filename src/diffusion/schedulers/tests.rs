//! All schedulers with a closed-form model, `eps(x, t) = 0.3 x + 0.1 sin(t / 100)`.

mod reference;

use ndarray::{Array4, Axis};

use super::schedule::torch_linspace;
use super::*;
use crate::diffusion::noise::BatchNoise;
use crate::domain::NoiseSource;

fn model(x: &Array4<f32>, t: f32) -> Array4<f32> {
    let bias = 0.1 * (t / 100.0).sin();
    x.mapv(|x| 0.3 * x + bias)
}

/// What a run is compared by.
struct Run {
    timesteps: Vec<f32>,
    schedule: Schedule,
    latents: Array4<f32>,
}

/// `None` where an image start keeps nothing.
fn run(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    steps: usize,
    strength: Option<f64>,
    options: SchedulerOptions,
) -> Result<Option<Run>, SchedulerError> {
    let mut scheduler = build(kind, config, steps, options)?;
    let mut noise = BatchNoise::new(NoiseSource::Cpu, [42]);
    let begin = strength.map_or(0, |s| scheduler.begin_index(steps, s));
    let mut sample = noise.randn((4, 8, 8));
    match strength {
        None => sample *= scheduler.init_noise_sigma(),
        Some(_) if begin == scheduler.timesteps().len() => return Ok(None),
        Some(_) => {
            let image = torch_linspace(-1.0, 1.0, 256);
            let image = Array4::from_shape_vec((1, 4, 8, 8), image).unwrap();
            sample = scheduler.add_noise(&image, &sample, begin)?;
        }
    }
    let timesteps = scheduler.timesteps()[begin..].to_vec();
    let mut input = sample.clone();
    for (i, &t) in (begin..).zip(&timesteps) {
        scheduler.scale_model_input(&sample, i, input.view_mut())?;
        scheduler.step(&model(&input, t), i, &mut sample, &mut noise)?;
    }
    Ok(Some(Run { timesteps, schedule: scheduler.schedule, latents: sample }))
}

/// LCM has only the steps that it was distilled from.
fn most(kind: SchedulerKind) -> usize {
    if kind == SchedulerKind::Lcm { 50 } else { 500 }
}

#[test]
fn one_to_five_hundred_steps_stay_finite_and_are_repeatable() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        for steps in (1..=most(kind)).filter(|n| *n < 30 || n % 37 == 0 || *n > 498) {
            for karras in [false, kind.has_karras()] {
                let options = SchedulerOptions { karras, eta: 0.0 };
                let once = || run(kind, &config, steps, None, options).unwrap().unwrap();
                let (a, b) = (once(), once());
                assert!(a.timesteps.iter().all(|t| (0.0..1000.0).contains(t)), "{kind} {steps}");
                assert!(a.latents.iter().all(|x| x.is_finite()), "{kind} {steps}");
                assert_eq!(a.latents, b.latents, "{kind} {steps}");
            }
        }
        for steps in 1..=most(kind) {
            build(kind, &config, steps, SchedulerOptions::default()).unwrap();
        }
    }
}

#[test]
fn schedulers_can_do_what_the_table_of_names_says() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let with = |karras| build(kind, &config, 8, SchedulerOptions { karras, eta: 0.0 });
        let plain = with(false).unwrap();
        assert_eq!(plain.noising(0).is_ok(), kind.starts_from_image(), "{kind}");
        match with(true) {
            Ok(karras) => assert_ne!(karras.schedule.sigmas, plain.schedule.sigmas, "{kind}"),
            Err(error) => assert_eq!(error, SchedulerError::NoKarras(kind.as_str())),
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let together = |seeds: &[u64]| {
            let mut scheduler = build(kind, &config, 6, SchedulerOptions::default()).unwrap();
            let mut noise = BatchNoise::new(NoiseSource::Cpu, seeds.iter().copied());
            let mut sample = noise.randn((4, 8, 8));
            for i in 0..scheduler.timesteps().len() {
                let pred = model(&sample, scheduler.timesteps()[i]);
                scheduler.step(&pred, i, &mut sample, &mut noise).unwrap();
            }
            sample
        };
        let batch = together(&[3, 9]);
        for (row, seed) in batch.outer_iter().zip([3, 9]) {
            assert_eq!(row, together(&[seed]).index_axis(Axis(0), 0), "{kind}");
        }
    }
}

#[test]
fn an_invalid_key_is_named_with_its_value() {
    for (json, key, value) in [
        (r#"{"beta_schedule":"zigzag"}"#, "beta_schedule", "zigzag"),
        (r#"{"num_train_timesteps":0}"#, "num_train_timesteps", "0"),
        (r#"{"num_train_timesteps":-5}"#, "num_train_timesteps", "-5"),
        (r#"{"num_train_timesteps":1e18}"#, "num_train_timesteps", "1e+18"),
        (r#"{"num_train_timesteps":123456789}"#, "num_train_timesteps", "123456789"),
        (r#"{"beta_start":"low"}"#, "beta_start", "low"),
        (r#"{"beta_end":7}"#, "beta_end", "7"),
        (r#"{"trained_betas":[0.1,0.2]}"#, "trained_betas", "2 values"),
        (r#"{"trained_betas":[0.1,2.0],"num_train_timesteps":2}"#, "trained_betas", "2"),
        (r#"{"prediction_type":"flow_prediction"}"#, "prediction_type", "flow_prediction"),
        (r#"{"timestep_spacing":"random"}"#, "timestep_spacing", "random"),
        (r#"{"steps_offset":1000}"#, "steps_offset", "1000"),
        (r#"{"thresholding":true}"#, "thresholding", "true"),
    ] {
        let made = SchedulerConfig::from_json(json)
            .and_then(|config| build(SchedulerKind::Ddim, &config, 5, SchedulerOptions::default()).map(drop));
        let said = made.unwrap_err().to_string();
        assert!(said.contains(key) && said.contains(value), "{json}: {said}");
    }
    let nan = SchedulerConfig { beta_start: Some(f64::NAN), ..SchedulerConfig::default() };
    let wild = SchedulerConfig { sigma_min: Some(-1.0), ..SchedulerConfig::default() };
    let betas = SchedulerConfig { trained_betas: Some(vec![f32::NAN; 1000]), ..SchedulerConfig::default() };
    for kind in SchedulerKind::ALL {
        for config in [&nan, &wild, &betas] {
            let options = SchedulerOptions { karras: kind.has_karras(), eta: 0.0 };
            // Some schedulers do not read the key, but none may panic.
            if let Err(e) = build(kind, config, 5, options) {
                assert!(
                    e.to_string().contains("NaN")
                        || e.to_string().contains("sigma_min")
                        || kind == SchedulerKind::Ipndm,
                    "{e}"
                );
            }
        }
    }
    assert!(SchedulerConfig::from_json("[]").is_err());
    assert!(SchedulerConfig::from_json("").is_err());
    assert_eq!(
        SchedulerConfig::from_json(r#"{"lambda_min_clipped": -Infinity}"#).unwrap(),
        SchedulerConfig::empty()
    );
}

#[test]
fn calls_and_shapes_outside_the_schedule_are_refused() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let options = SchedulerOptions::default();
        assert!(build(kind, &config, 0, options).is_err());
        assert!(build(kind, &config, 1001, options).is_err());
        let mut scheduler = build(kind, &config, 4, options).unwrap();
        let mut noise = BatchNoise::new(NoiseSource::Cpu, [1]);
        let mut sample = noise.randn((4, 8, 8));
        let (pred, small) = (sample.clone(), Array4::zeros((1, 4, 8, 4)));
        let calls = scheduler.timesteps().len();
        assert!(scheduler.step(&pred, calls, &mut sample, &mut noise).is_err());
        assert!(scheduler.step(&small, 0, &mut sample, &mut noise).is_err());
        assert!(scheduler.add_noise(&pred, &small, 0).is_err());
        assert!(scheduler.add_noise(&pred, &pred, calls).is_err());
        assert!(scheduler.scale_model_input(&pred, calls, sample.view_mut()).is_err());
        // Calls out of order mean nothing, but must not panic.
        for i in [0, 0, 1, 1, 3, 2, 0] {
            let _ = scheduler.step(&pred, i, &mut sample, &mut noise);
        }
        assert_eq!(scheduler.begin_index(4, f64::NAN), calls);
        assert_eq!(scheduler.begin_index(4, 9.0), 0);
    }
    let karras = SchedulerOptions { karras: true, eta: 0.0 };
    assert!(build(SchedulerKind::Ddim, &config, 4, karras).is_err());
    assert!(
        build(SchedulerKind::Ddim, &config, 4, SchedulerOptions { karras: false, eta: f32::NAN }).is_err()
    );
}

#[test]
fn zero_terminal_snr_is_known_to_the_schedulers_whose_reference_knows_it() {
    use SchedulerKind as K;
    let (knows, ignores) = by_zero_snr();
    assert_eq!(knows, [K::Ddim, K::Ddpm, K::DpmM, K::EulerA, K::EulerD, K::Lcm, K::UniPc]);
    assert_eq!(knows.len() + ignores.len(), K::ALL.len());
}

/// A page of the guide as one line, whatever way its lines are broken.
fn one_line(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Such as `DDIM, PNDM and LCM`.
fn list(kinds: &[SchedulerKind]) -> String {
    let (last, others) = kinds.split_last().unwrap();
    let others: Vec<_> = others.iter().map(|kind| kind.as_str()).collect();
    format!("{} and {last}", others.join(", "))
}

#[test]
fn the_guide_lists_every_scheduler() {
    let page = one_line(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/input.md")));
    let sentence = format!("## Schedulers {}.", list(&SchedulerKind::ALL));
    assert!(page.contains(&sentence), "docs/input.md should say: {sentence}");
}

#[test]
fn the_guide_says_which_schedulers_need_fractional_timesteps() {
    let page = one_line(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.md")));
    let (whole, fractional) = by_whole_timesteps(&SchedulerConfig::default());
    let sentence = format!(
        "A UNet that accepts only whole timesteps draws exactly with {}. {} need fractions, which such a UNet cuts off.",
        list(&whole),
        list(&fractional)
    );
    assert!(page.contains(&sentence), "docs/models.md should say: {sentence}");
}
