//! What the surfaces have in common. Each surface turns its own words into the `input` of an ordinary job; this room does
//! the rest, once for all of them.
//!
//! In: `body` and `form` read what was sent, `fields` its loose types, `upload` pictures, `size` sizes beyond the limit,
//! `translation` makes the job. Out: `drawing` submits it, waits, and forgets it; `picture` enlarges and encodes; `files`
//! serves such pictures by URL. `error` says why there is none. `heavy` keeps large work off the server's threads. `dialect`
//! says what a surface is, and `visitor` who may use it.
//!
//! Nothing here knows a field of any surface, or the form of its errors.

pub(super) mod body;
mod dialect;
mod drawing;
mod error;
mod fields;
pub(super) mod files;
mod form;
mod heavy;
mod picture;
mod size;
mod translation;
pub(super) mod upload;
mod visitor;

pub use dialect::{Dialect, options, route};
pub use drawing::{Drawing, Moment, NotDrawn};
pub use error::SurfaceError;
pub use fields::{FieldError, Fields};
pub use form::Form;
pub use heavy::heavy;
pub use picture::Finish;
pub use size::{Canvas, MAX_SIDE, MAX_TOTAL, SHORTEST, fit_together, read_size};
pub use translation::Translation;
pub use visitor::Visitor;
