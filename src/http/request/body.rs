//! Reads a request body, within limits of size, rate and memory.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{self, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{Api, ApiError, Connection, freed_memory};

/// The contract's limits on a body's size.
pub const RUN_LIMIT: usize = 10 * 1024 * 1024;
pub const RUNSYNC_LIMIT: usize = 20 * 1024 * 1024;

/// So much of a body must arrive in each [`WINDOW`], if it has not ended by then. That serves slow lines and drops clients
/// that drip bytes to hold memory and a connection.
const BYTES_A_WINDOW: usize = 15 * 16 * 1024;
const WINDOW: Duration = Duration::from_secs(15);
/// How much beyond the limit is read and thrown away. Many clients write the whole request before they read: without
/// this they would see a broken pipe instead of the reason.
const DRAINED: usize = 32 * 1024 * 1024;
/// Bodies up to this size always have room: there cannot be more of them than connections.
const SMALL: usize = 16 * 1024;

/// The memory for all bodies together. Clones share it.
#[derive(Clone)]
pub struct BodyMemory(
    /// In KiB.
    Arc<Semaphore>,
);

/// Counts a body. Keep it as long as the body, or what was made of it, is in memory.
#[derive(Debug, Default)]
pub struct Held(Option<OwnedSemaphorePermit>);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|permit| permit.num_permits() * 1024 >= freed_memory::LARGE) {
            freed_memory::note();
        }
    }
}

/// A whole body.
pub struct Body {
    pub bytes: Bytes,
    pub held: Held,
}

impl BodyMemory {
    /// `limit`: in bytes.
    pub fn new(limit: u64) -> Self {
        let kib = usize::try_from(limit / 1024).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))))
    }

    /// Adds `bytes` to what is held. False: there is no room.
    fn hold(&self, held: &mut Held, bytes: usize) -> bool {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.0).try_acquire_many_owned(kib) else { return false };
        match &mut held.0 {
            Some(permit) => permit.merge(more),
            None => held.0 = Some(more),
        }
        true
    }
}

/// Reads the whole body, and keeps at most `limit` bytes in memory however it is sent.
pub async fn read(request: &HttpRequest, mut payload: web::Payload, limit: usize) -> Result<Body, ApiError> {
    let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let length = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if length.is_some_and(|length| length > limit.saturating_add(DRAINED)) {
        return Err(ApiError::BodyTooLarge { limit });
    }
    let _receiving = request.conn_data::<Connection>().map(|connection| connection.receive(announced));

    let mut kept = Kept::new(&api.body_memory, limit);
    if let Some(length) = length {
        kept.expect(length);
    }
    let (mut window, mut received, mut before) = (Instant::now(), 0_usize, 0);
    loop {
        let chunk = match timeout_at(window + WINDOW, payload.next()).await {
            Err(_) => return Err(ApiError::BodyTooSlow),
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(ApiError::BadRequest(
                    "The connection ended before the request body did.".to_owned(),
                ));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        received = received.saturating_add(chunk.len());
        if received - before >= BYTES_A_WINDOW {
            (window, before) = (Instant::now(), received);
        }
        kept.push(&chunk);
        if received > limit.saturating_add(DRAINED) {
            break;
        }
    }
    kept.finish(received)
}

/// What is kept of a body that arrives.
struct Kept<'a> {
    memory: &'a BodyMemory,
    limit: usize,
    bytes: BytesMut,
    held: Held,
    /// For how many bytes there is room.
    room: usize,
    /// Set if the body is thrown away for want of room.
    has_no_room: bool,
}

impl<'a> Kept<'a> {
    fn new(memory: &'a BodyMemory, limit: usize) -> Self {
        let (bytes, held) = Default::default();
        Self { memory, limit, bytes, held, room: SMALL, has_no_room: false }
    }

    /// Takes room for a body of this length, if it will be kept.
    fn expect(&mut self, length: usize) {
        if length <= self.room || length > self.limit || self.has_no_room {
            return;
        }
        if self.memory.hold(&mut self.held, length - self.room) {
            self.room = length;
            self.bytes.reserve(length - self.bytes.len());
        } else {
            self.has_no_room = true;
        }
    }

    fn push(&mut self, chunk: &[u8]) {
        let length = self.bytes.len() + chunk.len();
        if length > self.room {
            // It did not say how long it is. Each time there is room for as much again.
            self.expect((2 * length).min(self.limit).max(length));
        }
        if length > self.limit || self.has_no_room {
            self.bytes = BytesMut::new();
            self.held = Held::default();
            self.room = 0;
            self.has_no_room = true;
        } else {
            self.bytes.extend_from_slice(chunk);
        }
    }

    fn finish(self, received: usize) -> Result<Body, ApiError> {
        if received > self.limit {
            return Err(ApiError::BodyTooLarge { limit: self.limit });
        }
        if self.has_no_room {
            return Err(ApiError::TooManyBodies);
        }
        Ok(Body { bytes: self.bytes.freeze(), held: self.held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn receive(memory: &BodyMemory, announced: Option<usize>, length: usize) -> Result<Body, String> {
        let mut kept = Kept::new(memory, 4 * MIB);
        if let Some(announced) = announced {
            kept.expect(announced);
        }
        let body = vec![b'x'; length];
        body.chunks(10_000).for_each(|chunk| kept.push(chunk));
        kept.finish(length).map_err(|error| error.to_string())
    }

    #[test]
    fn bodies_share_their_memory_and_give_it_back() {
        let memory = BodyMemory::new(6 << 20);
        for announced in [Some(4 * MIB), None] {
            let first = receive(&memory, announced, 4 * MIB).unwrap();
            assert_eq!(first.bytes.len(), 4 * MIB);
            let busy = "The server receives too many request bodies at once: try again in 2 s.";
            for announced in [Some(3 * MIB), None] {
                assert_eq!(receive(&memory, announced, 3 * MIB).map(|_| ()), Err(busy.to_owned()));
            }
            let second = receive(&memory, Some(MIB), MIB).unwrap();
            // Small ones always have room.
            assert!(receive(&BodyMemory::new(0), announced.map(|_| SMALL), SMALL).is_ok());
            drop((first, second));
        }
        assert!(receive(&memory, Some(4 * MIB), 4 * MIB).is_ok());
        assert_eq!(memory.0.available_permits(), 6 * 1024);
    }

    #[test]
    fn a_body_over_the_limit_takes_no_room() {
        let memory = BodyMemory::new(MIB as u64);
        let error = receive(&memory, Some(5 * MIB), 5 * MIB).map(|_| ()).unwrap_err();
        assert_eq!(error, "The request body is too large: this operation accepts up to 4194304 bytes.");
        assert_eq!(memory.0.available_permits(), 1024);
    }
}
