//! The limits that an operator sets. The defaults are the hosted service's.

use std::num::NonZeroU32;
use std::str::FromStr;

use crate::http::request::Operation;

/// How often one caller may ask for one operation; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    /// Within 10 seconds.
    pub per_window: Option<NonZeroU32>,
    pub at_once: Option<NonZeroU32>,
}

/// The limits of all operations, read from `off` or from exceptions such as `run=500/50,cancel=off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// In the order of [`Operation::ALL`].
    limits: [Limit; Operation::ALL.len()],
    /// Requests without a valid key that one address may send within 10 seconds.
    pub unauthorized: Option<NonZeroU32>,
    /// Requests for the page and the documentation that one address may send within 10 seconds.
    pub keyless: Option<NonZeroU32>,
}

/// The setting's name for requests without a valid key.
const UNAUTHORIZED: &str = "unauthorized";
/// The setting's name for requests for what needs no key.
pub const KEYLESS: &str = "keyless";

impl RateLimits {
    pub const OFF: Self = Self {
        limits: [Limit { per_window: None, at_once: None }; Operation::ALL.len()],
        unauthorized: None,
        keyless: None,
    };

    pub fn limit(&self, operation: Operation) -> Limit {
        self.limits[operation as usize]
    }

    fn set(&mut self, operation: Operation, limit: Limit) {
        self.limits[operation as usize] = limit;
    }
}

impl Default for RateLimits {
    /// The hosted service's limits. It states none for retry and health. What is our own gets the limits of what is most
    /// like it.
    fn default() -> Self {
        let limit = |per_window, at_once| Limit {
            per_window: NonZeroU32::new(per_window),
            at_once: NonZeroU32::new(at_once),
        };
        // The page has some fifty files, and many readers may share an address.
        let (unauthorized, keyless) = (NonZeroU32::new(100), NonZeroU32::new(2000));
        let mut limits = Self { unauthorized, keyless, ..Self::OFF };
        for operation in Operation::ALL {
            limits.set(
                operation,
                match operation {
                    Operation::Run => limit(1000, 200),
                    Operation::RunSync
                    | Operation::Status
                    | Operation::StatusSync
                    | Operation::Stream
                    | Operation::Events
                    | Operation::EventsUrl
                    | Operation::Model
                    | Operation::Tokens => limit(2000, 400),
                    Operation::Cancel | Operation::Delete => limit(100, 20),
                    Operation::PurgeQueue => limit(2, 0),
                    Operation::Requests => limit(10, 2),
                    Operation::Retry | Operation::Health => Limit::default(),
                },
            );
        }
        limits
    }
}

impl FromStr for RateLimits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = match text.trim() {
            "off" => return Ok(Self::OFF),
            _ => Self::default(),
        };
        for exception in text.split(',').map(str::trim).filter(|exception| !exception.is_empty()) {
            let (name, limit) = exception
                .split_once('=')
                .ok_or_else(|| "write off, or a list such as run=1000/200,cancel=off".to_owned())?;
            let limit = limit.parse::<Limit>()?;
            if [UNAUTHORIZED, KEYLESS].contains(&name) {
                if limit.at_once.is_some() {
                    return Err(format!("{name} takes one number, such as {name}=100"));
                }
                match name {
                    UNAUTHORIZED => limits.unauthorized = limit.per_window,
                    _ => limits.keyless = limit.per_window,
                }
                continue;
            }
            let operation = Operation::ALL.into_iter().find(|known| known.name() == name);
            let operation = operation.ok_or_else(|| {
                let known = Operation::ALL.map(Operation::name).join(", ");
                format!("unknown operation {name}; choose from {known}, {UNAUTHORIZED} and {KEYLESS}")
            })?;
            limits.set(operation, limit);
        }
        Ok(limits)
    }
}

impl FromStr for Limit {
    type Err = String;

    /// `N/M`: N in 10 seconds and M at once. `N` alone: no limit at once. `off`: no limit at all.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::default());
        }
        let number = |text: &str| {
            text.parse::<NonZeroU32>().map(Some).map_err(|_| {
                format!("{text} is not a limit; write off, or numbers from 1, such as 1000 or 1000/200")
            })
        };
        match text.split_once('/') {
            None => Ok(Self { per_window: number(text)?, at_once: None }),
            Some((per_window, at_once)) => {
                Ok(Self { per_window: number(per_window)?, at_once: number(at_once)? })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(limits: &RateLimits, operation: Operation) -> (u32, u32) {
        let Limit { per_window, at_once } = limits.limit(operation);
        (per_window.map_or(0, NonZeroU32::get), at_once.map_or(0, NonZeroU32::get))
    }

    #[test]
    fn the_defaults_are_the_hosted_services() {
        let limits = RateLimits::default();
        let table = Operation::ALL.map(|operation| (operation.name(), numbers(&limits, operation)));
        assert_eq!(
            table,
            [
                ("run", (1000, 200)),
                ("runsync", (2000, 400)),
                ("status", (2000, 400)),
                ("status-sync", (2000, 400)),
                ("stream", (2000, 400)),
                ("events", (2000, 400)),
                ("events-url", (2000, 400)),
                ("cancel", (100, 20)),
                ("retry", (0, 0)),
                ("purge-queue", (2, 0)),
                ("health", (0, 0)),
                ("requests", (10, 2)),
                ("delete", (100, 20)),
                ("model", (2000, 400)),
                ("tokens", (2000, 400)),
            ]
        );
    }

    #[test]
    fn an_exception_changes_one_limit_and_no_other() {
        let limits: RateLimits = "run=5/2, cancel=7,status=off,unauthorized=3,keyless=9".parse().unwrap();
        assert_eq!(numbers(&limits, Operation::Run), (5, 2));
        assert_eq!(numbers(&limits, Operation::Cancel), (7, 0));
        assert_eq!(numbers(&limits, Operation::Status), (0, 0));
        assert_eq!(numbers(&limits, Operation::RunSync), (2000, 400));
        assert_eq!((limits.unauthorized, limits.keyless), (NonZeroU32::new(3), NonZeroU32::new(9)));
        assert_eq!("".parse(), Ok(RateLimits::default()));
        assert_eq!("off".parse(), Ok(RateLimits::OFF));
    }

    #[test]
    fn a_bad_limit_is_refused_and_named() {
        for text in [
            "on",
            "run",
            "run=",
            "run=0",
            "run=1/0",
            "run=-1",
            "run=1/2/3",
            "unauthorized=1/2",
            "keyless=1/2",
        ] {
            assert!(text.parse::<RateLimits>().is_err(), "{text}");
        }
        let error = "runs=1".parse::<RateLimits>().unwrap_err();
        assert!(error.starts_with("unknown operation runs; choose from run, runsync,"), "{error}");
    }
}
