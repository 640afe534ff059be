//! The server around the routes: its threads, and the limits on connections.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_cors::Cors;
use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_server::Server;
use actix_service::{ServiceFactoryExt as _, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::middleware::{Condition, NormalizePath, TrailingSlash, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::{App, web};

use super::pulse::Pulse;
use super::request::{Api, Patience, Stream, Visitors, observe};
use super::routes::{SurfaceStates, routes};

/// How much of the machine the server uses.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    pub threads: usize,
    /// Open at once, over all threads.
    pub connections: usize,
    /// Open at once from one address.
    pub connections_of_one: usize,
    /// How long running requests may take once the server stops.
    pub shutdown_timeout: Duration,
}

/// How long clients may make the server wait. actix-web times the first head itself, and connections without a request.
const PATIENCE: Patience = Patience {
    idle: Duration::from_secs(90),
    head: Duration::from_secs(15),
    answer: Duration::from_secs(30),
};

/// Starts to serve on a bound socket. The returned server is a future that ends when its handle stops it. The caller handles
/// signals.
pub fn serve(
    listener: TcpListener,
    api: web::Data<Api>,
    cors_origins: &[String],
    limits: ServerLimits,
) -> io::Result<(Server, Pulse)> {
    let cors_origins = cors_origins.to_vec();
    let surfaces = api.settings.surfaces.clone();
    let states = SurfaceStates::new(&api);
    let threads = limits.threads.max(1);
    let proxies = api.settings.trusted_proxies.clone();
    let visitors = Visitors::new(limits.connections, limits.connections_of_one, proxies);
    let pulse = Pulse::new(visitors.clone());
    let beating = pulse.clone();
    let address = listener.local_addr()?;
    // On each of the server's threads.
    let service = move || {
        beating.begin();
        let app = App::new()
            .app_data(api.clone())
            // Before routing: repeated slashes collapse, and a trailing slash is removed.
            .wrap(NormalizePath::new(TrailingSlash::Trim))
            .wrap(Condition::new(!cors_origins.is_empty(), cors(&cors_origins)))
            .wrap(from_fn(observe))
            .configure(|config| routes(config, &surfaces, &states));
        let stopping = api.stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let mut stopping = stopping.clone();
                async move { drop(stopping.wait_for(|stopping| *stopping).await) }
            })
            // For the headers; bodies are timed where they are read.
            .client_request_timeout(Duration::from_secs(10))
            // How long a connection stays open for a client that was answered before it had sent everything.
            .client_disconnect_timeout(Duration::from_secs(2))
            // A client that closes its connection drops its request: pictures that nobody waits for are not drawn.
            .h1_allow_half_closed(false)
            .keep_alive(Duration::from_secs(75))
            .local_addr(address)
            .on_connect_ext(|stream: &Stream, data| drop(data.insert(stream.connection().clone())))
            .h1(map_config(app, |()| AppConfig::default()));
        let visitors = visitors.clone();
        fn_service(move |tcp: TcpStream| ready(accept(tcp, &visitors))).and_then(http)
    };
    let server = Server::build()
        .workers(threads)
        .max_concurrent_connections(limits.connections.div_ceil(threads))
        .shutdown_timeout(limits.shutdown_timeout.as_secs().max(1))
        .disable_signals()
        .listen("http", listener, service)?;
    Ok((server.run(), pulse))
}

fn accept(tcp: TcpStream, visitors: &Visitors) -> Result<(Stream, Option<SocketAddr>), DispatchError> {
    let peer = tcp.peer_addr()?;
    let place = visitors.enter(peer.ip()).ok_or(DispatchError::DisconnectTimeout)?;
    // An answer in several pieces, such as one with events, would wait 40 ms for the client to acknowledge the first one.
    tcp.set_nodelay(true)?;
    Ok((Stream::new(tcp, PATIENCE, place), Some(peer)))
}

/// Lets pages of these origins send requests and read answers. The API uses no cookies, so none are allowed.
fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "DELETE"])
        .allow_any_header()
        .expose_headers(["retry-after", "x-request-id", "x-stablehand-node", "mcp-session-id"])
        .max_age(3600);
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}
