//! How long one job may take, how long it may exist, and whom it lets go first.

use std::time::Duration;

use serde_json::Value;

const EXECUTION_TIMEOUT: Bounds =
    Bounds { default: Duration::from_secs(600), min: Duration::from_secs(5), max: WEEK };
const TTL: Bounds =
    Bounds { default: Duration::from_secs(24 * 3600), min: Duration::from_secs(10), max: WEEK };
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

struct Bounds {
    default: Duration,
    min: Duration,
    max: Duration,
}

/// The `policy` of a request, with its values clamped to what the contract allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Working longer than this ends the job as `TIMED_OUT`.
    pub execution_timeout: Duration,
    /// This long after its submission the job is deleted, whatever its state.
    pub ttl: Duration,
    /// Behind every job that does not say so.
    pub low_priority: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { execution_timeout: EXECUTION_TIMEOUT.default, ttl: TTL.default, low_priority: false }
    }
}

impl Policy {
    /// Reads the request's `policy`. Out-of-range times are clamped (published code sends 3000 ms);
    /// unknown keys are ignored, as the hosted service does; a wrong type is an error sentence.
    pub fn parse(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let Some(policy) = value.as_object() else {
            return Err("policy should be an object.".to_owned());
        };
        Ok(Self {
            execution_timeout: EXECUTION_TIMEOUT.read(policy.get("executionTimeout"), "executionTimeout")?,
            ttl: TTL.read(policy.get("ttl"), "ttl")?,
            low_priority: match policy.get("lowPriority") {
                None | Some(Value::Null) => false,
                Some(Value::Bool(low)) => *low,
                Some(_) => return Err("policy.lowPriority should be true or false.".to_owned()),
            },
        })
    }
}

impl Bounds {
    fn read(&self, value: Option<&Value>, name: &str) -> Result<Duration, String> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            return Ok(self.default);
        };
        let ms =
            value.as_f64().ok_or_else(|| format!("policy.{name} should be a number of milliseconds."))?;
        let wanted = Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(if ms < 0.0 {
            Duration::ZERO
        } else {
            Duration::MAX
        });
        Ok(wanted.clamp(self.min, self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_out_of_range_are_clamped() {
        let policy = Policy::parse(&json!({"executionTimeout": 3000, "ttl": 1e30})).unwrap();
        assert_eq!(policy.execution_timeout, Duration::from_secs(5));
        assert_eq!(policy.ttl, WEEK);
        let policy = Policy::parse(&json!({"executionTimeout": -1, "ttl": 20_000})).unwrap();
        assert_eq!(policy.execution_timeout, Duration::from_secs(5));
        assert_eq!(policy.ttl, Duration::from_secs(20));
    }

    #[test]
    fn absent_and_null_mean_the_defaults() {
        assert_eq!(Policy::parse(&json!(null)).unwrap(), Policy::default());
        assert_eq!(Policy::parse(&json!({"ttl": null})).unwrap(), Policy::default());
    }

    #[test]
    fn wrong_types_are_named() {
        assert_eq!(
            Policy::parse(&json!({"ttl": "1h"})).unwrap_err(),
            "policy.ttl should be a number of milliseconds."
        );
        assert!(Policy::parse(&json!([])).is_err());
        assert!(Policy::parse(&json!({"lowPriority": 1})).is_err());
    }
}
