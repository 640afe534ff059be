//! Where the native API serves each operation, and for which methods.
//!
//! The route table and the OpenAPI document both read it here.

use crate::http::request::{Methods, Operation};

impl Operation {
    /// The path below the endpoint's.
    pub(in crate::http) fn path(self) -> &'static str {
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
            Self::Delete => "/delete/{id}",
            Self::Model => "/model",
            Self::Tokens => "/tokens",
        }
    }

    pub(in crate::http) fn methods(self) -> Methods {
        match self {
            Self::Run
            | Self::RunSync
            | Self::EventsUrl
            | Self::Retry
            | Self::PurgeQueue
            | Self::Delete
            | Self::Tokens => Methods::Post,
            Self::Status | Self::StatusSync | Self::Stream | Self::Cancel => Methods::GetOrPost,
            Self::Events | Self::Health | Self::Requests | Self::Model => Methods::Get,
        }
    }
}
