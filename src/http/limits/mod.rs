//! How much each caller may ask for: in a window of 10 seconds, and at once.
//!
//! [`RateLimits`] is what the operator sets, [`Limiter`] keeps count. Windows are a matter of rate
//! (GCRA, by `governor`): who stays within a limit in every 10 seconds is never refused, who uses it
//! up at once gets it back bit by bit over the next 10. What runs at once is held by a [`Turn`],
//! which ends when it is dropped, so that a long wait counts once and for as long as it lasts.

mod caller;
mod limiter;
mod settings;
mod strangers;

pub use caller::Caller;
pub(super) use caller::address;
pub use limiter::{Limiter, Refusal, Turn};
pub use settings::{Limit, RateLimits};

use std::time::Duration;

/// The contract's window.
const WINDOW: Duration = Duration::from_secs(10);

/// `limit` in each window, by rate, all of it available at first.
fn quota(limit: std::num::NonZeroU32) -> governor::Quota {
    // Never none: the period of one request is a part of ten seconds, and more than nothing.
    governor::Quota::with_period((WINDOW / limit.get()).max(Duration::from_nanos(1)))
        .unwrap_or(governor::Quota::per_second(limit))
        .allow_burst(limit)
}

/// A wait in whole seconds, as `Retry-After` has it, and never none.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
