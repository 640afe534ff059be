//! `/library`: the models on this server, and what they are used with, for its operator. Both versions of the API have it, and no
//! endpoint: what lies on the disk belongs to all of them.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

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

/// What a body may name.
struct Wanted {
    name: String,
    kind: Kind,
    sha256: Option<String>,
}

impl Wanted {
    /// Reads a body that may have these fields, `name` among them.
    fn read(body: &[u8], known: &[&str]) -> Result<Self, ApiError> {
        let no_object = || {
            ApiError::BadRequest(
                r#"The request body should be a JSON object, such as {"name": "ORG/NAME"}."#.to_owned(),
            )
        };
        let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|_| no_object())?;
        if let Some(unknown) = fields.keys().find(|name| !known.contains(&name.as_str())) {
            let name: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
            let sentence = format!(
                "Unexpected input. {name} is not a valid input option; this takes {}.",
                known.join(", ")
            );
            return Err(ApiError::BadRequest(sentence));
        }
        let text = |name: &str| match fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ApiError::BadRequest(format!("{name} should be text."))),
        };
        let kind = match text("kind")? {
            None => Kind::Model,
            Some(kind) => Kind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or_else(|| {
                let known = Kind::ALL.map(Kind::as_str).join(", ");
                ApiError::BadRequest(format!(
                    "kind does not meet the constraints. It must be one of {known}."
                ))
            })?,
        };
        let name =
            text("name")?.ok_or_else(|| ApiError::BadRequest("name is a required input.".to_owned()))?;
        Ok(Self { name, kind, sha256: text("sha256")? })
    }
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
    let (wanted, _in_flight) = allowed(&api, &key, &request, payload, &["name", "kind", "sha256"]).await?;
    let Wanted { name, kind, sha256 } = wanted;
    let library = api.library.clone();
    let task = at_the_disk(move || library.pull(kind, &name, sha256.as_deref())).await?;
    Ok(HttpResponse::Accepted().json(task))
}

async fn check(
    api: web::Data<Api>,
    key: ApiKey,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (Wanted { name, .. }, _in_flight) = allowed(&api, &key, &request, payload, &["name"]).await?;
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
    let (wanted, _in_flight) = allowed(&api, &key, &request, payload, &["name", "kind"]).await?;
    let Wanted { name, kind, .. } = wanted;
    let library = api.library.clone();
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
async fn allowed(
    api: &Api,
    key: &ApiKey,
    request: &HttpRequest,
    payload: web::Payload,
    fields: &[&str],
) -> Result<(Wanted, InFlight), ApiError> {
    let in_flight = enter(key, request)?;
    if !api.library.may_change() {
        return Err(LibraryError::ReadOnly.into());
    }
    let body = body::read(request, payload, BODY_LIMIT).await?;
    Ok((Wanted::read(&body.bytes, fields)?, in_flight))
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
