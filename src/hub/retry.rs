//! How often and after which while a call is made again.

use std::thread;
use std::time::Duration;

use super::HubError;

/// Before each further try; a server's own wish counts if it is longer.
const DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// Counts the tries that brought nothing.
#[derive(Debug, Default)]
pub struct Patience {
    fruitless: usize,
}

impl Patience {
    /// Waits before the next try; gives `error` back where it was the last.
    pub fn spend(&mut self, error: HubError) -> Result<(), HubError> {
        let wish = error.retry_after().unwrap_or_default();
        let Some(delay) = DELAYS.get(self.fruitless).filter(|_| wish <= LONGEST_WISH) else {
            return Err(error);
        };
        self.fruitless += 1;
        thread::sleep(wish.max(*delay));
        Ok(())
    }

    pub fn renew(&mut self) {
        self.fruitless = 0;
    }
}

/// Makes a call until it succeeds, fails for good, or patience is at its end.
pub fn patiently<T>(mut call: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
    let mut patience = Patience::default();
    loop {
        match call() {
            Err(error) if error.is_passing() => patience.spend(error)?,
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
    fn a_first_failure_is_tried_again_at_once() {
        let mut calls = 0;
        let outcome = patiently(|| {
            calls += 1;
            if calls == 1 { Err(busy(Duration::ZERO)) } else { Ok(calls) }
        });
        assert_eq!(outcome.unwrap(), 2);
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_for_long_is() {
        let mut patience = Patience::default();
        assert!(patience.spend(busy(LONGEST_WISH + Duration::from_secs(1))).is_err());
    }

    #[test]
    fn patience_comes_to_an_end() {
        let mut patience = Patience { fruitless: DELAYS.len() };
        assert!(patience.spend(busy(Duration::ZERO)).is_err());
        patience.renew();
        assert!(patience.spend(busy(Duration::ZERO)).is_ok());
    }
}
