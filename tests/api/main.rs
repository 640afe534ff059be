//! The HTTP API from outside, over a real socket, with a real queue in a temporary folder. The engine follows a script
//! instead of drawing.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(clippy::needless_pass_by_value, reason = "`json!(…)` reads better without a borrow")]

mod a1111;
mod arbitrary;
mod auth;
mod bodies;
mod cancel;
mod client;
mod command_line;
mod connections;
mod delete;
mod docs;
mod endpoints;
mod engine;
mod events;
mod guide;
mod headers;
mod health;
mod helpers;
mod huggingface;
mod idempotency;
mod image;
mod library;
mod limits;
mod mcp;
mod metrics;
mod model;
mod nodes;
mod openai;
mod overhead;
mod page;
mod paths;
mod policy;
mod probes;
mod provider;
mod proxies;
mod purge_queue;
mod requests;
mod retry;
mod run;
mod runsync;
mod s3;
mod settings;
mod shutdown;
mod status;
mod stream;
mod surfaces;
mod tokens;
mod webhook;
mod withheld;
