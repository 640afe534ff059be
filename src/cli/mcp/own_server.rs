//! A server for one chat program alone, in this process: on a free port of this machine, with a key that nobody else has,
//! and a data folder that is deleted at the end. Models, LoRAs and runtimes are those of the user's own data folder.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::oneshot;
use ureq::tls::RootCerts;
use uuid::Uuid;

use super::bridge::Bridge;
use crate::app::App;
use crate::cli::Failure;
use crate::cli::serve::endpoint;
use crate::cli::signals::termination;
use crate::config::{Access, Config, ServeArgs};
use crate::domain::Clock;
use crate::runtime::{RuntimesDir, use_installed};

/// How long a model stays loaded without a job, if no setting says so. A chat may go on for days.
const UNLOAD_AFTER: Duration = Duration::from_mins(10);

pub(super) fn run(settings: ServeArgs) -> Result<(), Failure> {
    let config = settings.into_config()?;
    let devices = config.endpoints.iter().map(|endpoint| endpoint.device);
    use_installed(RuntimesDir::in_data_dir(&config.data_dir), devices);
    let folder = tempfile::Builder::new().prefix("stablehand-mcp-").tempdir();
    let folder =
        folder.map_err(|error| Failure::Other(format!("cannot make a temporary folder: {error}")))?;
    let key = Uuid::new_v4().simple().to_string();
    let config = private(config, folder.path(), &key)?;
    let endpoints =
        config.endpoints.iter().map(|one| endpoint(&config, one)).collect::<Result<Vec<_>, _>>()?;
    let app =
        App::build(&config, endpoints, Clock::system()).map_err(|error| Failure::Other(error.to_string()))?;
    let bridge = Arc::new(Bridge::new(&app.local_url(), Some(key), RootCerts::WebPki));
    let (closed, is_closed) = oneshot::channel::<()>();
    let carry = move || {
        bridge.carry(io::stdin().lock());
        drop(closed);
    };
    actix_web::rt::System::new()
        .block_on(async {
            let stop = termination()?;
            thread::Builder::new().name("mcp".to_owned()).spawn(carry)?;
            app.run_until_stopped(async {
                match select(std::pin::pin!(stop), is_closed).await {
                    Either::Left(_) | Either::Right(_) => {}
                }
            })
            .await
        })
        .map_err(|error| Failure::Other(error.to_string()))
}

/// The settings of a server that only this process uses.
fn private(config: Config, data_dir: &std::path::Path, key: &str) -> Result<Config, Failure> {
    let mut http = config.http;
    http.surfaces = "mcp".parse().map_err(Failure::Other)?;
    http.open_surfaces = "".parse().map_err(Failure::Other)?;
    http.rate_limits = "off".parse().map_err(Failure::Other)?;
    http.cors_origins = Vec::new();
    http.hosts = Vec::new();
    http.node = None;
    let endpoints = config.endpoints.into_iter().map(|mut endpoint| {
        endpoint.preload = false;
        endpoint
    });
    Ok(Config {
        endpoints: endpoints.collect(),
        unload_after: config.unload_after.or(Some(UNLOAD_AFTER)),
        listen: ([127, 0, 0, 1], 0).into(),
        public_url: None,
        agent_listen: None,
        access: Access::Keys(vec![key.to_owned()]),
        http,
        data_dir: data_dir.to_owned(),
        // Nobody comes back for a picture.
        shutdown_grace: Duration::ZERO,
        ..config
    })
}
