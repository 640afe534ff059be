//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.
//!
//! # One request, eight stops
//!
//! 1. [`http`] routes `POST /v2/{endpoint}/run`. The `Endpoint` extractor checks the key, the caller's limits and that
//!    the endpoint exists.
//! 2. The body's `input` is parsed to check it: a [`domain::GenerationInput`], or an error that names every violation.
//!    The row stores the JSON as it was sent, and the seed, which is drawn if there is none. The worker parses the JSON
//!    again: only the row survives a restart, and the endpoint may have another model by then.
//!    (Requests to another program's API, a surface, are translated into such an input first: `http::surface`.)
//! 3. [`queue::JobQueue::submit`] commits the row, wakes the endpoint's idle workers and returns the id. `runsync` then
//!    waits in [`queue::JobQueue::wait`].
//! 4. [`worker::Worker::tick`] loads its engine if need be, from a model that [`diffusion::Model::open`] read when the
//!    server started ([`engine::Residency`] decides who may use the device's memory). It claims the job: one committed
//!    `update … returning`. No transaction stays open while it works. Input pictures that are URLs are fetched by
//!    [`fetch`], and LoRAs are merged, beside the jobs that run.
//! 5. [`diffusion::Pipeline::begin`], called through [`engine::Engine`], encodes the prompt and draws the noise: a
//!    [`diffusion::Generation`].
//! 6. [`diffusion::Pipeline::step`] runs the UNet for all jobs in the batch, and then each job's own scheduler. Between
//!    steps the worker looks at cancel, timeout and shutdown, publishes progress, and saves where long jobs are. A later
//!    attempt at such a job goes on from there.
//! 7. [`diffusion::Pipeline::finish`] decodes to PNG. [`queue::ClaimedJob::complete`] writes pictures and state in one
//!    transaction, if the job still belongs to this attempt, and wakes those who wait. (Pictures for a client's own
//!    bucket are first uploaded by [`fetch`], while other jobs go on.)
//! 8. `status` reads the row, or the copy of it that the store keeps in memory, and the image route serves the bytes.
//!    [`webhooks`] posts the message that the same transaction put into the outbox. [`sweeper`] deletes all of it in time.
//!
//! `stablehand generate` parses the input, begins once, steps in a loop and finishes, without a queue.
//!
//! # Who may import whom
//!
//! A room is a module with a row in this table. Its production code may import itself and the rooms in its row; test
//! code may import anything. `tests/imports.rs` reads this table and checks it.
//!
//! | room | may import | owns |
//! |---|---|---|
//! | `domain` | | values: jobs, inputs, policies |
//! | `private_dir` | | creating folders that only their owner may read |
//! | `size_text` | | sizes in bytes as text for people |
//! | `kernels` | | our own inner loops for the processor, as operators of ONNX Runtime |
//! | `runtime` | `kernels` `private_dir` | ONNX Runtime, devices and their memory |
//! | `metrics` | `domain` | what is counted and timed |
//! | `traces` | `domain` `fetch` | spans for a collector of OpenTelemetry |
//! | `wire` | `domain` | the status body and the signed URLs in it |
//! | `redirects` | `domain` | how a call follows a redirect |
//! | `fetch` | `domain` `redirects` | calls to hosts that clients name |
//! | `hub` | `domain` `fetch` `private_dir` `redirects` `size_text` | models from where people publish them |
//! | `library` | `domain` `fetch` `hub` `size_text` | the models of a running server: what is here, pulls, checks, removal |
//! | `store` | `domain` `metrics` `private_dir` | the only SQL |
//! | `queue` | `domain` `metrics` `store` `traces` | where HTTP and the workers meet |
//! | `engine` | `domain` `runtime` | the traits of whatever draws, and who is in a device's memory |
//! | `diffusion` | `domain` `runtime` | the pipeline; knows no jobs, SQL or HTTP |
//! | `diffusion::image` | `domain` | pixels and PNG files |
//! | `diffusion::bytes` | | numbers and arrays as bytes |
//! | `diffusion::noise` | `domain` `diffusion::bytes` | torch's random numbers |
//! | `diffusion::schedulers` | `domain` `diffusion::bytes` `diffusion::noise` | a file for each scheduler |
//! | `diffusion::text` | `domain` | tokenizer, prompt grammar, chunks, learned words |
//! | `diffusion::files` | `domain` `diffusion::schedulers` `diffusion::text` | weights, key names, LoRAs, configurations |
//! | `diffusion::nets` | `domain` `runtime` `diffusion::files` `diffusion::image` `diffusion::noise` `diffusion::text` | sessions and what runs in them |
//! | `diffusion::pipeline` | `domain` `runtime` `diffusion::bytes` `diffusion::files` `diffusion::image` `diffusion::nets` `diffusion::noise` `diffusion::schedulers` `diffusion::text` | open, begin, step, finish |
//! | `worker` | `domain` `engine` `fetch` `metrics` `queue` `traces` | claim → begin → step → finish → complete |
//! | `webhooks` | `domain` `metrics` `queue` `traces` `wire` | delivery of the outbox |
//! | `sweeper` | `queue` | when expired jobs are deleted |
//! | `agent` | `domain` `queue` | what HAProxy hears of how busy the server is |
//! | `http` | `domain` `library` `metrics` `queue` `wire` | the server and its route table |
//! | `http::request` | `domain` `library` `metrics` `queue` `traces` `wire` | what every request goes through |
//! | `http::native` | `diffusion::image` `domain` `queue` `wire` `http::request` `http::surface` | the hosted service's API |
//! | `http::surface` | `domain` `diffusion::image` `queue` `wire` `http::request` | what the other APIs have in common |
//! | `http::openai` | `diffusion::image` `domain` `wire` `http::request` `http::surface` | OpenAI's Images API |
//! | `http::a1111` | `diffusion::image` `domain` `queue` `wire` `http::request` `http::surface` | A1111's web UI API |
//! | `http::huggingface` | `diffusion::image` `domain` `http::request` `http::surface` | Hugging Face's text-to-image and image-to-image |
//! | `http::mcp` | `diffusion::image` `domain` `http::docs` `http::request` `http::surface` | the Model Context Protocol |
//! | `http::page` | `http::request` | the page to draw on |
//! | `http::docs` | `domain` `library` `wire` `http::native` `http::request` | what the server says about itself |
//! | `secrets` | `webhooks` | keys that are kept in the data folder |
//! | `config` | `diffusion` `domain` `fetch` `http` `queue` `runtime` `webhooks` | every setting |
//! | `app` | `agent` `config` `diffusion` `domain` `engine` `fetch` `http` `library` `metrics` `private_dir` `queue` `runtime` `secrets` `sweeper` `webhooks` `wire` `worker` | the server put together; its `diffusion_engine` makes the pipeline an engine |
//! | `cli` | `app` `config` `diffusion` `domain` `fetch` `hub` `runtime` `secrets` `size_text` `store` `traces` | a file for each command |

pub mod agent;
pub mod app;
pub mod cli;
pub mod config;
pub mod diffusion;
pub mod domain;
pub mod engine;
pub mod fetch;
pub mod http;
pub mod hub;
pub mod kernels;
pub mod library;
pub mod metrics;
pub mod private_dir;
pub mod queue;
pub mod redirects;
pub mod runtime;
pub mod secrets;
pub mod size_text;
pub mod store;
pub mod sweeper;
pub mod traces;
pub mod webhooks;
pub mod wire;
pub mod worker;
