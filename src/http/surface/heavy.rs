//! Work that needs much memory or time: pixels, and large bodies. It runs on threads for blocking work.
//!
//! Only a few pieces run at once: each may need hundreds of megabytes, and the cores are for the engines.

use tokio::sync::Semaphore;

use crate::http::request::ApiError;

static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Runs `work` when it is its turn.
pub async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let turn = AT_ONCE.acquire().await;
    let work = move || {
        // Until the work is done, even if the client has gone by then.
        let _turn = turn;
        work()
    };
    actix_web::web::block(work).await.map_err(|error| {
        tracing::error!(%error, "work on a request ended early");
        ApiError::Internal
    })
}
