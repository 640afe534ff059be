//! Every scheduler against values from diffusers. The scripts beside them in `tests/golden` wrote them, with the same
//! closed-form model.

use serde_json::Value;

use super::*;

const GOLDEN: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedulers_golden.json"));
const EXTRA: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedulers_extra_golden.json"));

/// How far this engine may be from the reference: timesteps absolutely, sigmas relatively. Latents are relative to
/// their standard deviation, to themselves if they are larger, or to 1e-3 if both are smaller: the sums on the way
/// there are of order one.
#[derive(Clone, Copy)]
struct Tolerance {
    timesteps: f32,
    sigmas: f32,
    latents: f64,
}

fn tolerance(kind: SchedulerKind, config: &SchedulerConfig, steps: usize, sampling: Sampling) -> Tolerance {
    use SchedulerKind as K;
    let karras = sampling.spacing == Some(Spacing::Karras) || config.use_karras_sigmas == Some(true);
    // Timesteps are equal to the bit where they are arithmetic. Found from a sigma, they inherit the last
    // bit of torch's processor-dependent square root; KDPM2-A's come from sigma_down, a difference of
    // nearly equal squares, of which few steps leave few digits.
    let timesteps = match kind {
        K::Kdpm2A if steps < 4 => 1e-2,
        K::Kdpm2A | K::Kdpm2D => 2e-4,
        K::Ipndm => 1e-6,
        K::EulerD | K::KLms | K::Heun if karras => 2e-4,
        _ => 0.0,
    };
    let zero_snr = config.rescale_betas_zero_snr == Some(true);
    // The same cancellation is in KDPM2-A's step to sigma_down, worst where there is only one; and a
    // schedule that starts at sigma 4096 rounds its latents to 2e-4 there, or to an ulp of 4096's multiples (1e-3)
    // where it comes down in a single step.
    let latents = match kind {
        K::Kdpm2A if steps < 4 => 1e-4,
        K::EulerA | K::EulerD if zero_snr && steps < 3 => 2e-3,
        K::EulerA | K::EulerD if zero_snr => 1e-3,
        _ => 1e-5,
    };
    // Two ulps: one of the table's square root, one of the interpolation after it; zero terminal SNR
    // divides neighbours that differ by little and multiplies them up again.
    Tolerance { timesteps, sigmas: if zero_snr { 3e-6 } else { 2.5e-7 }, latents }
}

fn numbers(json: &Value) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the reference's values are f32")]
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
    let schedule = &got.schedule;
    if !want["sigmas"].is_null() {
        let (got, want) = (&schedule.sigmas, numbers(&want["sigmas"]));
        let bad = got.iter().zip(&want).position(|(g, w)| !close(*g, *w));
        if got.len() != want.len() {
            wrong.push(format!("{} sigmas, not {}", got.len(), want.len()));
        } else if let Some(i) = bad {
            wrong.push(format!("sigma {i} is {}, not {}", got[i], want[i]));
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "the reference's value is f32")]
    let init = want["init_noise_sigma"].as_f64().unwrap() as f32;
    if !close(schedule.init_noise_sigma, init) {
        wrong.push(format!("init_noise_sigma is {}, not {init}", schedule.init_noise_sigma));
    }
    if schedule.calls_per_step as u64 != want["order"].as_u64().unwrap() {
        wrong.push(format!("{} calls a step, not {}", schedule.calls_per_step, want["order"]));
    }
    let values: Vec<f64> = got.latents.iter().map(|&x| f64::from(x)).collect();
    #[expect(clippy::cast_precision_loss, reason = "256 latents")]
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

/// The scheduler that `schedulers_golden.json` calls by this name.
fn kind_of(name: &str) -> SchedulerKind {
    match name {
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
    }
}

/// Runs that ended in latents, by scheduler.
fn runs_with_latents() -> Vec<SchedulerKind> {
    let has_latents = |run: &Value| run["final"].is_array();
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let extra: Value = serde_json::from_str(EXTRA).unwrap();
    let of_golden = golden["runs"].as_object().unwrap().iter();
    let of_golden =
        of_golden.filter(|(_, run)| has_latents(run)).map(|(key, _)| kind_of(key.split('/').next().unwrap()));
    let of_extra = extra["runs"].as_array().unwrap().iter().filter(|run| has_latents(run));
    let of_extra = of_extra.map(|run| SchedulerKind::parse(run["kind"].as_str().unwrap()).unwrap().0);
    of_golden.chain(of_extra).chain(super::k_diffusion::runs_with_latents()).collect()
}

#[test]
fn every_scheduler_has_reference_values() {
    let runs = runs_with_latents();
    for kind in SchedulerKind::ALL {
        let count = runs.iter().filter(|run| **run == kind).count();
        assert!(
            count >= 10,
            "{kind} has {count} runs: add its class to tests/golden/schedulers_extra_golden.py, or its function to samplers_golden.py"
        );
    }
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
        let eta = (parts.next() == Some("eta1")).then_some(1.0);
        let mut config = base.clone();
        let kind = kind_of(name);
        if name.ends_with("LEADING") {
            config.timestep_spacing = Some("leading".into());
        } else if name.ends_with("TRAILING") {
            config.timestep_spacing = Some("trailing".into());
        } else if name.ends_with("SDE") {
            config.algorithm_type = Some("sde-dpmsolver++".into());
        }
        let spacing = name.ends_with("KARRAS").then_some(Spacing::Karras);
        let options = Sampling { spacing, eta, ..Sampling::default() };
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
        let options = Sampling::default();
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
