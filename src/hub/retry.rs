//! How often a failed call is tried again, and how long to wait before that.

use std::thread;
use std::time::Duration;

use super::HubError;

/// The waits before each further try. If the server asks for a longer wait (`Retry-After`), that counts.
const DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Counts the tries that failed in a row.
#[derive(Debug, Default)]
pub struct Retries {
    failed: usize,
}

impl Retries {
    /// Waits before the next try. Returns `error` if there is no try left, or the server asks for too long a wait.
    pub fn wait_after(&mut self, error: HubError) -> Result<(), HubError> {
        let asked = error.retry_after().unwrap_or_default();
        let Some(delay) = DELAYS.get(self.failed).filter(|_| asked <= LONGEST_WAIT) else {
            return Err(error);
        };
        self.failed += 1;
        thread::sleep(asked.max(*delay));
        Ok(())
    }

    /// Allows the full number of tries again.
    pub fn reset(&mut self) {
        self.failed = 0;
    }
}

/// Makes a call until it succeeds, fails with a lasting error, or has no try left.
pub fn with_retries<T>(mut call: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
    let mut retries = Retries::default();
    loop {
        match call() {
            Err(error) if error.is_temporary() => retries.wait_after(error)?,
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after: Duration) -> HubError {
        HubError::Status {
            host: "hub.example".to_owned(),
            status: 503,
            what: "org/name".to_owned(),
            retry_after: Some(retry_after),
        }
    }

    #[test]
    fn the_first_retry_comes_at_once() {
        let mut calls = 0;
        let outcome = with_retries(|| {
            calls += 1;
            if calls == 1 { Err(busy(Duration::ZERO)) } else { Ok(calls) }
        });
        assert_eq!(outcome.unwrap(), 2);
    }

    #[test]
    fn a_long_retry_after_ends_the_retries() {
        let mut retries = Retries::default();
        assert!(retries.wait_after(busy(LONGEST_WAIT + Duration::from_secs(1))).is_err());
    }

    #[test]
    fn retries_are_limited() {
        let mut retries = Retries { failed: DELAYS.len() };
        assert!(retries.wait_after(busy(Duration::ZERO)).is_err());
        retries.reset();
        assert!(retries.wait_after(busy(Duration::ZERO)).is_ok());
    }
}
