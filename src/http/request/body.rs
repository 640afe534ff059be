//! Reads a request body, within limits of size and time.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{self, Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::ApiError;

/// The contract's limits on a body's size.
pub const RUN_LIMIT: usize = 10 * 1024 * 1024;
pub const RUNSYNC_LIMIT: usize = 20 * 1024 * 1024;

/// A body has this long to arrive, plus a second for each `BYTES_A_SECOND` received. That serves slow lines and drops
/// clients that drip bytes to hold a connection.
const PATIENCE: Duration = Duration::from_secs(15);
const BYTES_A_SECOND: usize = 16 * 1024;
/// How much beyond the limit is read and thrown away. Many clients write the whole request before they read: without
/// this they would see a broken pipe instead of the reason.
const DRAINED: usize = 32 * 1024 * 1024;

/// Reads the whole body, and keeps at most `limit` bytes in memory however it is sent.
pub async fn read(request: &HttpRequest, mut payload: web::Payload, limit: usize) -> Result<Bytes, ApiError> {
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit.saturating_add(DRAINED)) {
        return Err(ApiError::BodyTooLarge { limit });
    }

    let start = Instant::now();
    let mut received = 0_usize;
    let mut body = BytesMut::new();
    loop {
        let earned = Duration::from_secs((received / BYTES_A_SECOND) as u64);
        let chunk = match timeout_at(start + PATIENCE + earned, payload.next()).await {
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
        if received <= limit {
            body.extend_from_slice(&chunk);
        } else {
            body = BytesMut::new();
        }
        if received > limit.saturating_add(DRAINED) {
            break;
        }
    }
    if received > limit { Err(ApiError::BodyTooLarge { limit }) } else { Ok(body.freeze()) }
}
