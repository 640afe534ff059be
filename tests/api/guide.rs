//! The guide: the Markdown pages beside the code, and the same pages as the server shows them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use url::Url;

use crate::client::Request;
use crate::helpers::TestApp;

/// A server behind a proxy that removes `/some/prefix` from paths.
const PREFIX: &str = "http://proxy.example/some/prefix";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the pages in `docs/`.
fn pages() -> BTreeSet<String> {
    let files = std::fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The values of an attribute in a page.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    page.split(&format!(" {name}=\"")).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn every_page_of_the_guide_is_served_and_in_the_navigation() {
    let app = TestApp::start();
    let reference = Request::new("GET", "/docs").send(app.port);
    let linked: BTreeSet<String> = attributes(reference.text(), "href")
        .iter()
        .filter_map(|href| href.strip_prefix("docs/").filter(|name| !name.contains('.')))
        .map(str::to_owned)
        .collect();
    assert_eq!(linked, pages());
    for name in pages() {
        let page = Request::new("GET", &format!("/docs/{name}")).send(app.port);
        assert_eq!(page.status, 200, "{name}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none';"));
        let source = std::fs::read_to_string(repository().join(format!("docs/{name}.md"))).unwrap();
        let title = source.lines().next().unwrap().strip_prefix("# ").unwrap();
        assert!(page.text().contains(&format!(">{title}</h1>")), "{name}");
        // Nothing was left unrendered: the pages have no HTML, and tables are tables.
        assert!(!page.text().contains("&lt;div") && !page.text().contains("| --- |"), "{name}");
    }
    assert_eq!(Request::new("GET", "/docs/no-such-page").send(app.port).error(), "No such route.");
}

#[test]
fn every_link_works_behind_a_path_prefix() {
    let app = TestApp::start();
    for name in pages().iter().map(|name| format!("/docs/{name}")).chain(["/docs".to_owned()]) {
        let base = Url::parse(&format!("{PREFIX}{name}")).unwrap();
        let page = Request::new("GET", &name).send(app.port);
        let links = [attributes(page.text(), "href"), attributes(page.text(), "src")].concat();
        for link in links.into_iter().filter(|link| !link.starts_with("data:")) {
            let target = base.join(link).unwrap();
            let Some(path) = target.as_str().strip_prefix(PREFIX) else {
                assert!(link.starts_with("https://"), "{name}: {link} leads out of the prefix");
                continue;
            };
            let answer = Request::new("GET", path.split('#').next().unwrap()).send(app.port);
            assert_eq!(answer.status, 200, "{name}: {link}");
            if let Some(id) = target.fragment() {
                assert!(attributes(answer.text(), "id").contains(&id), "{name}: {link}");
            }
        }
    }
}

/// The targets of the links and pictures in a Markdown file, without code.
fn markdown_links(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
}

#[test]
fn every_link_between_files_leads_to_a_file() {
    let mut files: Vec<PathBuf> =
        pages().iter().map(|name| repository().join(format!("docs/{name}.md"))).collect();
    for readme in ["README.md", "models/README.md", "models/graphs/README.md", "models/tiny-sd/README.md"] {
        files.push(repository().join(readme));
    }
    let mut found = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in markdown_links(&text)
            .iter()
            .filter(|link| !link.starts_with("https://") && !link.starts_with('#'))
        {
            let target = file.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", file.display());
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}
