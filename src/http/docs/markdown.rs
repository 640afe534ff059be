//! Markdown to HTML, for pages of our own.
//!
//! Links between pages lose their `.md`, links to other files of the repository become plain text, and headings get
//! the ids that GitHub gives them, so that one source works in both places.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use super::layout::snippet;

/// A page as HTML.
pub(super) struct Rendered {
    pub body: Markup,
    /// Its sections of the second level.
    pub sections: Vec<Section>,
}

pub(super) struct Section {
    pub id: String,
    pub title: String,
}

pub(super) fn render(text: &str) -> Rendered {
    let mut source = Parser::new_ext(text, Options::ENABLE_TABLES);
    let mut events: Vec<Event> = Vec::new();
    let mut sections = Vec::new();
    // One entry for each open link: whether it is kept.
    let mut links = Vec::new();
    while let Some(event) = source.next() {
        match event {
            Event::Start(Tag::Heading { level, classes, attrs, .. }) => {
                let inner: Vec<Event> = source
                    .by_ref()
                    .take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))))
                    .collect();
                let title = plain_text(&inner);
                let id = slug(&title);
                events.push(Event::Start(Tag::Heading {
                    level,
                    id: Some(id.clone().into()),
                    classes,
                    attrs,
                }));
                events.extend(inner);
                events.push(Event::End(TagEnd::Heading(level)));
                if level == HeadingLevel::H2 {
                    sections.push(Section { id, title });
                }
            }
            Event::Start(Tag::CodeBlock(_)) => {
                let inner: Vec<Event> = source
                    .by_ref()
                    .take_while(|event| !matches!(event, Event::End(TagEnd::CodeBlock)))
                    .collect();
                events.push(Event::Html(snippet(plain_text(&inner).trim_end()).into_string().into()));
            }
            // Wide tables scroll on their own.
            Event::Start(Tag::Table(_)) => {
                events.push(Event::Html(r#"<div class="table">"#.into()));
                events.push(event);
            }
            Event::End(TagEnd::Table) => {
                events.push(event);
                events.push(Event::Html("</div>".into()));
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let target = served(&dest_url);
                links.push(target.is_some());
                if let Some(target) = target {
                    events.push(Event::Start(Tag::Link { link_type, dest_url: target.into(), title, id }));
                }
            }
            Event::End(TagEnd::Link) => {
                if links.pop() == Some(true) {
                    events.push(event);
                }
            }
            // Our pages have no HTML; if one had, it would be shown as text.
            Event::Html(text) | Event::InlineHtml(text) => events.push(Event::Text(text)),
            event => events.push(event),
        }
    }
    let mut body = String::new();
    html::push_html(&mut body, events.into_iter());
    Rendered { body: PreEscaped(body), sections }
}

fn plain_text(events: &[Event]) -> String {
    let mut plain = String::new();
    for event in events {
        match event {
            Event::Text(text) | Event::Code(text) => plain.push_str(text),
            Event::SoftBreak => plain.push(' '),
            _ => {}
        }
    }
    plain
}

/// The id that GitHub gives a heading.
fn slug(title: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    title.to_lowercase().chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Where a link leads on this server; `None` for files that it does not serve.
fn served(target: &str) -> Option<String> {
    if target.starts_with('#') || target.starts_with("https://") || target.starts_with("http://") {
        return Some(target.to_owned());
    }
    let (file, fragment) = target.split_once('#').map_or((target, None), |(file, id)| (file, Some(id)));
    let page = file.strip_suffix(".md").filter(|page| !page.contains('/'))?;
    Some(fragment.map_or_else(|| page.to_owned(), |id| format!("{page}#{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> String {
        render(text).body.into_string()
    }

    #[test]
    fn links_lead_to_pages_of_this_server_or_become_text() {
        assert_eq!(body("[a](models.md)"), "<p><a href=\"models\">a</a></p>\n");
        assert_eq!(body("[a](models.md#one-file)"), "<p><a href=\"models#one-file\">a</a></p>\n");
        assert_eq!(body("[a](#here)"), "<p><a href=\"#here\">a</a></p>\n");
        assert_eq!(body("[a](https://b.example/c.md)"), "<p><a href=\"https://b.example/c.md\">a</a></p>\n");
        assert_eq!(body("[`a`](../models/README.md) b"), "<p><code>a</code> b</p>\n");
    }

    #[test]
    fn headings_have_the_ids_that_github_gives_them() {
        let page = render("# Top\n\n## What `a` request may reach, and why\n\n### Deeper\n");
        assert!(page.body.into_string().contains("<h2 id=\"what-a-request-may-reach-and-why\">"));
        let sections: Vec<&str> = page.sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(sections, ["What a request may reach, and why"]);
    }

    #[test]
    fn html_is_shown_as_text() {
        assert_eq!(body("a <b onclick='x'>"), "<p>a &lt;b onclick='x'&gt;</p>\n");
        assert!(!body("<script>\nalert(1)\n</script>\n").contains("<script"));
    }

    #[test]
    fn code_can_be_copied_and_tables_scroll() {
        let code = body("```sh\na < b\n```\n");
        assert!(code.contains("<pre><code>a &lt; b</code></pre><button"), "{code}");
        assert!(body("| a |\n| - |\n| b |\n").starts_with("<div class=\"table\"><table>"));
    }
}
