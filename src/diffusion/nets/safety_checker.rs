//! The safety checker: CLIP's vision model, which compares a picture with a list of concepts.
//!
//! Exports answer with a verdict. Our own graph answers with scores, from which the verdict is made here as diffusers
//! makes it (`safety_checker.py`, `forward`).

use std::time::Duration;

use ndarray::Array4;
use ort::value::TensorElementType;

use super::ModelError;
use super::port::Port;
use super::session::{PartSession, tensor};
use crate::diffusion::image::{RgbImage, clip_input};
use crate::domain::ModelPart;

pub struct SafetyChecker {
    session: PartSession,
    clip_input: Port,
    /// The picture itself. Some graphs take it and return it black if it is flagged; that output is not used.
    images: Option<Port>,
    answer: Answer,
}

/// What the graph answers with.
enum Answer {
    /// Whether it flags the picture.
    Verdict(Port),
    /// How near the picture is to each concept, those for special care first.
    Scores(Port),
}

/// The side of CLIP's pictures in pixels, if the graph does not state it.
const SIDE: u32 = 224;
/// The output of our own graph.
const SCORES: &str = "scores";
/// The number of concepts for special care. A picture that is near one of them is judged more strictly.
const SPECIAL_CARE: usize = 3;
const STRICTER: f64 = 0.01;

impl SafetyChecker {
    pub fn new(session: PartSession) -> Result<Self, ModelError> {
        // Exporters leave all sizes open, so only the names distinguish the two pictures.
        let is_clip = |port: &Port| port.rank() == 4 && port.name.contains("clip");
        let clip_input = session.input("picture that CLIP reads (clip_input)", is_clip)?;
        let images = session.input("picture", |port| port.rank() == 4 && !is_clip(port)).ok();
        let known: Vec<&Port> = images.iter().chain([&clip_input]).collect();
        session.only(&known)?;
        let answer = match session.output_named(SCORES) {
            Ok(scores) => Answer::Scores(scores),
            Err(_) => Answer::Verdict(
                session.output_with_element(TensorElementType::Bool, "verdict (has_nsfw_concepts)")?,
            ),
        };
        Ok(Self { session, clip_input, images, answer })
    }

    /// Whether it flags the picture.
    pub fn flags(&mut self, image: &RgbImage) -> Result<bool, ModelError> {
        let seen = self.look(image)?;
        match self.answer {
            Answer::Verdict(_) => Ok(seen.iter().any(|&flag| flag != 0.0)),
            Answer::Scores(_) => verdict(&seen).ok_or_else(|| {
                unusable(&"its scores are infinite or not a number: use another copy of the model")
            }),
        }
    }

    /// What the graph answers about the picture.
    fn look(&mut self, image: &RgbImage) -> Result<Vec<f32>, ModelError> {
        let side = self.clip_input.fixed(2).and_then(|side| u32::try_from(side).ok()).unwrap_or(SIDE);
        let seen = clip_input(image, side).map_err(|error| unusable(&error))?;
        let mut inputs = vec![(self.clip_input.name.as_str(), tensor(&self.clip_input, &seen)?)];
        if let Some(port) = &self.images {
            let shape = (1, image.height as usize, image.width as usize, 3);
            let values = image.pixels.iter().map(|&byte| f32::from(byte) / 255.0).collect();
            let pixels = Array4::from_shape_vec(shape, values).map_err(|error| unusable(&error))?;
            inputs.push((port.name.as_str(), tensor(port, &pixels)?));
        }
        let (Answer::Verdict(port) | Answer::Scores(port)) = &self.answer;
        Ok(self.session.run(inputs, port)?.iter().copied().collect())
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run()
    }
}

/// Whether these scores flag a picture. None if one is not finite, which tells nothing.
fn verdict(scores: &[f32]) -> Option<bool> {
    if scores.len() <= SPECIAL_CARE || !scores.iter().all(|score| score.is_finite()) {
        return None;
    }
    let (special, others) = scores.split_at(SPECIAL_CARE);
    let mut adjustment = 0.0;
    // Each is compared in thousandths, rounded.
    let is_near = |score: f32, adjustment: f64| ((f64::from(score) + adjustment) * 1000.0).round() > 0.0;
    for &score in special {
        if is_near(score, adjustment) {
            adjustment = STRICTER;
        }
    }
    Some(others.iter().any(|&score| is_near(score, adjustment)))
}

fn unusable(error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Run { part: ModelPart::SafetyChecker, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::diffusion::files::ModelFiles;
    use crate::runtime::{DeviceChoice, Runtime};

    #[test]
    fn scores_make_the_verdict_of_diffusers() {
        let far = [-0.1; 3];
        let all = |special: [f32; 3], other: f32| [special.to_vec(), vec![-0.2, other, -0.2]].concat();
        assert_eq!(verdict(&all(far, -0.01)), Some(false));
        assert_eq!(verdict(&all(far, 0.0004)), Some(false), "rounds to 0");
        assert_eq!(verdict(&all(far, 0.0006)), Some(true));
        // Special care alone flags nothing, but moves the threshold.
        assert_eq!(verdict(&all([0.2, -0.1, -0.1], -0.02)), Some(false));
        assert_eq!(verdict(&all([-0.1, -0.1, 0.002], -0.009)), Some(true));
        assert_eq!(verdict(&all(far, -0.009)), Some(false));
    }

    /// The pictures of `safety_checker.py`.
    fn picture(number: u32) -> RgbImage {
        let (width, height) = (96, 64);
        let places =
            (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3_u32).map(move |c| (y, x, c))));
        let value =
            |(y, x, c)| (x * (number % 5 + 1) / (c + 1) + y * (number / 5 + 1) + 60 * number * (c + 1)) % 256;
        let pixels = places.map(|place| u8::try_from(value(place)).unwrap()).collect();
        RgbImage { width, height, pixels }
    }

    /// The checker in `folder` scores and flags the pictures as diffusers does with it.
    fn assert_scores_as_diffusers(folder: &Path) {
        // A model's other parts, which are not looked at.
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
        let whole = tempfile::tempdir().unwrap();
        for (from, parts) in [
            (model.as_path(), &["text_encoder", "unet", "vae", "tokenizer", "scheduler", "graphs"][..]),
            (folder, &["safety_checker", "graphs"]),
        ] {
            for part in parts.iter().filter(|part| from.join(part).is_dir()) {
                fs::create_dir_all(whole.path().join(part)).unwrap();
                for entry in fs::read_dir(from.join(part)).unwrap().map(Result::unwrap) {
                    fs::copy(entry.path(), whole.path().join(part).join(entry.file_name())).unwrap();
                }
            }
        }
        let (files, _) = ModelFiles::open(Some(whole.path())).unwrap();
        assert_eq!(files.checker_fault, None);
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let session = PartSession::load(files.part(ModelPart::SafetyChecker).unwrap(), &runtime).unwrap();
        let mut checker = SafetyChecker::new(session).unwrap();
        let golden: Value = serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
        for (number, case) in (0..).zip(golden.as_array().unwrap()) {
            let found = checker.look(&picture(number)).unwrap();
            let expected: Vec<f32> = serde_json::from_value(case["scores"].clone()).unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-3, "picture {number}: {found} is not {expected}");
            }
            assert_eq!(
                checker.flags(&picture(number)).unwrap(),
                case["flagged"].as_bool().unwrap(),
                "{number}"
            );
        }
    }

    #[test]
    fn pictures_are_scored_and_flagged_as_diffusers_does() {
        assert_scores_as_diffusers(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/safety_checker"),
        );
    }

    #[test]
    #[ignore = "needs the folder that tests/golden/safety_checker.py --full FOLDER writes"]
    fn a_checker_of_full_size_scores_as_diffusers_does() {
        let folder =
            std::env::var("STABLEHAND_TEST_CHECKER").expect("STABLEHAND_TEST_CHECKER names the folder");
        assert_scores_as_diffusers(Path::new(&folder));
    }

    #[test]
    fn scores_that_are_no_numbers_are_no_verdict() {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(verdict(&[-0.1, -0.1, broken, -0.1]), None);
            assert_eq!(verdict(&[-0.1, -0.1, -0.1, -0.1, broken]), None);
        }
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[0.0; 3]), None);
    }
}
