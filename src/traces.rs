//! Traces for OpenTelemetry: the spans of requests, jobs and webhooks on their way to a collector.
//!
//! Rooms make spans with the macros of `tracing`, under [`TARGET`]. They belong to no line of the log, and the log's lines
//! belong to none of them. Without a collector, nobody takes them and they cost nothing. What a span says is its fields:
//! routes, ids, numbers and states. Prompts, pictures, URLs and keys are never among them.
//!
//! A thread of OpenTelemetry's own sends finished spans in groups ([`collector`]). What does not fit into its queue, because
//! the collector is slow or down, is dropped.

mod collector;

use std::env;
use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::domain::TraceParent;
use collector::Collector;

/// The target of all spans that a collector gets.
pub const TARGET: &str = "stablehand::traces";
const SERVICE: &str = "stablehand";
/// How long the end of the process waits for a collector that takes the last spans.
const FAREWELL: Duration = Duration::from_secs(2);

/// The way to a collector, until [`Self::finish`].
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Spans go to the collector that takes OTLP over HTTP at `url`. The error is a sentence.
    pub fn to(url: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(url)?)
            .with_endpoint(url)
            .build()
            .map_err(|error| format!("traces cannot be sent to {url}: {error}"))?;
        // As every program of OpenTelemetry lets its operator name it.
        let name = env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
        let resource = Resource::builder_empty()
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_service_name(name.unwrap_or_else(|| SERVICE.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// What takes the spans of this process.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(
                filter_fn(|data| data.is_span() && is_trace(data)).with_max_level_hint(LevelFilter::INFO),
            )
    }

    /// Sends what is left, if the collector takes it soon. Blocks.
    pub fn finish(self) {
        // What failed was logged where it failed.
        let _ = self.0.shutdown_with_timeout(FAREWELL);
    }
}

/// Whether something is for the collector, and not for the log.
pub fn is_trace(data: &Metadata<'_>) -> bool {
    data.target() == TARGET
}

/// Makes a span, which must be new, part of its caller's trace.
pub fn follow(span: &Span, caller: Option<TraceParent>) {
    let Some(TraceParent { trace, span: caller, is_sampled }) = caller else { return };
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let context = SpanContext::new(
        TraceId::from(trace.get()),
        SpanId::from(caller.get()),
        flags,
        true,
        TraceState::default(),
    );
    // Fails where nobody takes spans.
    let _ = span.set_parent(Context::new().with_remote_span_context(context));
}

/// Gives the span another name.
pub fn rename(span: &Span, name: String) {
    if !span.is_disabled() {
        span.context().span().update_name(name);
    }
}

/// Marks that what the span covers has failed.
pub fn mark_failed(span: &Span) {
    span.set_status(Status::error(""));
}

/// A number as a collector takes it: it has no unsigned ones.
pub fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// How others name the span; none if nobody takes it.
pub fn name_of(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    Some(TraceParent {
        trace: u128::from_be_bytes(context.trace_id().to_bytes()).try_into().ok()?,
        span: u64::from_be_bytes(context.span_id().to_bytes()).try_into().ok()?,
        is_sampled: context.is_sampled(),
    })
}
