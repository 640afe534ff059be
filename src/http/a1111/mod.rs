//! The API of AUTOMATIC1111's web UI: what its clients send and read, over the same queue.
//!
//! In: `ask` reads the fields of a request, with `sampler`, `canvas`, `img2img`, `hires`, `variation`, `scripts` and
//! `control_net` for what belongs together. `choices` are the settings that requests and `options` share. `draw` has the
//! jobs drawn, one batch after another. Out: `answer` and `info` write what came out, `error` what did not.
//!
//! Beside them: `task` remembers the requests that are being drawn, for `progress` and `interrupt`. `extras` and `png_info`
//! work on pictures that exist. `lists` and `machine` say what is here.

mod answer;
mod ask;
mod batches;
mod canvas;
mod checkpoint;
mod choices;
mod control_net;
mod draw;
mod error;
mod extras;
mod hires;
mod img2img;
mod info;
mod infotext;
mod interrupt;
mod lists;
mod machine;
mod options;
mod parameters;
mod png_info;
mod progress;
mod sampler;
mod scripts;
mod task;
mod variation;

use actix_web::{FromRequest, Handler, Responder, web};

use self::choices::Choices;
use self::error::A1111Error;
use self::task::Tasks;
use super::request::{ApiError, Methods, Operation, Surface};
use super::surface::{Dialect, options as say_options, route};

/// The surface as a type.
pub struct A1111;

impl Dialect for A1111 {
    const SURFACE: Surface = Surface::A1111;
    type Error = A1111Error;
}

/// What the surface remembers between requests, in memory only.
#[derive(Default)]
pub(super) struct State {
    tasks: Tasks,
    choices: Choices,
}

/// Clients append the whole path to the server's address. The OpenAPI document describes paths below `/v2`.
const PREFIXES: [&str; 2] = ["", "/v2"];

pub(super) fn routes(config: &mut web::ServiceConfig, state: &web::Data<State>) {
    use Methods::{Get, GetOrPost, Post};
    use Operation::{Cancel, Health, RunSync, Status};

    for prefix in PREFIXES {
        let mut routes = Routes { config, state, prefix };
        routes.add("/sdapi/v1/txt2img", Post, RunSync, draw::txt2img);
        routes.add("/sdapi/v1/img2img", Post, RunSync, draw::img2img);
        routes.add("/sdapi/v1/extra-single-image", Post, RunSync, extras::single);
        routes.add("/sdapi/v1/extra-batch-images", Post, RunSync, extras::batch);
        routes.add("/sdapi/v1/png-info", Post, RunSync, png_info::png_info);
        routes.add("/sdapi/v1/progress", Get, Status, progress::progress);
        routes.add("/internal/progress", Post, Status, progress::of_task);
        routes.add("/internal/pending-tasks", Get, Status, progress::pending);
        routes.add("/sdapi/v1/interrupt", Post, Cancel, interrupt::interrupt);
        routes.add("/sdapi/v1/skip", Post, Cancel, interrupt::skip);
        routes.add("/sdapi/v1/options", GetOrPost, Health, options::options);
        routes.add("/sdapi/v1/cmd-flags", Get, Health, options::cmd_flags);
        routes.add("/sdapi/v1/memory", Get, Health, machine::memory);
        routes.add("/sdapi/v1/unload-checkpoint", Post, Cancel, machine::unload);
        routes.add("/sdapi/v1/reload-checkpoint", Post, Health, machine::reload);
        routes.add("/sdapi/v1/sd-models", Get, Health, lists::models);
        routes.add("/sdapi/v1/samplers", Get, Health, lists::samplers);
        routes.add("/sdapi/v1/schedulers", Get, Health, lists::schedulers);
        routes.add("/sdapi/v1/upscalers", Get, Health, lists::upscalers);
        routes.add("/sdapi/v1/latent-upscale-modes", Get, Health, lists::latent_upscale_modes);
        routes.add("/sdapi/v1/loras", Get, Health, lists::loras);
        routes.add("/sdapi/v1/embeddings", Get, Health, lists::embeddings);
        routes.add("/sdapi/v1/scripts", Get, Health, lists::scripts);
        for path in lists::EMPTY {
            routes.add(path, Get, Health, lists::empty);
        }
        for path in lists::REFRESHED {
            routes.add(path, Post, Health, lists::refresh);
        }
        routes.add("/controlnet/version", Get, Health, control_net::version);
        routes.add("/controlnet/model_list", Get, Health, control_net::models);
        routes.add("/controlnet/module_list", Get, Health, control_net::modules);
        // It needs no key: whether the server is there is no secret.
        routes.add("/internal/ping", GetOrPost, Health, machine::ping);
        for path in ["sdapi", "internal", "controlnet"] {
            config.service(web::resource(format!("{prefix}/{path}/{{rest:.*}}")).to(no_operation));
        }
    }
}

struct Routes<'a> {
    config: &'a mut web::ServiceConfig,
    state: &'a web::Data<State>,
    prefix: &'static str,
}

impl Routes<'_> {
    fn add<F, Args>(&mut self, path: &str, methods: Methods, operation: Operation, handler: F)
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = route::<A1111, _, _>(format!("{}{path}", self.prefix), methods, operation, handler);
        self.config.service(route.app_data(self.state.clone()).route(say_options()));
    }
}

/// Such as `/sdapi/v1/interrogate`: clients ask whether it is there, and read the body as JSON.
async fn no_operation() -> Result<&'static str, A1111Error> {
    Err(ApiError::NO_ROUTE.into())
}
