//! How much each caller may ask for: in a window of 10 seconds, and at once.
//!
//! The operator sets [`RateLimits`]; the [`Limiter`] counts. Windows limit the rate (GCRA, by `governor`): a caller
//! within the limit in every 10 seconds is never refused. A caller that spends the whole limit at once gets it back
//! evenly over the next 10 seconds. An [`InFlight`] guard counts a request as running until it is dropped, so a long
//! wait counts once, for as long as it lasts.

mod caller;
mod limiter;
mod lockout;
mod settings;

pub use caller::Caller;
pub(super) use caller::address;
pub(in crate::http) use caller::network;
pub use limiter::{InFlight, Limiter, Refusal};
pub use settings::{Limit, RateLimits};

use std::time::Duration;

/// The contract's window.
const WINDOW: Duration = Duration::from_secs(10);

/// `limit` requests in each window, all of them available at first.
fn quota(limit: std::num::NonZeroU32) -> governor::Quota {
    // Always some: the period of one request is a fraction of ten seconds and never zero.
    governor::Quota::with_period((WINDOW / limit.get()).max(Duration::from_nanos(1)))
        .unwrap_or(governor::Quota::per_second(limit))
        .allow_burst(limit)
}

/// A wait in whole seconds, as `Retry-After` needs it; at least 1.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
