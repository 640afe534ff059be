//! The policy of a job: its execution timeout, its time to live and its priority.

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

/// The `policy` of a request. Its values are clamped to the limits of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// A job that runs longer ends as `TIMED_OUT`.
    pub execution_timeout: Duration,
    /// The job is deleted this long after its submission, in any state.
    pub ttl: Duration,
    /// Whether the job waits behind all jobs of normal priority.
    pub low_priority: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { execution_timeout: EXECUTION_TIMEOUT.default, ttl: TTL.default, low_priority: false }
    }
}

impl Policy {
    /// Reads the `policy` of a request. Times out of range are clamped, because published code sends 3000 ms. Unknown keys
    /// are ignored, as at the hosted service. A wrong type is an error.
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
    fn missing_and_null_mean_the_defaults() {
        assert_eq!(Policy::parse(&json!(null)).unwrap(), Policy::default());
        assert_eq!(Policy::parse(&json!({"ttl": null})).unwrap(), Policy::default());
    }

    #[test]
    fn a_wrong_type_is_named() {
        assert_eq!(
            Policy::parse(&json!({"ttl": "1h"})).unwrap_err(),
            "policy.ttl should be a number of milliseconds."
        );
        assert!(Policy::parse(&json!([])).is_err());
        assert!(Policy::parse(&json!({"lowPriority": 1})).is_err());
    }
}
