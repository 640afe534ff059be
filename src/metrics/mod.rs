//! What the server counts and times, and the page that Prometheus reads.
//!
//! `app` makes one [`Metrics`] and hands it to everyone who counts. Numbers that can be read at any time (the queue's
//! [`Load`], the process) are read when the page is written. No label holds text that a client chose: routes are
//! patterns, and endpoints are the configured ones.

mod load;
mod process;

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::domain::{EndpointId, JobStatus};
pub use load::{Load, WorkerLoad};
use process::Process;

/// Counters and timings since the start. A clone counts into the same ones. Counting is cheap and never blocks for long.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    queued_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    step_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    image_seconds: Family<EndpointLabels, Histogram, fn() -> Histogram>,
    jobs_at_once: Family<EndpointLabels, Gauge>,
    jobs_submitted: Family<SubmitLabels, Counter>,
    jobs_resumed: Family<EndpointLabels, Counter>,
    jobs_ended: Family<EndLabels, Counter>,
    webhooks: Family<OutcomeLabels, Counter>,
    device_used: Family<DeviceLabels, Gauge>,
    device_memory: Family<DeviceLabels, Gauge>,
    sweeps: Counter,
    forgotten_jobs: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubmitLabels {
    surface: &'static str,
    endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    endpoint: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    device: String,
}

/// From the time of a status request to that of a runsync that waits for five minutes.
const REQUEST_SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];
/// From a step of the built-in model to a step of a large picture on a CPU.
const STEP_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const JOB_SECONDS: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

impl Default for Metrics {
    fn default() -> Self {
        let per_job: fn() -> Histogram = || Histogram::new(JOB_SECONDS);
        Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            queued_seconds: Family::new_with_constructor(per_job),
            step_seconds: Family::new_with_constructor(|| Histogram::new(STEP_SECONDS)),
            image_seconds: Family::new_with_constructor(per_job),
            jobs_at_once: Family::default(),
            jobs_submitted: Family::default(),
            jobs_resumed: Family::default(),
            jobs_ended: Family::default(),
            webhooks: Family::default(),
            device_used: Family::default(),
            device_memory: Family::default(),
            sweeps: Counter::default(),
            forgotten_jobs: Counter::default(),
        }
    }
}

impl Metrics {
    /// A request was answered `elapsed` after it came. The body of the answer may still be on its way.
    pub fn request(&self, route: &str, method: &'static str, code: u16, elapsed: Duration) {
        let labels = RequestLabels { route: route.to_owned(), method, code };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: labels.route };
        self.request_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// A job was claimed after it had waited for `queued`.
    pub fn job_started(&self, endpoint: &EndpointId, queued: Duration) {
        self.queued_seconds.get_or_create(&labels(endpoint)).observe(queued.as_secs_f64());
    }

    /// One denoising step, of any number of jobs together.
    pub fn step(&self, endpoint: &EndpointId, elapsed: Duration) {
        self.step_seconds.get_or_create(&labels(endpoint)).observe(elapsed.as_secs_f64());
    }

    /// How many jobs the endpoint's engine steps together.
    pub fn jobs_at_once(&self, endpoint: &EndpointId, jobs: usize) {
        self.jobs_at_once.get_or_create(&labels(endpoint)).set(signed(jobs as u64));
    }

    /// One picture. The pictures of one job share its time equally.
    pub fn image(&self, endpoint: &EndpointId, elapsed: Duration) {
        self.image_seconds.get_or_create(&labels(endpoint)).observe(elapsed.as_secs_f64());
    }

    /// A client's request to draw was accepted. `surface` says which API it came through.
    pub fn job_submitted(&self, surface: &'static str, endpoint: &EndpointId) {
        let labels = SubmitLabels { surface, endpoint: endpoint.as_str().to_owned() };
        self.jobs_submitted.get_or_create(&labels).inc();
    }

    /// A job went on where an earlier attempt had saved it.
    pub fn job_resumed(&self, endpoint: &EndpointId) {
        self.jobs_resumed.get_or_create(&labels(endpoint)).inc();
    }

    pub fn job_ended(&self, endpoint: &EndpointId, status: JobStatus) {
        let labels = EndLabels { endpoint: endpoint.as_str().to_owned(), status: status.as_str() };
        self.jobs_ended.get_or_create(&labels).inc();
    }

    /// One try to deliver a webhook, by its outcome.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// How much of a card's memory is in use, by all programs, and how much it has.
    pub fn device_memory(&self, device: String, used: u64, total: u64) {
        let labels = DeviceLabels { device };
        self.device_used.get_or_create(&labels).set(signed(used));
        self.device_memory.get_or_create(&labels).set(signed(total));
    }

    pub fn sweep(&self, forgotten_jobs: u64) {
        self.sweeps.inc();
        self.forgotten_jobs.inc_by(forgotten_jobs);
    }

    /// The page in Prometheus' text format.
    pub fn page(&self, load: &Load, workers: &[WorkerLoad]) -> String {
        let mut registry = Registry::with_prefix("stablehand");
        self.register(&mut registry);
        load::register(&mut registry, load, workers);
        let mut process = Registry::default();
        Process::read().register(&mut process);
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut page, &registry);
        let _ = prometheus_text::encode(&mut page, &process);
        page
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("requests", "Requests answered", self.requests.clone());
        registry.register(
            "request_seconds",
            "From a request's headers to its answer's",
            self.request_seconds.clone(),
        );
        registry.register(
            "job_queued_seconds",
            "From a job's submission to its first step",
            self.queued_seconds.clone(),
        );
        registry.register(
            "step_seconds",
            "One denoising step of the jobs drawn together",
            self.step_seconds.clone(),
        );
        registry.register(
            "jobs_at_once",
            "Jobs that an engine draws together, as many as make each faster",
            self.jobs_at_once.clone(),
        );
        registry.register("image_seconds", "Work on a job, by picture", self.image_seconds.clone());
        registry.register(
            "jobs_submitted",
            "Jobs that clients submitted since the start, by the API that they used",
            self.jobs_submitted.clone(),
        );
        registry.register(
            "jobs_resumed",
            "Jobs that went on where an earlier attempt had saved them",
            self.jobs_resumed.clone(),
        );
        registry.register("jobs_ended", "Jobs that a worker ended since the start", self.jobs_ended.clone());
        registry.register("webhooks", "Tries to deliver a webhook", self.webhooks.clone());
        registry.register(
            "device_memory_used_bytes",
            "Memory of a card that is in use, by whomever",
            self.device_used.clone(),
        );
        registry.register("device_memory_bytes", "Memory of a card", self.device_memory.clone());
        registry.register("sweeps", "Times that expired jobs were swept out", self.sweeps.clone());
        registry.register("jobs_forgotten", "Expired jobs swept out", self.forgotten_jobs.clone());
    }
}

fn labels(endpoint: &EndpointId) -> EndpointLabels {
    EndpointLabels { endpoint: endpoint.as_str().to_owned() }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A page with every measurement.
    fn full_page() -> String {
        let metrics = Metrics::default();
        let endpoint = EndpointId::default();
        metrics.request("/v2/{endpoint}/run", "POST", 200, Duration::from_millis(2));
        metrics.job_started(&endpoint, Duration::from_millis(2));
        metrics.step(&endpoint, Duration::from_millis(20));
        metrics.image(&endpoint, Duration::from_millis(200));
        metrics.jobs_at_once(&endpoint, 4);
        metrics.job_submitted("native", &endpoint);
        metrics.job_ended(&endpoint, JobStatus::Completed);
        metrics.sweep(3);
        metrics.webhook("arrived");
        metrics.device_memory("cuda:0".to_owned(), 3 << 30, 24 << 30);
        let load = Load {
            jobs: vec![
                ("stable-diffusion-v1".to_owned(), "IN_QUEUE".to_owned(), 7),
                ("stable-diffusion-v1".to_owned(), "RETRIED".to_owned(), 2),
            ],
            oldest_queued: vec![("stable-diffusion-v1".to_owned(), Duration::from_millis(1_500))],
            database_bytes: 4096,
            ..Load::default()
        };
        metrics.page(&load, &[WorkerLoad { endpoint: "a".to_owned(), idle: 1, ..WorkerLoad::default() }])
    }

    #[test]
    fn the_page_shows_what_was_counted() {
        let page = full_page();
        for line in [
            r#"stablehand_requests_total{route="/v2/{endpoint}/run",method="POST",code="200"} 1"#,
            r#"stablehand_request_seconds_bucket{route="/v2/{endpoint}/run",le="0.0025"} 1"#,
            r#"stablehand_step_seconds_count{endpoint="stable-diffusion-v1"} 1"#,
            r#"stablehand_jobs_at_once{endpoint="stable-diffusion-v1"} 4"#,
            r#"stablehand_jobs_submitted_total{surface="native",endpoint="stable-diffusion-v1"} 1"#,
            r#"stablehand_jobs_ended_total{endpoint="stable-diffusion-v1",status="COMPLETED"} 1"#,
            r#"stablehand_jobs{endpoint="stable-diffusion-v1",status="IN_QUEUE"} 7"#,
            r#"stablehand_job_retries_total{endpoint="stable-diffusion-v1"} 2"#,
            r#"stablehand_queue_oldest_seconds{endpoint="stable-diffusion-v1"} 1.5"#,
            r#"stablehand_workers{endpoint="a",state="idle"} 1"#,
            "stablehand_database_bytes 4096",
            r#"stablehand_webhooks_total{outcome="arrived"} 1"#,
            "stablehand_jobs_forgotten_total 3",
            r#"stablehand_device_memory_used_bytes{device="cuda:0"} 3221225472"#,
            r#"stablehand_device_memory_bytes{device="cuda:0"} 25769803776"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(page.contains(concat!(
            "stablehand_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        )));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_page_shows_the_process_on_linux() {
        let page = Metrics::default().page(&Load::default(), &[]);
        assert!(!page.contains("device_memory"), "there is no card: {page}");
        for name in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
            let value = page.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{name}{value}");
        }
    }

    #[test]
    fn the_dashboard_and_the_alerts_name_only_measurements_that_there_are() {
        let page = full_page();
        let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let known: HashSet<&str> = families.collect();
        let is_known = |name: &str| {
            let suffixes = ["", "_total", "_bucket", "_count", "_info"];
            suffixes
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|family| known.contains(family)))
        };
        for text in [include_str!("../../deploy/alerts.yaml"), include_str!("../../deploy/grafana.json")] {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: HashSet<&str> = words.filter(|word| word.starts_with("stablehand_")).collect();
            assert!(names.len() > 5, "{names:?}");
            for name in names {
                assert!(is_known(name), "{name} is not in {known:?}");
            }
        }
    }
}
