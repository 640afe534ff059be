//! The contract's operations: where each is found, how it is asked for, what it is called.
//!
//! The route table, the request limits and the OpenAPI document all go by this list.

use actix_web::guard;

/// Something that a client can ask of an endpoint.
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
}

impl Operation {
    pub const ALL: [Self; 12] = [
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
    ];

    /// Its name in the contract, in settings and in sentences.
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
        }
    }

    /// Its path below the endpoint's.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Run => "/run",
            Self::RunSync => "/runsync",
            Self::Status => "/status/{id}",
            Self::StatusSync => "/status-sync/{id}",
            Self::Stream => "/stream/{id}",
            Self::Events => "/events/{id}",
            Self::EventsUrl => "/events/{id}/url",
            Self::Cancel => "/cancel/{id}",
            Self::Retry => "/retry/{id}",
            Self::PurgeQueue => "/purge-queue",
            Self::Health => "/health",
            Self::Requests => "/requests",
        }
    }

    pub(super) fn methods(self) -> Methods {
        match self {
            Self::Run | Self::RunSync | Self::EventsUrl | Self::Retry | Self::PurgeQueue => Methods::Post,
            Self::Status | Self::StatusSync | Self::Stream | Self::Cancel => Methods::GetOrPost,
            Self::Events | Self::Health | Self::Requests => Methods::Get,
        }
    }
}

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Methods {
    /// And HEAD, which is GET without the body.
    Get,
    Post,
    GetOrPost,
}

impl Methods {
    pub(super) fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::GetOrPost => "GET, HEAD, POST",
        }
    }

    pub(super) fn guard(self) -> impl guard::Guard {
        let takes_get = self.takes_get();
        let takes_post = self.takes_post();
        guard::fn_guard(move |context| match context.head().method.as_str() {
            "GET" | "HEAD" => takes_get,
            "POST" => takes_post,
            _ => false,
        })
    }

    pub(super) fn takes_get(self) -> bool {
        self != Self::Post
    }

    pub(super) fn takes_post(self) -> bool {
        self != Self::Get
    }
}
