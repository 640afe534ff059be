//! A route: a path, the methods that it accepts, and a 405 or 404 for everything else.

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

/// One route: `handler` for the methods that it accepts, 405 for all others.
pub fn route<F, Args>(path: impl Into<String>, methods: Methods, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path.into())
        .route(web::route().guard(methods.guard()).to(handler))
        .default_service(web::to(move || async move { Err::<&str, _>(methods.refusal()) }))
}

/// The answer on a path that no route has.
pub async fn no_route() -> Result<&'static str, ApiError> {
    Err(ApiError::NO_ROUTE)
}
