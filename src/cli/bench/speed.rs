//! How long things take, and how much memory.

#![expect(clippy::cast_precision_loss, reason = "figures for people, of three digits")]

use std::fs;
use std::time::{Duration, Instant};

use super::Failure;
use super::row::Row;
use super::subject::{SEED, Subject, first_image, milliseconds, seconds};
use crate::diffusion::{Generation, Pipeline};
use crate::domain::ImageSize;

/// Enough to go the whole way once.
const FIRST_STEPS: u32 = 5;
/// What a request draws if it says nothing.
const USUAL_STEPS: u32 = 50;
/// A figure is the middle one of so many runs, or of as many as fit into the time; two at least.
const RUNS: usize = 10;
const TIME: Duration = Duration::from_secs(2);
/// A measurement that would take longer is left out.
const PATIENCE: Duration = Duration::from_secs(60);
/// 50 steps of SD v1.5 at 512×512, as ONNX Runtime's authors published them.
const ANCHORS: &str = "published for SD v1.5: A100 0.861 s, H100 0.572 s";

/// From a request to its picture, when nothing is warm.
pub(super) fn first_picture(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let size = subject.sizes[0];
    let input = subject.input(size, FIRST_STEPS);
    let started = Instant::now();
    subject.draw(&input, SEED)?;
    let row = Row::new("first picture", seconds(started.elapsed()), "s").size(size);
    Ok(vec![row.note(format!("{FIRST_STEPS} steps, nothing warm"))])
}

/// The text encoder, twice for a guided picture, and the noise.
pub(super) fn prompt(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let input = subject.input(subject.sizes[0], USUAL_STEPS);
    let time = median(|| subject.pipeline.begin(&input, SEED).map(drop).map_err(Failure::from))?;
    subject.found.prompt = Some(time);
    Ok(vec![Row::new("prompt", time, "ms").note("text encoder and noise")])
}

/// The VAE and the PNG.
pub(super) fn decode(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for size in subject.sizes.clone() {
        let generation = subject.pipeline.begin(&subject.input(size, USUAL_STEPS), SEED)?;
        first_image(&mut subject.pipeline, &generation)?;
        let time = median(|| first_image(&mut subject.pipeline, &generation).map(drop))?;
        subject.found.decodes.push((size, time));
        rows.push(Row::new("decode", time, "ms").size(size).note("a picture, with its PNG"));
    }
    Ok(rows)
}

/// A step by rows.
#[expect(clippy::unnecessary_wraps, reason = "every measurement may fail")]
pub(super) fn steps(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for size in subject.sizes.clone() {
        let mut slowest_row: f64 = 0.0;
        for count in subject.rows.clone() {
            let row = Row::new("step", 0.0, "ms").size(size).rows(count);
            // One to warm up, two to measure.
            let expected = slowest_row * count as f64 * 3.0;
            if expected > milliseconds(PATIENCE) {
                let note = format!("left out: a step would take about {:.0} s", expected / 3000.0);
                rows.push(Row { value: None, ..row.note(note) });
                continue;
            }
            match step(subject, size, count) {
                Ok(time) => {
                    slowest_row = time / count as f64;
                    subject.found.steps.push((size, count, time));
                    let pictures = match count {
                        1 => "one without guidance".to_owned(),
                        2 => "one guided picture".to_owned(),
                        _ => format!("{} guided pictures", count / 2),
                    };
                    rows.push(Row { value: Some(time), ..row.note(pictures) });
                }
                // A full card: more rows would fail as well.
                Err(failure) => {
                    rows.push(Row { value: None, ..row.note(format!("failed: {failure}")) });
                    break;
                }
            }
        }
    }
    Ok(rows)
}

pub(super) fn step(subject: &mut Subject, size: ImageSize, rows: usize) -> Result<f64, Failure> {
    let mut batch = subject.batch(size, rows, USUAL_STEPS)?;
    step_all(&mut subject.pipeline, &mut batch)?;
    median(|| step_all(&mut subject.pipeline, &mut batch))
}

fn step_all(pipeline: &mut Pipeline, batch: &mut [Generation]) -> Result<(), Failure> {
    // Steps of a picture that broke cost nothing, and its end says why.
    if let Some(broken) = batch.iter().find(|generation| generation.is_done()) {
        pipeline.finish(broken)?;
    }
    let mut batch: Vec<&mut Generation> = batch.iter_mut().collect();
    Ok(pipeline.step(&mut batch)?)
}

/// Pictures a minute, calculated from what was measured before.
pub(super) fn pictures(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let found = &subject.found;
    let prompt = found.prompt.ok_or_else(|| Failure::Other("the prompt was not measured".to_owned()))?;
    let guided = found.steps.iter().filter(|(_, rows, _)| *rows >= 2);
    let rows = guided.filter_map(|&(size, rows, step)| {
        let &(_, decode) = found.decodes.iter().find(|(decoded, _)| *decoded == size)?;
        let images = rows as f64 / 2.0;
        let time = images * (prompt + decode) + f64::from(USUAL_STEPS) * step;
        let row = Row::new("pictures", images * 60_000.0 / time, "a minute").size(size).rows(rows);
        Some(row.note(format!("{USUAL_STEPS} steps, calculated")))
    });
    Ok(rows.collect())
}

/// Batches of two shapes stepped in turn, as two requests of different sizes would be.
pub(super) fn shapes_in_turn(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let size = subject.sizes[0];
    let counts = [2, 4];
    let mut batches =
        [subject.batch(size, counts[0], USUAL_STEPS)?, subject.batch(size, counts[1], USUAL_STEPS)?];
    for batch in &mut batches {
        step_all(&mut subject.pipeline, batch)?;
    }
    let both = median(|| batches.iter_mut().try_for_each(|batch| step_all(&mut subject.pipeline, batch)))?;
    let alone = |count| subject.found.steps.iter().find(|&&(s, rows, _)| s == size && rows == count);
    let note = match (alone(2), alone(4)) {
        (Some((_, _, two)), Some((_, _, four))) => {
            format!("2 rows, then 4; alone they take {:.1} ms", two + four)
        }
        _ => "2 rows, then 4".to_owned(),
    };
    Ok(vec![Row::new("shapes in turn", both, "ms").size(size).rows(6).note(note)])
}

/// A picture of 50 steps, from its request to its PNG.
pub(super) fn fifty_steps(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let size = subject.sizes[0];
    let step = subject.found.steps.iter().find(|&&(s, rows, _)| s == size && rows == 2);
    let expected = step.map_or(0.0, |(_, _, step)| step * f64::from(USUAL_STEPS));
    if expected > milliseconds(PATIENCE) {
        let note = format!("left out: it would take about {:.0} s", expected / 1000.0);
        return Ok(vec![Row::without("50 steps", note).size(size)]);
    }
    let input = subject.input(size, USUAL_STEPS);
    let time = median(|| subject.draw(&input, SEED).map(drop))?;
    Ok(vec![Row::new("50 steps", time / 1000.0, "s").size(size).note(ANCHORS)])
}

/// How many pictures the server would draw in one call of the UNet here. It finds that out when it loads the model.
pub(super) fn batch(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    if subject.runtime.device().is_cpu() {
        return Ok(vec![Row::new("batch", 1.0, "pictures").note("in a call, on a CPU")]);
    }
    let started = Instant::now();
    subject.pipeline.measure_batching(u64::MAX)?;
    let images = subject.pipeline.batching().images as f64;
    let note = format!("in a call; timed in {:.1} s", seconds(started.elapsed()));
    Ok(vec![Row::new("batch", images, "pictures").note(note)])
}

/// The host's memory and the card's, at the end.
pub(super) fn memory(subject: &Subject) -> Vec<Row> {
    let mut rows = Vec::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, note) in [("VmRSS:", "resident now"), ("VmHWM:", "resident at most")] {
        if let Some(kib) = kib(&status, field) {
            rows.push(Row::new("host memory", kib / 1000.0 * 1.024, "MB").note(note));
        }
    }
    let estimate = subject.pipeline.memory() as f64 / 1e6;
    let estimated = |name| Row::new(name, estimate, "MB").note("estimate, one picture");
    if subject.runtime.device().is_cpu() {
        rows.push(estimated("host memory"));
        return rows;
    }
    let now = subject.runtime.device().memory_use();
    rows.push(match (subject.memory_before, now) {
        (Some(before), Some(now)) => {
            let taken = now.used.saturating_sub(before.used) as f64 / 1e6;
            Row::new("card memory", taken, "MB").note("taken since the start")
        }
        _ => Row::without("card memory", "NVML does not say"),
    });
    rows.push(estimated("card memory"));
    rows
}

fn kib(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The middle one of several runs, in milliseconds.
fn median(mut run: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut times = Vec::with_capacity(RUNS);
    while times.len() < RUNS && (times.len() < 2 || began.elapsed() < TIME) {
        let started = Instant::now();
        run()?;
        times.push(milliseconds(started.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
