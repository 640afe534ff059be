//! The table of formats: what people have, and what becomes of it.
//!
//! Each row makes a model, a LoRA, a textual inversion or a picture on the spot from the built-in model. It is drawn
//! equal to the same weights in the plain format, or refused with a sentence that names it. `stablehand models check` is
//! run on each model of the table: its verdict must be the row's. A new format is a new row.

mod add_ons;
mod folders;
mod input_pictures;
mod lora_kinds;
mod other_families;
mod single_files;
mod torch_files;
mod weights;
mod workbench;

use std::path::{Path, PathBuf};

use stablehand::diffusion::Pipeline;
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};

pub use self::torch_files::{Save, bytes};
use self::workbench::Workbench;
use crate::check::{check, one_line};
use crate::checkpoints::{Tensors, pipeline};
use crate::drawing::psnr;

/// A row of the table.
struct Row {
    what: &'static str,
    becomes: Becomes,
    /// Makes the model and returns its path.
    made: fn(&Workbench) -> PathBuf,
}

/// What becomes of a model.
enum Becomes {
    /// It draws what the built-in model draws.
    Drawn,
    /// The same, but it computes in another precision.
    DrawnNearly,
    /// It draws what these weights draw as a checkpoint in full precision: converting has changed the weights
    /// themselves.
    DrawnAs(fn() -> Tensors),
    /// It draws, and a warning says all of these words.
    DrawnWithWarning(&'static [&'static str]),
    /// It draws something of its own, which another test looks at.
    DrawnDifferently,
    /// It is refused in one sentence with all of these words.
    Refused(&'static [&'static str]),
}

/// The likeness of equal weights, in decibels.
const EQUAL: f64 = 50.0;
/// The likeness where the graph computes in half precision.
const NEARLY: f64 = 35.0;

/// Draws a small picture with a scheduler whose timesteps are whole, since some graphs take no others.
fn draw(pipeline: &mut Pipeline) -> Result<Vec<u8>, String> {
    let input = GenerationInput {
        size: ImageSize { width: 64, height: 64 },
        num_inference_steps: 2,
        guidance_scale: 3.0,
        scheduler: SchedulerKind::Ddim,
        ..GenerationInput::new("a red heart")
    };
    let pictures = pipeline.draw(&input, 7).map_err(|error| error.to_string())?;
    Ok(pictures.into_iter().next().unwrap().image.pixels)
}

fn drawn_by(path: &Path) -> Result<(Vec<u8>, Vec<String>), String> {
    let mut pipeline = pipeline(path)?;
    Ok((draw(&mut pipeline)?, pipeline.warnings()))
}

/// Runs the rows of one part of the table, and reports all that are wrong at once.
#[track_caller]
fn hold(rows: &[Row]) {
    let bench = Workbench::new();
    let built_in = drawn_by(&crate::checkpoints::model()).unwrap().0;
    let wrong: Vec<String> = rows.iter().filter_map(|row| wrong_with(row, &bench, &built_in).err()).collect();
    assert!(wrong.is_empty(), "{} of {} rows are wrong:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// Why a row does not hold.
fn wrong_with(row: &Row, bench: &Workbench, built_in: &[u8]) -> Result<(), String> {
    let path = (row.made)(bench);
    let drawn = drawn_by(&path);
    let problem = |what: String| Err(format!("  {}: {what}", row.what));
    let like = |drawn: &[u8], reference: &[u8], least: f64| {
        let found = psnr(drawn, reference);
        if found >= least { Ok(()) } else { problem(format!("{found:.1} dB of {least}")) }
    };
    match (&row.becomes, &drawn) {
        (Becomes::Drawn, Ok((drawn, _))) => like(drawn, built_in, EQUAL)?,
        (Becomes::DrawnNearly, Ok((drawn, _))) => like(drawn, built_in, NEARLY)?,
        (Becomes::DrawnAs(weights), Ok((drawn, _))) => {
            let plain = drawn_by(&bench.checkpoint("plain", &weights()))?.0;
            like(drawn, &plain, EQUAL)?;
        }
        (Becomes::DrawnWithWarning(words), Ok((drawn, warnings))) => {
            like(drawn, built_in, EQUAL)?;
            let warnings = warnings.join("\n");
            if let Some(word) = words.iter().find(|word| !warnings.contains(**word)) {
                return problem(format!("no '{word}' in the warnings: {warnings}"));
            }
        }
        (Becomes::DrawnDifferently, Ok((drawn, _))) => {
            if psnr(drawn, built_in) > 40.0 {
                return problem("it draws what the built-in model draws".to_owned());
            }
        }
        (Becomes::Refused(words), Err(sentence)) => {
            if let Some(word) = words.iter().find(|word| !sentence.contains(**word)) {
                return problem(format!("no '{word}' in: {sentence}"));
            }
            if sentence.contains('\n') {
                return problem(format!("more than one line: {sentence}"));
            }
        }
        (Becomes::Refused(_), Ok(_)) => return problem("it draws".to_owned()),
        (_, Err(sentence)) => return problem(format!("it is refused: {sentence}")),
    }
    let (code, stdout, stderr) = check(&path);
    let said = one_line(&stdout);
    match row.becomes {
        // It looks at weights before anything is drawn, so its sentence may be another one.
        Becomes::Refused(words) => {
            let is_refused = code == Some(1) && said.contains(" does not draw: ");
            if is_refused && words.iter().all(|word| said.contains(word)) {
                return Ok(());
            }
        }
        _ if code == Some(0) && said.contains(" draws: a step at 64×64 px took") => return Ok(()),
        _ => {}
    }
    problem(format!("`models check` says otherwise ({code:?}): {stdout}{stderr}"))
}

#[test]
fn the_table_has_at_least_sixty_rows() {
    let models =
        [single_files::ROWS.len(), folders::ROWS.len(), other_families::ROWS.len(), torch_files::ROWS.len()];
    let others = [add_ons::ROWS.len(), lora_kinds::ROWS.len(), input_pictures::ROWS.len()];
    assert!(models.iter().chain(&others).sum::<usize>() >= 60, "{models:?} {others:?}");
}
