//! What all pages share: the head, the navigation and where links lead.

use maud::{DOCTYPE, Markup, html};

use super::guide;

/// Which page it is, for its links and its place in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `/docs`
    Reference,
    /// `/docs/{name}`
    Guide(&'static str),
}

impl Place {
    /// The way from this page to the server's root. It is relative, so that it works behind a path prefix.
    fn root(self) -> &'static str {
        match self {
            Self::Reference => "",
            Self::Guide(_) => "../",
        }
    }
}

/// A whole page. `contents` are the links to its own sections.
pub(super) fn page(place: Place, title: &str, contents: &Markup, main: &Markup) -> Markup {
    let root = place.root();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "stablehand · " (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href={ (root) "docs/page.css" };
                script src={ (root) "docs/page.js" } defer {}
            }
            body {
                nav aria-label="Documentation" {
                    a.name href={ (root) "docs" } { "stablehand" }
                    (link(place, Place::Reference, &format!("{root}docs"), "API reference", contents))
                    @for guide in &guide::PAGES {
                        (link(place, Place::Guide(guide.name), &format!("{root}docs/{}", guide.name), guide.title(), contents))
                    }
                }
                main id="top" { (main) }
            }
        }
    }
}

/// A page in the navigation. The open page has its contents below it.
fn link(open: Place, target: Place, href: &str, title: &str, contents: &Markup) -> Markup {
    html! {
        @if open == target {
            a.open aria-current="page" href="#top" { (title) }
            div.contents { (contents) }
        } @else {
            a href=(href) { (title) }
        }
    }
}

/// Text to copy, with a button that the script shows.
pub(super) fn snippet(text: &str) -> Markup {
    html! {
        div.snippet {
            pre { code { (text) } }
            button type="button" hidden { "Copy" }
        }
    }
}
