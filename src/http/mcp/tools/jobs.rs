//! `get_job` and `cancel_job`.

use actix_web::web;
use rmcp::model::CallToolResult;

use super::super::McpError;
use super::super::answer::{self, JobName};
use super::super::tool_server::ProgressListener;
use super::super::wait::{Waited, patience, wait};
use crate::domain::{EndpointId, JobId};
use crate::http::request::{Api, ApiError};
use crate::http::surface::{Drawing, FieldError, Fields};

/// Waits for a job and answers its pictures. The job stays, so that a lost answer can be asked for again.
pub async fn get(
    api: &web::Data<Api>,
    fields: &Fields,
    listener: &ProgressListener,
) -> Result<CallToolResult, McpError> {
    let (name, patience) = (name(fields)?, patience(fields)?);
    let endpoint = endpoint(api, &name.id).await?;
    let mut drawing = Drawing::attach(api.clone(), endpoint, name.id.clone());
    match wait(api, &mut drawing, patience, listener).await? {
        Waited::Completed(job) => answer::pictures(&drawing, job, name.finish).await,
        Waited::StillDrawing(progress) => Ok(answer::still_drawing(&name, progress)),
    }
}

pub async fn cancel(api: &web::Data<Api>, fields: &Fields) -> Result<CallToolResult, McpError> {
    let name = name(fields)?;
    let endpoint = endpoint(api, &name.id).await?;
    let cancelled = api.queue.cancel(&endpoint, &name.id).await.map_err(ApiError::from)?;
    Ok(answer::cancelled(&name, cancelled.ok_or(ApiError::NO_JOB)?))
}

fn name(fields: &Fields) -> Result<JobName, McpError> {
    let text = fields.text(&["job_id"])?;
    let text = text.ok_or_else(|| FieldError::new("job_id", "job_id is a required input."))?;
    Ok(JobName::parse(text.trim()).ok_or(ApiError::NO_JOB)?)
}

/// The endpoint that has this job.
async fn endpoint(api: &Api, id: &JobId) -> Result<EndpointId, McpError> {
    for endpoint in api.endpoints.iter() {
        if api.queue.outline(&endpoint.id, id).await.map_err(ApiError::from)?.is_some() {
            return Ok(endpoint.id.clone());
        }
    }
    Err(ApiError::NO_JOB.into())
}
