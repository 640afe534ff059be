//! ONNX Runtime's real CUDA provider on a pretended card: what works on the host, works with a card.
//!
//! `tests/cuda/install` makes the card, and the README beside it says what it can prove and what it cannot:
//!
//!     tests/cuda/install && cargo test --test cuda -- --ignored

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod budgets;
mod card;
mod controlled;
#[path = "../golden/controlnets.rs"]
mod controlnets;
#[path = "../models/folders.rs"]
#[expect(dead_code, reason = "shared with tests/models, which uses more of it")]
mod folders;
mod forms;
mod full;
mod full_size;
mod graphs;
#[path = "../models/onnx.rs"]
#[expect(dead_code, reason = "shared with tests/models, which uses more of it")]
mod onnx;
#[path = "../process/helpers.rs"]
#[expect(dead_code, reason = "shared with tests/process, which uses more of it")]
mod process;
mod profile;
