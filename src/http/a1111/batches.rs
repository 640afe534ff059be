//! How many pictures a request asks for, in which jobs, and with which seeds.

use crate::domain::MAX_OUTPUTS;
use crate::http::surface::{FieldError, Fields};

/// A job of a request: the pictures from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    pub first: u32,
    pub count: u32,
}

/// All pictures: each of A1111's batches is a job, or several where it has more pictures than a job may have. They are drawn
/// one after another, as in A1111, so that a batch can be skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    pub size: u32,
    pub count: u32,
}

/// The most pictures of a request: A1111's sliders end at 100 batches of 8.
const MOST_PICTURES: u32 = 800;

impl Batches {
    pub fn read(fields: &Fields) -> Result<Self, FieldError> {
        let count = |name: &str| {
            let count = fields.integer(&[name])?.unwrap_or(1);
            let is_small = |count: &u32| (1..=MOST_PICTURES).contains(count);
            u32::try_from(count).ok().filter(is_small).ok_or_else(|| {
                FieldError::new(name, format!("{name} is {count}; it must be from 1 to {MOST_PICTURES}."))
            })
        };
        let batches = Self { size: count("batch_size")?, count: count("n_iter")? };
        if batches.pictures() > MOST_PICTURES {
            return Err(FieldError::new(
                "n_iter",
                format!(
                    "n_iter × batch_size is {} × {}; at most {MOST_PICTURES} pictures are allowed.",
                    batches.count, batches.size
                ),
            ));
        }
        Ok(batches)
    }

    pub fn pictures(self) -> u32 {
        self.size * self.count
    }

    /// The jobs, in their order.
    pub fn jobs(self) -> Vec<Batch> {
        let mut jobs = Vec::new();
        for batch in 0..self.count {
            let mut done = 0;
            while done < self.size {
                let count = (self.size - done).min(MAX_OUTPUTS);
                jobs.push(Batch { first: batch * self.size + done, count });
                done += count;
            }
        }
        jobs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(fields: &Value) -> Result<Batches, FieldError> {
        Batches::read(&Fields::new(fields.as_object().unwrap().clone()))
    }

    #[test]
    fn each_batch_is_a_job_and_large_ones_are_several() {
        let jobs = |size, count| -> Vec<_> {
            Batches { size, count }.jobs().into_iter().map(|job| (job.first, job.count)).collect()
        };
        assert_eq!(jobs(1, 1), [(0, 1)]);
        assert_eq!(jobs(2, 3), [(0, 2), (2, 2), (4, 2)]);
        assert_eq!(jobs(12, 2), [(0, 10), (10, 2), (12, 10), (22, 2)]);
    }

    #[test]
    fn counts_are_bounded() {
        assert_eq!(read(&json!({"n_iter": "2", "batch_size": 3.0})), Ok(Batches { size: 3, count: 2 }));
        assert_eq!(read(&json!({"n_iter": null})), Ok(Batches { size: 1, count: 1 }));
        for (fields, sentence) in [
            (json!({"n_iter": 0}), "n_iter is 0; it must be from 1 to 800."),
            (json!({"batch_size": -1}), "batch_size is -1; it must be from 1 to 800."),
            (json!({"n_iter": 1u64 << 40}), "n_iter is 1099511627776; it must be from 1 to 800."),
            (
                json!({"n_iter": 100, "batch_size": 9}),
                "n_iter × batch_size is 100 × 9; at most 800 pictures are allowed.",
            ),
        ] {
            assert_eq!(read(&fields).unwrap_err().sentence, sentence);
        }
    }
}
