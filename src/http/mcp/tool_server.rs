//! The server as `rmcp` asks it: what it is, its tools, and their calls.

use std::pin::pin;

use actix_web::web;
use futures_util::future::{Either, select};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ServerCapabilities,
    ServerConfig,
};
use rmcp::service::{Peer, RequestContext};
use rmcp::{RoleServer, ServerHandler};

use super::message::Arguments;
use super::tools::Tool;
use crate::domain::Progress;
use crate::http::request::Api;

const INSTRUCTIONS: &str = "Draws and changes pictures with Stable Diffusion on the user's own machine. Write prompts as \
short descriptions of what the picture shows, in English, with the most important words first. A tool that answers \
`status: IN_PROGRESS` has not finished: call get_job with its job_id until the picture comes.";

/// Answers one request.
#[derive(Clone)]
pub struct ToolServer {
    api: web::Data<Api>,
}

impl ToolServer {
    pub fn new(api: web::Data<Api>) -> Self {
        Self { api }
    }
}

impl ServerHandler for ToolServer {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("stablehand", env!("CARGO_PKG_VERSION")).with_title("stablehand");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = Tool::ALL.into_iter().map(|tool| tool.describe(&self.api.endpoints)).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let unknown = || {
            let known = Tool::ALL.map(Tool::name).join(", ");
            ErrorData::invalid_params(format!("There is no such tool. The tools are {known}."), None)
        };
        let tool = Tool::named(&request.name).ok_or_else(unknown)?;
        let parts = context.extensions.get::<http::request::Parts>();
        let carried = parts.and_then(|parts| parts.extensions.get::<Arguments>());
        let (carried, held) = carried.map(Arguments::take).unzip();
        let arguments = carried.or(request.arguments).unwrap_or_default();
        let listener = ProgressListener { token: context.meta.get_progress_token(), peer: context.peer };
        let call = pin!(tool.call(&self.api, arguments, held.unwrap_or_default(), &listener));
        // When the client has cancelled or is gone, dropping the call cancels its job.
        let result = match select(call, pin!(context.ct.cancelled())).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => return Err(ErrorData::internal_error("The call was cancelled.", None)),
        };
        let failed = |sentence: String| CallToolResult::error(vec![ContentBlock::text(sentence)]);
        Ok(result.unwrap_or_else(|error| failed(error.to_string())).into())
    }
}

/// The client that waits for a call, and perhaps wants to hear how far it is.
pub struct ProgressListener {
    token: Option<ProgressToken>,
    peer: Peer<RoleServer>,
}

impl ProgressListener {
    /// Whether it does.
    pub fn is_there(&self) -> bool {
        self.token.is_some()
    }

    /// Says how far the job is. A client that is gone is not told, and that is no fault.
    pub async fn hear(&self, progress: Progress) {
        let Some(token) = self.token.clone() else { return };
        let Progress { step, steps, .. } = progress;
        let told = ProgressNotificationParam::new(token, f64::from(step))
            .with_total(f64::from(steps))
            .with_message(format!("Step {step} of {steps}"));
        let _ = self.peer.notify_progress(told).await;
    }
}
