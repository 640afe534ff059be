//! Every scheduler against values from diffusers (`tests/golden`), with the closed-form model that made
//! them: `eps(x, t) = 0.3 x + 0.1 sin(t / 100)`.

use super::*;
use crate::domain::NoiseSource;
use serde_json::Value;

const GOLDEN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedulers_golden.json"));
const EXTRA: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedulers_extra_golden.json"));

fn model(x: &Array4<f32>, t: f32) -> Array4<f32> {
    let bias = 0.1 * (t / 100.0).sin();
    x.mapv(|x| 0.3 * x + bias)
}

/// What a run of the reference is compared in.
struct Run {
    timesteps: Vec<f32>,
    sigmas: Option<Vec<f32>>,
    init_noise_sigma: f32,
    order: usize,
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
            let image = tables::linspace_f32(-1.0, 1.0, 256);
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
    Ok(Some(Run {
        timesteps,
        sigmas: scheduler.sigmas().map(<[f32]>::to_vec),
        init_noise_sigma: scheduler.init_noise_sigma(),
        order: scheduler.order(),
        latents: sample,
    }))
}

/// How far this engine may be from the reference: timesteps absolutely, latents relative to their
/// standard deviation (or to themselves, if larger; or to 1e-3, if both are smaller: what was summed on
/// the way there is of order one).
#[derive(Clone, Copy)]
struct Tolerance {
    timesteps: f32,
    sigmas: f32,
    latents: f64,
}

fn tolerance(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    steps: usize,
    options: SchedulerOptions,
) -> Tolerance {
    use SchedulerKind as K;
    let karras = options.karras || config.use_karras_sigmas == Some(true);
    // Timesteps are equal to the bit where they are arithmetic. Found from a sigma, they inherit the last
    // bit of torch's processor-dependent square root; KDPM2-A's come from sigma_down, a difference of
    // nearly equal squares, of which few steps leave few digits.
    let timesteps = match kind {
        K::Kdpm2A if steps < 4 => 1e-2,
        K::Kdpm2A => 2e-4,
        K::Kdpm2D => 2e-4,
        K::Ipndm => 1e-6,
        K::EulerD | K::KLms | K::Heun if karras => 2e-4,
        _ => 0.0,
    };
    let zero_snr = config.rescale_betas_zero_snr == Some(true);
    // The same cancellation is in KDPM2-A's step to sigma_down, worst where there is only one; and a
    // schedule that starts at sigma 4096 rounds its latents to 2e-4 there.
    let latents = match kind {
        K::Kdpm2A if steps < 4 => 1e-4,
        K::EulerA | K::EulerD if zero_snr => 1e-3,
        _ => 1e-5,
    };
    // Two ulps: one of the table's square root, one of the interpolation after it; zero terminal SNR
    // divides neighbours that differ by little and multiplies them up again.
    Tolerance { timesteps, sigmas: if zero_snr { 3e-6 } else { 2.5e-7 }, latents }
}

fn numbers(json: &Value) -> Vec<f32> {
    #[allow(clippy::cast_possible_truncation)]
    json.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// What is wrong, or nothing.
fn compare(got: &Run, want: &Value, tolerance: Tolerance) -> Vec<String> {
    let mut wrong = Vec::new();
    let timesteps = numbers(&want["timesteps"]);
    let calls = want["model_calls"].as_u64().unwrap();
    if got.timesteps.len() as u64 != calls || timesteps.len() != got.timesteps.len() {
        return vec![format!("{} model calls, not {calls}", got.timesteps.len())];
    }
    for (i, (g, w)) in got.timesteps.iter().zip(&timesteps).enumerate() {
        if (g - w).abs() > tolerance.timesteps {
            wrong.push(format!("timestep {i} is {g}, not {w}"));
            break;
        }
    }
    let close = |g: f32, w: f32| (g - w).abs() <= tolerance.sigmas * w.abs();
    if !want["sigmas"].is_null() {
        let (got, want) = (got.sigmas.clone().unwrap_or_default(), numbers(&want["sigmas"]));
        let bad = got.iter().zip(&want).position(|(g, w)| !close(*g, *w));
        if got.len() != want.len() {
            wrong.push(format!("{} sigmas, not {}", got.len(), want.len()));
        } else if let Some(i) = bad {
            wrong.push(format!("sigma {i} is {}, not {}", got[i], want[i]));
        }
    }
    #[allow(clippy::cast_possible_truncation)]
    let init = want["init_noise_sigma"].as_f64().unwrap() as f32;
    if !close(got.init_noise_sigma, init) || got.order as u64 != want["order"].as_u64().unwrap() {
        wrong.push(format!("init_noise_sigma is {}, not {init}", got.init_noise_sigma));
    }
    let values: Vec<f64> = got.latents.iter().map(|&x| f64::from(x)).collect();
    #[allow(clippy::cast_precision_loss)]
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let want_std = want["std"].as_f64().unwrap();
    let mut pairs =
        vec![("mean".to_owned(), mean, want["mean"].as_f64().unwrap()), ("std".into(), std, want_std)];
    for (i, w) in want["final"].as_array().unwrap().iter().enumerate() {
        pairs.push((format!("latent {i}"), values[i], w.as_f64().unwrap()));
    }
    let worst = pairs
        .into_iter()
        .map(|(name, g, w)| ((g - w).abs() / w.abs().max(want_std).max(1e-3), name, g, w))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap();
    if worst.0.is_nan() || worst.0 > tolerance.latents {
        wrong.push(format!("{} is {}, not {} ({:.1e} relative)", worst.1, worst.2, worst.3, worst.0));
    }
    wrong
}

#[test]
fn every_scheduler_makes_the_latents_of_diffusers() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let base = SchedulerConfig::from_json(&golden["config"].to_string()).unwrap();
    assert_eq!(base, SchedulerConfig::default());
    let runs = golden["runs"].as_object().unwrap();
    assert_eq!(runs.len(), 600);
    let mut wrong = Vec::new();
    for (key, want) in runs {
        let mut parts = key.split('/');
        let name = parts.next().unwrap();
        let steps: usize = parts.next().unwrap().parse().unwrap();
        let strength = parts.next().unwrap().strip_prefix("img2img").map(|s| s.parse::<f64>().unwrap());
        let eta = if parts.next() == Some("eta1") { 1.0 } else { 0.0 };
        let mut config = base.clone();
        let kind = match name {
            "DDIM" => SchedulerKind::Ddim,
            "DDPM" => SchedulerKind::Ddpm,
            "PNDM" => SchedulerKind::Pndm,
            "LMS" | "LMS_KARRAS" => SchedulerKind::KLms,
            "EULER" | "EULER_KARRAS" | "EULER_LEADING" | "EULER_TRAILING" => SchedulerKind::EulerD,
            "EULER_A" => SchedulerKind::EulerA,
            "HEUN" => SchedulerKind::Heun,
            "KDPM2" => SchedulerKind::Kdpm2D,
            "KDPM2_A" => SchedulerKind::Kdpm2A,
            "DPM_S" => SchedulerKind::DpmS,
            "IPNDM" => SchedulerKind::Ipndm,
            _ if name.starts_with("DPMPP_2M") => SchedulerKind::DpmM,
            _ => panic!("{name} is new"),
        };
        if name.ends_with("LEADING") {
            config.timestep_spacing = Some("leading".into());
        } else if name.ends_with("TRAILING") {
            config.timestep_spacing = Some("trailing".into());
        } else if name.ends_with("SDE") {
            config.algorithm_type = Some("sde-dpmsolver++".into());
        }
        let options = SchedulerOptions { karras: name.ends_with("KARRAS"), eta };
        let got = run(kind, &config, steps, strength, options);
        match got {
            Err(e) if want["error"].is_string() => assert!(!e.to_string().is_empty()),
            Ok(None) if want.is_null() => {}
            Ok(Some(got)) if want["final"].is_array() => {
                let tolerance = tolerance(kind, &config, steps, options);
                wrong.extend(compare(&got, want, tolerance).into_iter().map(|w| format!("{key}: {w}")));
            }
            Err(e) => wrong.push(format!("{key}: {e}")),
            Ok(_) => wrong.push(format!("{key}: expected {want}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn other_configurations_make_the_latents_of_diffusers_too() {
    let golden: Value = serde_json::from_str(EXTRA).unwrap();
    let mut wrong = Vec::new();
    for want in golden["runs"].as_array().unwrap() {
        let kind = SchedulerKind::parse(want["kind"].as_str().unwrap()).unwrap().0;
        let config = SchedulerConfig::from_json(&want["config"].to_string()).unwrap();
        let options = SchedulerOptions::default();
        let steps = usize::try_from(want["steps"].as_u64().unwrap()).unwrap();
        let key = format!("{kind} {} {steps} {}", want["note"], want["strength"]);
        let got = run(kind, &config, steps, want["strength"].as_f64(), options);
        match got {
            Err(_) if want["error"].is_string() => {}
            Ok(Some(got)) if want["final"].is_array() => {
                let tolerance = tolerance(kind, &config, steps, options);
                wrong.extend(compare(&got, want, tolerance).into_iter().map(|w| format!("{key}: {w}")));
            }
            Err(e) => wrong.push(format!("{key}: {e}")),
            Ok(_) => wrong.push(format!("{key}: expected {}", want["error"])),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
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
fn a_batch_is_its_rows_alone() {
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
            assert_eq!(row, together(&[seed]).index_axis(ndarray::Axis(0), 0), "{kind}");
        }
    }
}

#[test]
fn nonsense_in_the_file_is_a_sentence_that_names_it() {
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
            // Some kinds do not read the key at all; none may panic.
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
fn what_cannot_be_stepped_is_refused() {
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
        // Out of order is not meaningful, but neither may it panic.
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
