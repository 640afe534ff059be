//! The samplers of k-diffusion, diffusers' DEIS and TCD, and every spacing, against values that
//! `tests/golden/samplers_golden.py` wrote with the same closed-form model.

use serde_json::Value;

use super::*;

const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/samplers_golden.json"));

/// How far latents may be from the reference, relative to their standard deviation, or to themselves if they are larger.
///
/// Brownian motion is asked to a millionth of a sigma, which is an ulp of the largest sigmas. So a sigma that is rounded
/// the other way asks for a slightly other piece of it.
fn tolerance(kind: SchedulerKind) -> f64 {
    use SchedulerKind as K;
    match kind {
        K::DpmSde | K::DpmMSde | K::DpmMSdeHeun | K::Dpm3MSde => 1e-3,
        _ => 1e-4,
    }
}

fn runs() -> Vec<Value> {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    golden["runs"].as_array().unwrap().clone()
}

fn kind(run: &Value) -> SchedulerKind {
    SchedulerKind::parse(run["kind"].as_str().unwrap()).unwrap().0
}

/// Runs that ended in latents, by scheduler.
pub(super) fn runs_with_latents() -> Vec<SchedulerKind> {
    runs().iter().map(kind).collect()
}

#[test]
fn every_sampler_and_spacing_makes_the_latents_of_the_reference() {
    let (mut wrong, mut worst) = (Vec::new(), std::collections::BTreeMap::new());
    for want in runs() {
        let kind = kind(&want);
        #[expect(clippy::cast_possible_truncation, reason = "the reference's options are short decimals")]
        let number = |name: &str| want["sampling"][name].as_f64().map(|value| value as f32);
        let sampling = Sampling {
            spacing: want["spacing"].as_str().map(|name| Spacing::parse(name).unwrap()),
            eta: number("eta"),
            s_churn: number("s_churn"),
            s_tmin: number("s_tmin"),
            s_tmax: number("s_tmax"),
            s_noise: number("s_noise"),
        };
        let config = match &want["config"] {
            Value::Null => SchedulerConfig::default(),
            config => SchedulerConfig::from_json(&config.to_string()).unwrap(),
        };
        let steps = usize::try_from(want["steps"].as_u64().unwrap()).unwrap();
        let key = format!(
            "{kind} {} {} {steps} {} {}",
            want["spacing"], want["sampling"], want["strength"], want["config"]
        );
        let got = match run(kind, &config, steps, want["strength"].as_f64(), sampling) {
            Ok(Some(got)) => got,
            Ok(None) => panic!("{key}: nothing was kept"),
            Err(error) => panic!("{key}: {error}"),
        };
        if let Some(sigmas) = want["sigmas"].as_array() {
            let got: Vec<f32> = steps_of(&got.schedule);
            assert_eq!(got.len(), sigmas.len(), "{key}");
            for (got, want) in got.iter().zip(sigmas) {
                let want = want.as_f64().unwrap();
                if (f64::from(*got) - want).abs() > 1e-5 * want.abs() {
                    wrong.push(format!("{key}: sigma {got}, not {want}"));
                }
            }
        }
        if let Some(timesteps) = want["timesteps"].as_array() {
            assert_eq!(got.timesteps.len(), timesteps.len(), "{key}");
            for (got, want) in got.timesteps.iter().zip(timesteps) {
                let want = want.as_f64().unwrap();
                let far = (f64::from(*got) - want).abs();
                if far > if kind == SchedulerKind::Kdpm2A { 1e-2 } else { 1e-3 } {
                    wrong.push(format!("{key}: timestep {got}, not {want}"));
                }
            }
        }
        let apart = apart(&got.latents, &want);
        let most: &mut f64 = worst.entry(kind.as_str()).or_default();
        *most = most.max(apart);
        if apart.is_nan() || apart > tolerance(kind) {
            wrong.push(format!("{key}: {apart:.1e} apart"));
        }
    }
    let worst: Vec<_> = worst.iter().map(|(kind, most)| format!("{kind} {most:.0e}")).collect();
    println!("{}", worst.join(", "));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The sigmas of a schedule's steps, with the one at which the last ends.
fn steps_of(schedule: &Schedule) -> Vec<f32> {
    let mut sigmas: Vec<f32> = schedule.sigmas.clone();
    if schedule.calls_per_step == 2 {
        sigmas = sigmas.chunks(2).map(|pair| pair[0]).collect();
        sigmas.truncate(schedule.timesteps.len().div_ceil(2));
        sigmas.push(schedule.last_sigma());
    }
    sigmas
}

/// The largest relative difference to the reference's first latents, mean and deviation.
fn apart(latents: &Array4<f32>, want: &Value) -> f64 {
    let values: Vec<f64> = latents.iter().map(|&x| f64::from(x)).collect();
    #[expect(clippy::cast_precision_loss, reason = "256 latents")]
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let want_std = want["std"].as_f64().unwrap();
    let first = want["final"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
    let pairs =
        values.iter().copied().zip(first).chain([(mean, want["mean"].as_f64().unwrap()), (std, want_std)]);
    pairs.map(|(got, want)| (got - want).abs() / want.abs().max(want_std).max(1e-3)).fold(
        0.0,
        |worst, apart| {
            if apart.is_nan() { apart } else { f64::max(worst, apart) }
        },
    )
}
