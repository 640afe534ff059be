//! A request's place in a trace: that of its caller, who sends `traceparent`, or one of its own. The jobs that it submits go
//! on with it.

use actix_web::dev::ServiceRequest;
use actix_web::http::header::{HeaderMap, HeaderName};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::domain::TraceParent;
use crate::traces;

const HEADER: HeaderName = HeaderName::from_static("traceparent");
/// Whoever asks these asks again every few seconds.
const UNTRACED: [&str; 3] = ["/live", "/ready", "/metrics"];

tokio::task_local! {
    static PARENT: Option<TraceParent>;
}

/// What a job goes on with that the request under way submits.
pub fn parent() -> Option<TraceParent> {
    PARENT.try_with(|parent| *parent).ok().flatten()
}

/// The span of one request.
pub(super) struct RequestTrace {
    span: Span,
    parent: Option<TraceParent>,
}

impl RequestTrace {
    pub fn begin(request: &ServiceRequest) -> Self {
        let caller = caller(request.headers());
        if UNTRACED.contains(&request.path()) {
            return Self { span: Span::none(), parent: caller };
        }
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "request",
            otel.kind = "server",
            http.request.method = Empty,
            http.route = Empty,
            http.response.status_code = Empty,
        );
        traces::follow(&span, caller);
        let parent = traces::name_of(&span).or(caller);
        Self { span, parent }
    }

    /// Answers the request.
    pub async fn around<F: Future>(&self, answer: F) -> F::Output {
        PARENT.scope(self.parent, answer.instrument(self.span.clone())).await
    }

    pub fn end(self, method: &str, route: &str, status: u16) {
        traces::rename(&self.span, format!("{method} {route}"));
        self.span.record("http.request.method", method);
        self.span.record("http.route", route);
        self.span.record("http.response.status_code", traces::number(status));
        if status >= 500 {
            traces::mark_failed(&self.span);
        }
    }
}

/// The caller's place in its trace. Two of them are none, as the standard says.
fn caller(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(&HEADER);
    let only = values.next().filter(|_| values.next().is_none())?;
    TraceParent::parse(only.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn one_caller_counts_and_two_do_not() {
        const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        assert_eq!(caller(&headers), None);
        headers.append(HEADER, HeaderValue::from_static(TEXT));
        assert_eq!(caller(&headers), TraceParent::parse(TEXT));
        headers.append(HEADER, HeaderValue::from_static(TEXT));
        assert_eq!(caller(&headers), None);
    }
}
