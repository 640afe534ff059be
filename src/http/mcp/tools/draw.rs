//! `generate_image` and `edit_image`: queue a job, wait, and answer its pictures.

use actix_web::web;
use rmcp::model::CallToolResult;

use super::super::answer::{self, JobName};
use super::super::tool_server::ProgressListener;
use super::super::wait::{Waited, patience, wait};
use super::super::{Mcp, McpError};
use super::order::Order;
use crate::http::request::body::Held;
use crate::http::request::{Api, Endpoints};
use crate::http::surface::{Dialect as _, Drawing, Fields, heavy};

pub async fn draw(
    api: &web::Data<Api>,
    fields: Fields,
    held: Held,
    read: impl FnOnce(&Fields, &Endpoints) -> Result<Order, McpError> + Send + 'static,
    listener: &ProgressListener,
) -> Result<CallToolResult, McpError> {
    let patience = patience(&fields)?;
    let served = api.clone();
    // A picture to change is decoded.
    let is_heavy = fields.name_of(&["image"]).is_some();
    let Order { job, finish } = match is_heavy {
        true => heavy(move || read(&fields, &served.endpoints)).await??,
        false => read(&fields, &served.endpoints)?,
    };
    let mut drawing = Drawing::submit(api.clone(), job, Mcp::SURFACE).await?;
    drop(held);
    match wait(api, &mut drawing, patience, listener).await? {
        Waited::Completed(job) => answer::pictures(&drawing, job, finish).await,
        Waited::StillDrawing(progress) => {
            let name = JobName { id: drawing.id().clone(), finish };
            // From now on the client asks for it by its name.
            drawing.leave();
            Ok(answer::still_drawing(&name, progress))
        }
    }
}
