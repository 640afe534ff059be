//! The server around the routes: threads, and the bounds on what a connection may take.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::{NormalizePath, TrailingSlash, from_fn};
use actix_web::{App, HttpServer, web};

use super::access_log::access_log;
use super::{Api, routes};

/// How much of the machine the server takes.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    pub threads: usize,
    /// At once, over all threads.
    pub connections: usize,
    /// So long an answer under way may take once the server is to stop.
    pub shutdown_timeout: Duration,
}

/// Starts to serve on a bound socket; the returned future ends once it is stopped by its handle.
/// Signals are the caller's.
pub fn serve(listener: TcpListener, api: web::Data<Api>, limits: ServerLimits) -> io::Result<Server> {
    let threads = limits.threads.max(1);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            // Repeated slashes collapse before the routes are looked at; one at the end goes.
            .wrap(NormalizePath::new(TrailingSlash::Trim))
            .wrap(from_fn(access_log))
            .configure(routes)
    })
    .workers(threads)
    .max_connections(limits.connections.div_ceil(threads))
    // A client has so long to send its headers; bodies are timed where they are read.
    .client_request_timeout(Duration::from_secs(10))
    // How long a connection lingers for a client that was answered before it had sent all.
    .client_disconnect_timeout(Duration::from_secs(2))
    .keep_alive(Duration::from_secs(75))
    .shutdown_timeout(limits.shutdown_timeout.as_secs().max(1))
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}
