//! `GET /docs/{page}`: the guide, which is the Markdown in the folder `docs/` beside the code.

use actix_web::{HttpResponse, web};
use maud::html;

use super::layout::{self, Place};
use super::markdown;
use crate::http::request::ApiError;

/// A page of the guide: `docs/{name}.md`.
pub(super) struct Page {
    pub name: &'static str,
    text: &'static str,
}

macro_rules! pages {
    ($($name:literal),+ $(,)?) => {
        [$(Page { name: $name, text: include_str!(concat!("../../../docs/", $name, ".md")) }),+]
    };
}

/// All pages, in the order of the navigation.
pub(super) const PAGES: [Page; 22] = pages![
    "install",
    "api",
    "page",
    "input",
    "samplers",
    "prompts",
    "inpainting",
    "variations",
    "clients",
    "a1111",
    "mcp",
    "loras",
    "controlnet",
    "hires",
    "events",
    "webhooks",
    "models",
    "settings",
    "gpu",
    "operations",
    "measured",
    "contributing",
];

impl Page {
    /// The heading in the first line.
    pub(super) fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}

pub async fn guide(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let page = PAGES.iter().find(|page| page.name == name.as_str()).ok_or(ApiError::NO_ROUTE)?;
    let rendered = markdown::render(page.text);
    let contents = html! {
        @for section in &rendered.sections { a href={ "#" (section.id) } { (section.title) } }
    };
    Ok(super::html(layout::page(Place::Guide(page.name), page.title(), &contents, &rendered.body)))
}
