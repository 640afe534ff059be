//! A route: a path, the methods that it accepts, and a 405 or 404 for everything else.

use std::sync::Arc;

use actix_web::{FromRequest, Handler, Resource, Responder, guard, web};

use super::ApiError;

/// The methods that a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// And HEAD, which is GET without the body.
    Get,
    Post,
    GetOrPost,
}

impl Methods {
    /// The refusal of every other method.
    pub fn refusal(self) -> ApiError {
        ApiError::MethodNotAllowed { allowed: self.names() }
    }

    fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::GetOrPost => "GET, HEAD, POST",
        }
    }

    pub fn guard(self) -> impl guard::Guard {
        let accepts_get = self.accepts_get();
        let accepts_post = self.accepts_post();
        guard::fn_guard(move |context| match context.head().method.as_str() {
            "GET" | "HEAD" => accepts_get,
            "POST" => accepts_post,
            _ => false,
        })
    }

    pub fn accepts_get(self) -> bool {
        self != Self::Post
    }

    pub fn accepts_post(self) -> bool {
        self != Self::Get
    }
}

/// The whole path of a route, as logs and metrics name it. Its requests carry it, so that nobody looks for it twice.
#[derive(Debug, Clone)]
pub struct RouteName(Arc<str>);

impl RouteName {
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One route: `handler` for the methods that it accepts, 405 for all others.
pub fn route<F, Args>(path: impl AsRef<str>, methods: Methods, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    route_below("", path.as_ref(), methods, handler)
}

/// The same in the scope of `prefix`.
pub fn route_below<F, Args>(prefix: &str, path: &str, methods: Methods, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .app_data(RouteName::new(&format!("{prefix}{path}")))
        .route(web::route().guard(methods.guard()).to(handler))
        .default_service(web::to(move || async move { Err::<&str, _>(methods.refusal()) }))
}

/// The answer on a path that no route has.
pub async fn no_route() -> Result<&'static str, ApiError> {
    Err(ApiError::NO_ROUTE)
}
