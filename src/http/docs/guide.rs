//! `GET /docs/{page}`: the guide, which is the Markdown in the folder `docs/` beside the code.

use std::sync::OnceLock;

use actix_web::{HttpRequest, HttpResponse, web};
use maud::html;

use super::layout::{self, Place};
use super::markdown;
use crate::http::request::{ApiError, Compressed, Keyless};

/// A page of the guide: `docs/{name}.md`.
pub(super) struct Page {
    pub name: &'static str,
    text: &'static str,
    /// The whole page as HTML, once it was asked for.
    html: OnceLock<Compressed>,
}

macro_rules! pages {
    ($($name:literal),+ $(,)?) => {
        [$(Page { name: $name, text: include_str!(concat!("../../../docs/", $name, ".md")), html: OnceLock::new() }),+]
    };
}

/// All pages, in the order of the navigation.
pub(super) static PAGES: [Page; 25] = pages![
    "install",
    "api",
    "page",
    "input",
    "samplers",
    "speed",
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
    "proxy",
    "scale",
    "operations",
    "measured",
    "contributing",
];

impl Page {
    /// The heading in the first line.
    pub(super) fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }

    fn render(&self) -> String {
        let rendered = markdown::render(self.text);
        let contents = html! {
            @for section in &rendered.sections { a href={ "#" (section.id) } { (section.title) } }
        };
        layout::page(Place::Guide(self.name), self.title(), &contents, &rendered.body).into_string()
    }
}

pub async fn guide(
    _reader: Keyless,
    name: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let page = PAGES.iter().find(|page| page.name == name.as_str()).ok_or(ApiError::NO_ROUTE)?;
    Ok(super::html(&request, page.html.get_or_init(|| Compressed::new(page.render()))))
}
