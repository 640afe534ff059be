//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.
//!
//! # One request, eight stops
//!
//! 1. [`http`] routes `POST /v2/{endpoint}/run`; the `ApiKey` extractor lets it in.
//! 2. The body becomes a [`domain::GenerationInput`], or an error that names every violation.
//! 3. [`queue::JobQueue::submit`] commits the row, wakes a worker, answers the id. `runsync` waits here.
//! 4. [`worker`] loads its model if that is not loaded (others leave if need be: [`engine::Residency`]) and claims:
//!    one committed `update … returning`; no transaction stays open while it works.
//! 5. [`diffusion::Pipeline::begin`] tokenises, encodes and draws the noise: a [`diffusion::Generation`].
//! 6. [`diffusion::Pipeline::step`] runs the UNet for everything in the batch, then each generation's own
//!    scheduler. Between steps the worker looks at cancel, timeout and shutdown, and publishes progress.
//! 7. [`diffusion::Pipeline::finish`] decodes to PNG; `ClaimedJob::complete` writes pictures and state in
//!    one transaction, and only if the job is still this attempt's. Waiters wake. (Pictures for a client's own
//!    bucket are uploaded by [`fetch`] before, beside the jobs that go on.)
//! 8. `status` reads the row; the image route serves the bytes; [`webhooks`] posts what that transaction put
//!    into the outbox; [`sweeper`] forgets all of it in time.
//!
//! `stablehand generate` is stops 5 to 7 in a loop, without the rest.
//!
//! # Who may import whom
//!
//! One direction only: `domain ← store ← queue ← {http, worker, sweeper, webhooks} ← app ← cli`. [`wire`] (the status
//! body and the signed URLs in it) stands on `domain` and serves whoever shows a job to the outside.
//! [`metrics`] (what is counted and timed) stands on `domain` as well; the queue carries it to whoever counts.
//! [`diffusion`] stands beside the queue, on [`runtime`] (ONNX Runtime and devices) and `domain`, and is seen
//! by `worker` and `cli` alone; which device a model is on, and how full that is, `app` knows too. [`fetch`] (calls
//! to what clients name) stands on `domain`; [`hub`] (models from where people publish them, by the operator's own
//! calls) likewise, and is seen by `cli` alone. Both follow [`redirects`] in the same way. Siblings do not import each
//! other.

pub mod app;
pub mod cli;
pub mod config;
pub mod diffusion;
pub mod domain;
pub mod engine;
pub mod fetch;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod queue;
pub mod redirects;
pub mod runtime;
pub mod secrets;
pub mod store;
pub mod sweeper;
pub mod webhooks;
pub mod wire;
pub mod worker;
