//! The tools: their names, what a language model is told about them, and their calls.

mod draw;
mod jobs;
mod models;
mod order;
mod schema;

use std::sync::Arc;

use actix_web::web;
use rmcp::model::{CallToolResult, Tool as Described, ToolAnnotations};
use serde_json::{Map, Value};

use super::McpError;
use super::tool_server::ProgressListener;
use crate::http::request::body::Held;
use crate::http::request::{Api, Endpoints};
use crate::http::surface::{FieldError, Fields, heavy};

/// One tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    GenerateImage,
    EditImage,
    UpscaleImage,
    GetJob,
    CancelJob,
    ListModels,
}

impl Tool {
    pub const ALL: [Self; 6] = [
        Self::GenerateImage,
        Self::EditImage,
        Self::UpscaleImage,
        Self::GetJob,
        Self::CancelJob,
        Self::ListModels,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::GenerateImage => "generate_image",
            Self::EditImage => "edit_image",
            Self::UpscaleImage => "upscale_image",
            Self::GetJob => "get_job",
            Self::CancelJob => "cancel_job",
            Self::ListModels => "list_models",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// Its name for people.
    fn title(self) -> &'static str {
        match self {
            Self::GenerateImage => "Generate pictures",
            Self::EditImage => "Change a picture",
            Self::UpscaleImage => "Enlarge a picture",
            Self::GetJob => "Look at a job",
            Self::CancelJob => "Cancel a job",
            Self::ListModels => "List models",
        }
    }

    /// What it does, for a language model.
    fn about(self) -> &'static str {
        match self {
            Self::GenerateImage => {
                "Draws pictures from a text prompt with Stable Diffusion, and returns them. It takes seconds on a graphics \
                 card and minutes without one. If the pictures are not finished in time, the result has the status \
                 IN_PROGRESS or IN_QUEUE and a job_id: call get_job with it. The same prompt and seed give the same picture."
            }
            Self::EditImage => {
                "Changes a picture with Stable Diffusion as a text prompt says, and returns the new picture. The prompt \
                 describes the whole new picture, not only the change. With a mask, only the white areas of the mask are \
                 drawn anew. It waits and answers as generate_image does."
            }
            Self::UpscaleImage => {
                "Enlarges a picture by a factor or to a size, and returns it. What it shows stays as it is. It waits and \
                 answers as generate_image does."
            }
            Self::GetJob => {
                "Waits for a job that another tool left unfinished, and returns its pictures when they are \
                 there. Call it again while the status is IN_PROGRESS or IN_QUEUE."
            }
            Self::CancelJob => "Cancels a job that is waiting or being drawn.",
            Self::ListModels => {
                "Lists the models of this server with their LoRAs, and the schedulers. A LoRA is used by writing \
                 <lora:NAME:1> into the prompt."
            }
        }
    }

    fn annotations(self) -> ToolAnnotations {
        let reads = matches!(self, Self::GetJob | Self::ListModels);
        let cancels = self == Self::CancelJob;
        let takes_picture = matches!(self, Self::EditImage | Self::UpscaleImage);
        // A picture may be a URL.
        let hints = ToolAnnotations::with_title(self.title()).read_only(reads).open_world(takes_picture);
        if reads { hints } else { hints.destructive(cancels).idempotent(cancels) }
    }

    fn input(self, endpoints: &Endpoints) -> Map<String, Value> {
        match self {
            Self::GenerateImage => schema::generate(endpoints),
            Self::EditImage => schema::edit(endpoints),
            Self::UpscaleImage => schema::upscale(endpoints),
            Self::GetJob => schema::job(true),
            Self::CancelJob => schema::job(false),
            Self::ListModels => schema::nothing(),
        }
    }

    /// What the protocol says about it.
    pub fn describe(self, endpoints: &Endpoints) -> Described {
        let output = match self {
            Self::ListModels => schema::models(),
            _ => schema::pictures(),
        };
        Described::new(self.name(), self.about(), Arc::new(self.input(endpoints)))
            .with_title(self.title())
            .with_annotations(self.annotations())
            .with_raw_output_schema(Arc::new(output))
    }

    /// Calls it. If the returned future is dropped, what it draws is cancelled. `held` counts the memory of the arguments.
    pub async fn call(
        self,
        api: &web::Data<Api>,
        arguments: Map<String, Value>,
        held: Held,
        listener: &ProgressListener,
    ) -> Result<CallToolResult, McpError> {
        self.refuse_unknown(&arguments, &api.endpoints)?;
        let fields = Fields::new(arguments);
        match self {
            Self::GenerateImage => draw::draw(api, fields, held, order::generate, listener).await,
            Self::EditImage => draw::draw(api, fields, held, order::edit, listener).await,
            Self::UpscaleImage => draw::draw(api, fields, held, order::upscale, listener).await,
            Self::GetJob => jobs::get(api, &fields, listener).await,
            Self::CancelJob => jobs::cancel(api, &fields).await,
            Self::ListModels => {
                let served = api.clone();
                Ok(heavy(move || models::list(&served.endpoints)).await?)
            }
        }
    }

    /// A language model that mistypes an argument should hear of it, or it draws something else.
    fn refuse_unknown(self, arguments: &Map<String, Value>, endpoints: &Endpoints) -> Result<(), FieldError> {
        let schema = self.input(endpoints);
        let Some(known) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
        let Some(unknown) = arguments.keys().find(|name| !known.contains_key(*name)) else { return Ok(()) };
        let name: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
        let known = known.keys().map(String::as_str).collect::<Vec<_>>();
        let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let sentence = format!("There is no argument {name}; the arguments of {} are: {takes}.", self.name());
        Err(FieldError::new(name, sentence))
    }
}
