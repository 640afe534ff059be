//! `stablehand serve`: the server, until a signal stops it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use super::Failure;
use super::open_model::open_model;
use super::signals::termination;
use crate::app::{App, Endpoint, PipelineModel};
use crate::config::{Access, Config, EndpointConfig, LogFormat, ServeArgs};
use crate::domain::Clock;
use crate::runtime::{DeviceChoice, Runtime, RuntimesDir, use_installed};
use crate::traces::{Traces, is_trace};

pub(super) fn serve(args: ServeArgs) -> Result<(), Failure> {
    let traces = start_log(&args)?;
    let config = args.into_config()?;
    let devices = config.endpoints.iter().map(|endpoint| endpoint.device);
    use_installed(RuntimesDir::in_data_dir(&config.data_dir), devices);
    let endpoints =
        config.endpoints.iter().map(|one| endpoint(&config, one)).collect::<Result<Vec<_>, _>>()?;
    if let [only] = &config.endpoints[..]
        && matches!(only.device, DeviceChoice::Cuda(_))
    {
        // A card that cannot be used is no start: say so before anything is made or shown.
        Runtime::load(only.device)?;
    }
    let app =
        App::build(&config, endpoints, Clock::system()).map_err(|error| Failure::Other(error.to_string()))?;
    // A start that fails says one thing.
    for odd in config.oddities() {
        tracing::warn!("{}: {}", odd.finding, odd.remedy);
    }
    let outcome = actix_web::rt::System::new()
        .block_on(async {
            // Before the first word: who has read it may send a signal.
            let stop = termination()?;
            // A closed stdout is no reason not to serve.
            let _ = io::stdout().write_all(welcome(&app, &config).as_bytes());
            app.run_until_stopped(stop).await
        })
        .map_err(|error| Failure::Other(error.to_string()));
    traces.into_iter().for_each(Traces::finish);
    outcome
}

/// An endpoint with its model opened; its weights are not loaded yet.
pub(super) fn endpoint(
    config: &Config,
    endpoint: &EndpointConfig,
) -> Result<Endpoint<PipelineModel>, Failure> {
    let models_dir = || Ok(config.models_dir.clone());
    let model = open_model(endpoint.model.as_deref(), Some(config.add_ons.clone()), models_dir);
    let model = model.map_err(|failure| match &config.endpoints[..] {
        [_] => failure,
        _ => Failure::Other(format!("endpoint {}: {failure}", endpoint.id)),
    })?;
    let (rules, model_name) = (model.rules().clone(), model.name().to_owned());
    let model_path = model.path().map(Path::to_owned);
    let EndpointConfig { id, device, workers, preload, .. } = endpoint.clone();
    let memory_budget = config.memory_budget;
    let cpu = config.cpu.for_one_of(workers);
    let model = PipelineModel { endpoint: id.clone(), model, device, cpu, memory_budget };
    Ok(Endpoint { id, workers, rules, model_name, model_path, preload, model })
}

/// They log as errors what only clients did: those that speak no HTTP, and those that go before they are answered. Any
/// stranger could fill the log so.
const MALFORMED: &str = "actix_http::h1::dispatcher=off,rmcp=off";

/// Logs go to stderr, one line each. A bare level means this program's; libraries only warn. No filter makes libraries say
/// more than `info`: below it, HTTP clients write the URLs of requests, with the secrets in them. Traces go to a collector, if
/// one is named, and their spans are on no line.
pub(super) fn start_log(args: &ServeArgs) -> Result<Option<Traces>, Failure> {
    let filter = match args.log.as_str() {
        "error" | "warn" | "info" | "debug" | "trace" => {
            format!("warn,{MALFORMED},stablehand={}", args.log)
        }
        other => other.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter)
        .map_err(|_| Failure::Usage(format!("invalid value '{filter}' for '--log <FILTER>'")))?;
    let keeps_secrets = filter_fn(|line| {
        !is_trace(line) && (line.target().starts_with("stablehand") || *line.level() <= Level::INFO)
    });
    let keeps_secrets = keeps_secrets.with_max_level_hint(LevelFilter::TRACE);
    // Where standard error is closed, a line about that would go nowhere, and the attempt would end the thread.
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = match args.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let traces = args.otlp.as_deref().map(Traces::to).transpose().map_err(Failure::Other)?;
    let spans = traces.as_ref().map(Traces::layer);
    // Fails only where a test has a log already.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(keeps_secrets)))
        .with(spans)
        .try_init();
    Ok(traces)
}

/// Where the server listens, and a request to paste. The key is shown when it was made just now,
/// and to a person at a terminal; never to a log that collects stdout start after start.
fn welcome<M>(app: &App<M>, config: &Config) -> String {
    let url = app.local_url();
    let own_key = app.own_api_key();
    let place = own_key.map_or("", |_| " (its API key in the file api-key there)");
    let mut text =
        format!("stablehand listens on {url} and keeps its data in {}{place}\n", config.data_dir.display());
    for surface in config.http.surfaces.iter() {
        let key = match (&config.access, config.http.open_surfaces.contains(surface)) {
            (Access::Everybody, _) => "without a key",
            (_, true) => "with an API key; addresses in --open-surfaces need none",
            (_, false) => "with an API key",
        };
        let _ = writeln!(text, "{}, {key}: {url}{}", surface.title(), surface.path());
    }
    if !own_key.is_some_and(|key| key.is_new) && !io::stdout().is_terminal() {
        return text;
    }
    let key = own_key.map_or("$STABLEHAND_API_KEY", |key| &key.key);
    // Browsers send no fragment to a server, and the page takes it out of the address at once.
    let fragment = own_key.map_or_else(String::new, |key| format!("#key={}", key.key));
    let _ = writeln!(text, "Draw in a browser: {url}/{fragment}");
    let _ = write!(
        text,
        "Try it:\n\n  curl -X POST {url}/v2/{}/runsync \\\n      -H \"Authorization: Bearer {key}\" \\\n      \
         -H 'Content-Type: application/json' \\\n      -d '{{\"input\": {{\"prompt\": \"a rocket on a black background\"}}}}'\n\n",
        config.endpoints[0].id
    );
    text
}
