//! Values only: jobs, their inputs and policies, and time.
//!
//! Every value here is parsed, so it is never invalid. This room knows no other room of the crate: no SQL, no HTTP, no
//! model. The other rooms use its types to talk to each other.

mod clock;
mod composition;
mod controlnet;
mod idempotency;
mod image_source;
mod input;
mod job;
mod lora;
mod lora_blocks;
mod model_family;
mod model_part;
mod node;
mod noise;
mod picture_end;
mod picture_format;
mod png_chunks;
mod policy;
mod precision;
mod preprocessor;
mod s3_config;
mod scheduler;
mod spacing;
mod trace_parent;
mod upscaler;
mod vae;
mod web_url;
mod webhook;
mod wildcards;

pub use clock::{Clock, Timestamp};
pub use composition::{MAX_PART_WEIGHT, MAX_PROMPT_PARTS, PromptPart, is_space, prompt_parts, whole_words};
pub use controlnet::{
    ControlMode, ControlNetConfig, ControlNetShelf, ControlResize, ControlUnit, MAX_CONTROL_WEIGHT,
    MAX_CONTROLNETS,
};
pub use idempotency::{BadIdempotencyKey, Idempotency};
pub use image_source::{ImageSource, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS};
pub use input::{
    CONTROLNET_FIELDS, CheckedPrompt, Enlarged, GenerationInput, Hires, IMAGE_GUIDANCE_SCALE, ImageSize,
    InpaintArea, InpaintFill, Inpainting, InputRules, MAX_CACHE_INTERVAL, MAX_ENLARGED_SIDE,
    MAX_INPAINT_PADDING, MAX_MASK_BLUR, MAX_OUTPAINT, MAX_OUTPUTS, MAX_PIXELS, MAX_PROMPT_BYTES,
    MAX_RESULT_SIDE, MAX_SCALE, MAX_STEPS, MIN_SIDE, Outpaint, PromptCheck, PromptLength, ResizeMode,
    Sampling, Target, UPSCALE_GRID, Upscale, Variation, Violations,
};
pub use job::{
    EndpointId, Frame, ImagePlace, ImageRef, Job, JobCounts, JobId, JobKind, JobOutline, JobStatus, NewImage,
    NewJob, Progress, StoredImage,
};
pub use lora::{
    Lora, LoraOrigin, LoraShelf, MAX_LORA_SCALE, MAX_LORAS, lora_tags, without_lora_tags,
    without_unknown_loras,
};
pub use lora_blocks::{BlockWeights, LoraBlock, LoraScales};
pub use model_family::{ModelFamily, ModelIndex, UNetConditioning};
pub use model_part::ModelPart;
pub use node::Node;
pub use noise::NoiseSource;
pub use picture_format::{PICTURE_FORMATS, PictureFormat};
pub use png_chunks::pixel_chunks;
pub use policy::Policy;
pub use precision::Precision;
pub use preprocessor::{Preprocessor, Threshold};
pub use s3_config::S3Config;
pub use scheduler::SchedulerKind;
pub use spacing::Spacing;
pub use trace_parent::TraceParent;
pub use upscaler::{LatentMode, PixelMode, Upscaler, UpscalerShelf};
pub use vae::{TinyVaeConfig, TinyVaeShelf, Vae};
pub use web_url::{WebUrl, WebUrlError};
pub use webhook::{Webhook, WebhookEvents};
pub use wildcards::{DrawnPrompts, WildcardShelf};
