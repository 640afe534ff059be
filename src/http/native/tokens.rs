//! `POST /tokens`: how many tokens and chunks of the model a prompt fills.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::domain::{MAX_PROMPT_BYTES, without_lora_tags};
use crate::http::request::{Api, ApiError, Endpoint, body};

/// A prompt in JSON may need six bytes for each of its own.
const BODY_LIMIT: usize = 6 * MAX_PROMPT_BYTES + 1024;
const EXAMPLE: &str = r#"The request body should be a JSON object, such as {"prompt": "a dog"}."#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    prompt: String,
}

pub async fn tokens(
    _api: web::Data<Api>,
    endpoint: Endpoint,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(&request, payload, BODY_LIMIT).await?.bytes;
    let Prompt { prompt } =
        serde_json::from_slice(&body).map_err(|_| ApiError::BadRequest(EXAMPLE.to_owned()))?;
    if prompt.len() > MAX_PROMPT_BYTES {
        let sentence =
            format!("prompt does not meet the constraints. It has more than {MAX_PROMPT_BYTES} bytes.");
        return Err(ApiError::BadRequest(sentence));
    }
    let Some(prompts) = endpoint.rules.prompts else {
        return Err(ApiError::BadRequest("This model counts no tokens.".to_owned()));
    };
    // A long prompt takes a while, and the words of textual inversions may have to be read.
    let length = web::block(move || prompts.length(&without_lora_tags(&prompt))).await.map_err(|error| {
        tracing::error!(%error, "counting tokens failed");
        ApiError::Internal
    })?;
    let length = length
        .map_err(|reason| ApiError::BadRequest(format!("prompt does not meet the constraints. {reason}")))?;
    Ok(HttpResponse::Ok()
        .json(json!({ "tokens": length.tokens, "chunks": length.chunks, "room": length.room })))
}
