//! A variation of the picture that a seed gives: `subseed` and what belongs to it.

use super::batches::Batch;
use crate::http::surface::{FieldError, Fields, Translation};

/// Random seeds are below 2³², as A1111's are.
const RANDOM_BELOW: u128 = 1 << 32;

/// The seeds of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seeds {
    pub seed: u64,
    pub subseed: u64,
    pub strength: f64,
    /// The size whose noise is used, if there is one.
    pub resize_from: Option<(u32, u32)>,
    /// Whether opposite edges of the picture fit together.
    pub tiling: bool,
}

impl Seeds {
    /// Reads the seeds, and draws those that are random: −1, null or absent.
    pub fn read(fields: &Fields) -> Result<Self, FieldError> {
        let side = |name: &str| -> Result<Option<u32>, FieldError> {
            Ok(fields.integer(&[name])?.and_then(|side| u32::try_from(side).ok()).filter(|side| *side > 0))
        };
        let (width, height) = (side("seed_resize_from_w")?, side("seed_resize_from_h")?);
        Ok(Self {
            seed: seed(fields, "seed")?,
            subseed: seed(fields, "subseed")?,
            strength: fields.number(&["subseed_strength"])?.unwrap_or(0.0).clamp(0.0, 1.0),
            resize_from: width.zip(height),
            tiling: fields.flag(&["tiling"])?.unwrap_or(false),
        })
    }

    fn blends(self) -> bool {
        self.strength > 0.0
    }

    /// The seeds of picture `index`. While noise of another seed is blended in, all have the same seed.
    pub fn of(self, index: u32) -> (u64, u64) {
        let index = u64::from(index);
        let seed = if self.blends() { self.seed } else { self.seed.wrapping_add(index) };
        (seed, self.subseed.wrapping_add(index))
    }

    /// Writes the seeds of a job's first picture.
    pub fn translate(self, batch: Batch, to: &mut Translation) {
        let (seed, subseed) = self.of(batch.first);
        to.set_from("seed", "seed", seed);
        if self.blends() {
            to.set_from("subseed", "subseed", subseed);
            to.set_from("subseed_strength", "subseed_strength", self.strength);
        }
        if let Some((width, height)) = self.resize_from {
            to.set_from("seed_resize_width", "seed_resize_from_w", width);
            to.set_from("seed_resize_height", "seed_resize_from_h", height);
        }
        if self.tiling {
            to.set_from("tiling", "tiling", true);
        }
    }
}

fn seed(fields: &Fields, name: &str) -> Result<u64, FieldError> {
    match fields.integer(&[name])? {
        None | Some(-1) => Ok(random()),
        Some(seed) => u64::try_from(seed).map_err(|_| {
            FieldError::new(name, format!("{name} is {seed}; it must be at least 0, or -1 for a random one."))
        }),
    }
}

/// A version 4 UUID is made of the system's random numbers.
fn random() -> u64 {
    u64::try_from(uuid::Uuid::new_v4().as_u128() % RANDOM_BELOW).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: &Value) -> Result<Seeds, FieldError> {
        Seeds::read(&Fields::new(fields.as_object().unwrap().clone()))
    }

    #[test]
    fn pictures_have_consecutive_seeds_or_with_a_variation_consecutive_subseeds() {
        let plain = read(&json!({"seed": 7, "subseed": 3, "subseed_strength": 0})).unwrap();
        assert_eq!((plain.of(0), plain.of(2)), ((7, 3), (9, 5)));
        let blended = read(&json!({"seed": u64::MAX, "subseed": "3", "subseed_strength": 0.5})).unwrap();
        assert_eq!((blended.of(0), blended.of(2)), ((u64::MAX, 3), (u64::MAX, 5)));
    }

    #[test]
    fn absent_seeds_are_random_and_small() {
        for fields in [json!({}), json!({"seed": -1}), json!({"seed": null}), json!({"seed": ""})] {
            let seeds = read(&fields).unwrap();
            assert!(seeds.seed < 1 << 32 && seeds.subseed < 1 << 32);
        }
        assert_ne!(read(&json!({})), read(&json!({})));
        assert!(read(&json!({"seed": -2})).is_err());
    }

    #[test]
    fn a_size_for_the_noise_needs_both_sides() {
        let from = |w: i64, h: i64| {
            read(&json!({"seed_resize_from_w": w, "seed_resize_from_h": h})).unwrap().resize_from
        };
        assert_eq!((from(-1, -1), from(0, 0), from(512, 0)), (None, None, None));
        assert_eq!(from(512, 768), Some((512, 768)));
    }
}
