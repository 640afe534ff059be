//! What a client can ask for, by the names that settings, limits and messages use.
//!
//! Every API maps its routes to this list, so that one set of limits covers them all.

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Run,
    RunSync,
    Status,
    StatusSync,
    Stream,
    Events,
    EventsUrl,
    Cancel,
    Retry,
    PurgeQueue,
    Health,
    Requests,
    Delete,
    Model,
    Tokens,
}

impl Operation {
    pub const ALL: [Self; 15] = [
        Self::Run,
        Self::RunSync,
        Self::Status,
        Self::StatusSync,
        Self::Stream,
        Self::Events,
        Self::EventsUrl,
        Self::Cancel,
        Self::Retry,
        Self::PurgeQueue,
        Self::Health,
        Self::Requests,
        Self::Delete,
        Self::Model,
        Self::Tokens,
    ];

    /// The operation's name in the contract, in settings and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::RunSync => "runsync",
            Self::Status => "status",
            Self::StatusSync => "status-sync",
            Self::Stream => "stream",
            Self::Events => "events",
            Self::EventsUrl => "events-url",
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::PurgeQueue => "purge-queue",
            Self::Health => "health",
            Self::Requests => "requests",
            Self::Delete => "delete",
            Self::Model => "model",
            Self::Tokens => "tokens",
        }
    }
}
