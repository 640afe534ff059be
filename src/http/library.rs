//! `/library`: the models on this server, and what they are used with, for its operator. Both versions of the API have it, and no
//! endpoint: what lies on the disk belongs to all of them.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::request::{Api, ApiError, ApiKey, InFlight, Methods, Operation, body, enter, route};
use crate::library::{Kind, LibraryError};

const PREFIXES: [&str; 2] = ["/v1", "/v2"];
/// A name may be a URL.
const BODY_LIMIT: usize = 16 * 1024;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    for prefix in PREFIXES {
        let path = |path: &str| format!("{prefix}/library{path}");
        // Like `/health`, they tell what is here. Of the work that they begin, there is one at a time.
        config
            .service(route(path(""), Methods::Get, list).app_data(Operation::Health))
            .service(route(path("/pull"), Methods::Post, pull).app_data(Operation::Health))
            .service(route(path("/check"), Methods::Post, check).app_data(Operation::Health))
            .service(route(path("/remove"), Methods::Post, remove).app_data(Operation::Health))
            .service(route(path("/tasks/{id}"), Methods::Get, task))
            .service(route(path("/tasks/{id}/cancel"), Methods::Post, cancel));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    kind: Option<Kind>,
    sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    kind: Option<Kind>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
}

async fn list(api: web::Data<Api>, key: ApiKey, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let _in_flight = enter(&key, &request)?;
    let library = api.library.clone();
    let (may_change, task) = (library.may_change(), library.last_task());
    let listing = at_the_disk(move || library.list()).await?;
    Ok(HttpResponse::Ok().json(json!({
        "may_change": may_change,
        "items": listing.items,
        "unfinished": listing.unfinished,
        "task": task,
    })))
}

async fn pull(
    api: web::Data<Api>,
    key: ApiKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (wanted, _in_flight) = allowed::<Wanted>(&api, &key, &request, payload).await?;
    let Wanted { name, kind, sha256 } = wanted;
    let library = api.library.clone();
    let kind = kind.unwrap_or(Kind::Model);
    let task = at_the_disk(move || library.pull(kind, &name, sha256.as_deref())).await?;
    Ok(HttpResponse::Accepted().json(task))
}

async fn check(
    api: web::Data<Api>,
    key: ApiKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (Model { name }, _in_flight) = allowed(&api, &key, &request, payload).await?;
    let library = api.library.clone();
    let task = at_the_disk(move || library.check(&name)).await?;
    Ok(HttpResponse::Accepted().json(task))
}

async fn remove(
    api: web::Data<Api>,
    key: ApiKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (Named { name, kind }, _in_flight) = allowed(&api, &key, &request, payload).await?;
    let library = api.library.clone();
    let kind = kind.unwrap_or(Kind::Model);
    let (name, bytes) = at_the_disk(move || library.remove(kind, &name)).await?;
    Ok(HttpResponse::Ok().json(json!({ "name": name, "bytes": bytes })))
}

async fn task(api: web::Data<Api>, _key: ApiKey, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let task = api.library.task(&id).ok_or(NO_TASK)?;
    Ok(HttpResponse::Ok().json(task))
}

async fn cancel(api: web::Data<Api>, _key: ApiKey, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let task = api.library.cancel(&id)?.ok_or(NO_TASK)?;
    Ok(HttpResponse::Ok().json(task))
}

const NO_TASK: ApiError =
    ApiError::NotFound("No such task: it never existed, or the server has restarted since.");

/// The body of a request that changes something, from a caller within its limits.
async fn allowed<T: DeserializeOwned>(
    api: &Api,
    key: &ApiKey,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(T, InFlight), ApiError> {
    let in_flight = enter(key, request)?;
    if !api.library.may_change() {
        return Err(LibraryError::ReadOnly.into());
    }
    let body = body::read(request, payload, BODY_LIMIT).await?;
    let body = serde_json::from_slice(&body.bytes).map_err(|_| {
        ApiError::BadRequest(
            r#"The request body should be a JSON object, such as {"name": "ORG/NAME"}."#.to_owned(),
        )
    })?;
    Ok((body, in_flight))
}

/// Does what looks at the disk on a thread that serves no requests.
async fn at_the_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LibraryError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = web::block(work).await.map_err(|error| {
        tracing::error!(%error, "looking at the library failed");
        ApiError::Internal
    })?;
    Ok(done?)
}

impl From<LibraryError> for ApiError {
    fn from(error: LibraryError) -> Self {
        let sentence = error.to_string();
        match error {
            LibraryError::ReadOnly => Self::Forbidden(sentence),
            LibraryError::Busy { .. } | LibraryError::InUse { .. } => Self::Conflict(sentence),
            LibraryError::Missing { .. } => Self::Missing(sentence),
            LibraryError::Invalid(_) => Self::BadRequest(sentence),
            LibraryError::Disk => Self::Unavailable(sentence),
        }
    }
}
