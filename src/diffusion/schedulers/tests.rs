//! All schedulers with a closed-form model, `eps(x, t) = 0.3 x + 0.1 sin(t / 100)`.

mod k_diffusion;
mod reference;
mod resumed;

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
    sampling: Sampling,
) -> Result<Option<Run>, SchedulerError> {
    let mut scheduler = build(kind, config, steps, sampling)?;
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
        scheduler.prepare(i, &mut sample, &mut noise)?;
        scheduler.scale_model_input(&sample, i, input.view_mut())?;
        scheduler.step(&model(&input, t), i, &mut sample, &mut noise)?;
    }
    Ok(Some(Run { timesteps, schedule: scheduler.schedule, latents: sample }))
}

/// Distilled models have only the steps that they were distilled from.
fn most(kind: SchedulerKind) -> usize {
    if matches!(kind, SchedulerKind::Lcm | SchedulerKind::Tcd) { 50 } else { 500 }
}

fn spaced(spacing: Spacing) -> Sampling {
    Sampling { spacing: Some(spacing), ..Sampling::default() }
}

#[test]
fn one_to_five_hundred_steps_stay_finite_and_are_repeatable() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        // Brownian motion costs as much as the rest of the test.
        let few = matches!(
            kind,
            SchedulerKind::DpmSde
                | SchedulerKind::DpmMSde
                | SchedulerKind::DpmMSdeHeun
                | SchedulerKind::Dpm3MSde
        );
        let is_drawn =
            |n: &usize| if few { *n < 9 || *n == 100 } else { *n < 30 || n.is_multiple_of(37) || *n > 498 };
        for steps in (1..=most(kind)).filter(is_drawn) {
            for spacing in [None, Some(Spacing::Karras).filter(|karras| kind.takes(*karras))] {
                let sampling = Sampling { spacing, ..Sampling::default() };
                let once = || run(kind, &config, steps, None, sampling).unwrap().unwrap();
                let (a, b) = (once(), once());
                assert!(a.timesteps.iter().all(|t| (0.0..1000.0).contains(t)), "{kind} {steps}");
                assert!(a.latents.iter().all(|x| x.is_finite()), "{kind} {steps}");
                assert_eq!(a.latents, b.latents, "{kind} {steps}");
            }
        }
        for steps in 1..=most(kind) {
            build(kind, &config, steps, Sampling::default()).unwrap();
        }
    }
}

#[test]
fn schedulers_can_do_what_the_table_of_names_says() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let plain = build(kind, &config, 8, Sampling::default()).unwrap();
        assert_eq!(plain.noising(0).is_ok(), kind.starts_from_image(), "{kind}");
        for spacing in Spacing::ALL {
            match build(kind, &config, 8, spaced(spacing)) {
                Ok(_) => assert!(kind.takes(spacing), "{kind} {spacing}"),
                Err(error) => {
                    assert!(!kind.takes(spacing), "{kind} {spacing}");
                    assert!(error.to_string().starts_with(kind.as_str()), "{error}");
                }
            }
        }
    }
}

#[test]
fn every_spacing_of_every_step_count_falls_and_stays_finite() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        for spacing in Spacing::ALL.into_iter().filter(|spacing| kind.takes(*spacing)) {
            for steps in [1, 2, 3, 11, 333, 500] {
                let built = build(kind, &config, steps, spaced(spacing)).unwrap();
                let what = format!("{kind} {spacing} {steps}");
                assert!(built.timesteps().iter().all(|t| (0.0..1000.0).contains(t)), "{what}");
                assert!(built.schedule.sigmas.windows(2).all(|pair| pair[0] >= pair[1]), "{what}");
                // PNDM calls once more, and the original DDIM's steps may be more than were asked.
                let made = built.timesteps().len().div_ceil(built.schedule.calls_per_step);
                let more = if spacing == Spacing::DdimUniform { steps / 2 + 1 } else { 1 };
                assert!((steps..=steps + more).contains(&made), "{what}: {made}");
                if steps < 12 {
                    let run = run(kind, &config, steps, None, spaced(spacing)).unwrap().unwrap();
                    assert!(run.latents.iter().all(|x| x.is_finite()), "{what}");
                }
            }
        }
    }
}

/// What a sampler's numbers change, they change; what they leave alone keeps its bytes.
#[test]
fn numbers_change_the_samplers_that_have_them_and_no_others() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let latents = |sampling| run(kind, &config, 6, None, sampling).unwrap().unwrap().latents;
        let plain = latents(Sampling::default());
        let (eta, noise) = (Sampling { eta: Some(0.5), ..Sampling::default() }, Some(1.1));
        assert_eq!(latents(eta) != plain, kind.has_option("eta"), "{kind}");
        let churn = Sampling { s_churn: Some(2.0), ..Sampling::default() };
        assert_eq!(latents(churn) != plain, kind.has_option("s_churn"), "{kind}");
        let louder = Sampling { s_noise: noise, ..churn };
        assert_eq!(latents(louder) != latents(churn), kind.has_option("s_noise"), "{kind}");
        let nowhere = Sampling { s_tmin: Some(5.0), s_tmax: Some(4.0), ..churn };
        assert_eq!(latents(nowhere), plain, "{kind}");
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let config = SchedulerConfig::default();
    for kind in SchedulerKind::ALL {
        let together = |seeds: &[u64]| {
            let mut scheduler = build(kind, &config, 6, Sampling::default()).unwrap();
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
            .and_then(|config| build(SchedulerKind::Ddim, &config, 5, Sampling::default()).map(drop));
        let said = made.unwrap_err().to_string();
        assert!(said.contains(key) && said.contains(value), "{json}: {said}");
    }
    let nan = SchedulerConfig { beta_start: Some(f64::NAN), ..SchedulerConfig::default() };
    let wild = SchedulerConfig { sigma_min: Some(-1.0), ..SchedulerConfig::default() };
    let betas = SchedulerConfig { trained_betas: Some(vec![f32::NAN; 1000]), ..SchedulerConfig::default() };
    for kind in SchedulerKind::ALL {
        for config in [&nan, &wild, &betas] {
            let karras = Some(Spacing::Karras).filter(|karras| kind.takes(*karras));
            // Some schedulers do not read the key, but none may panic.
            if let Err(e) = build(kind, config, 5, Sampling { spacing: karras, ..Sampling::default() }) {
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
        let options = Sampling::default();
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
    assert!(build(SchedulerKind::Ddim, &config, 4, spaced(Spacing::Karras)).is_err());
    for kind in SchedulerKind::ALL.into_iter().filter(|kind| kind.has_option("eta")) {
        for eta in [f32::NAN, -0.1, 1.1] {
            assert!(build(kind, &config, 4, Sampling { eta: Some(eta), ..Sampling::default() }).is_err());
        }
    }
}

#[test]
fn zero_terminal_snr_is_known_to_the_schedulers_whose_reference_knows_it() {
    use SchedulerKind as K;
    let (knows, ignores) = by_zero_snr();
    let of_diffusers = [K::Ddim, K::Ddpm, K::DpmM, K::EulerA, K::EulerD, K::Lcm, K::Tcd, K::UniPc];
    let of_k_diffusion = [K::Dpm2SA, K::Dpm3MSde, K::DpmMSde, K::DpmMSdeHeun, K::DpmSde];
    assert!(
        knows.iter().all(|kind| of_diffusers.contains(kind) || of_k_diffusion.contains(kind)),
        "{knows:?}"
    );
    assert_eq!(knows.len(), of_diffusers.len() + of_k_diffusion.len());
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
fn a_file_says_how_sigmas_are_spaced() {
    let built = |kind, json: &str, sampling| {
        build(kind, &SchedulerConfig::from_json(json).unwrap(), 8, sampling).map(|built| built.schedule)
    };
    let (euler, dpm_m) = (SchedulerKind::EulerD, SchedulerKind::DpmM);
    for (key, spacing) in [
        ("use_karras_sigmas", Spacing::Karras),
        ("use_exponential_sigmas", Spacing::Exponential),
        ("use_beta_sigmas", Spacing::Beta),
    ] {
        let file = format!(r#"{{"{key}":true,"steps_offset":1}}"#);
        let asked = |kind| built(kind, r#"{"steps_offset":1}"#, spaced(spacing));
        for kind in [euler, dpm_m, SchedulerKind::Heun, SchedulerKind::UniPc, SchedulerKind::Deis] {
            assert_eq!(built(kind, &file, Sampling::default()), asked(kind), "{kind} {key}");
            // What the request says goes before the file.
            assert_eq!(
                built(kind, &file, spaced(Spacing::Simple)),
                built(kind, "{}", spaced(Spacing::Simple))
            );
        }
        // These classes of the reference do not know the keys.
        for kind in [SchedulerKind::EulerA, SchedulerKind::Lcm, SchedulerKind::Ddim] {
            assert_eq!(
                built(kind, &file, Sampling::default()),
                built(kind, r#"{"steps_offset":1}"#, Sampling::default())
            );
        }
    }
    let lu = r#"{"use_lu_lambdas":true}"#;
    assert_ne!(built(dpm_m, lu, Sampling::default()), built(dpm_m, "{}", Sampling::default()));
    assert_eq!(built(euler, lu, Sampling::default()), built(euler, "{}", Sampling::default()));
    let two = built(euler, r#"{"use_karras_sigmas":true,"use_beta_sigmas":true}"#, Sampling::default())
        .unwrap_err();
    assert!(two.to_string().contains("use_beta_sigmas is true, but must be false"), "{two}");
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
