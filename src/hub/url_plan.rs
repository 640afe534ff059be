//! The plan for a file at any URL, from the server's answer to a request for its first byte.
//!
//! Sites that publish models answer a download link with a redirect to a signed URL, and name the file in
//! `Content-Disposition`. Each request begins at the link, so a signature that ends does not end the pull, and neither
//! tokens nor signed URLs are stored.

use percent_encoding::percent_decode_str;
use ureq::http::header;

use super::client::{Access, Answer, Range, Stopped};
use super::disposition;
use super::page::model_on_page;
use super::plan::{Plan, PlannedFile};
use super::retry::with_retries;
use super::selection::Selection;
use super::staging::Place;
use super::{Checksum, Hub, HubError, ModelKind, ModelRef, RepoPath};
use crate::domain::WebUrl;

/// What is at a URL.
pub enum Found {
    File(Box<Plan>),
    /// It redirects to a page of the hub, as short links do.
    Page(ModelRef),
}

const MAX_NAME: usize = 128;
/// What can be pulled from a URL, in sentences.
const WEIGHTS: &str = "a file of weights (.safetensors, .ckpt, .pt, .bin)";

impl Hub {
    /// Looks at what the server has at `url`.
    pub(super) fn look_at(&self, url: &WebUrl) -> Result<Found, HubError> {
        let first = Range { from: 0, to: Some(0), unchanged: None };
        let found = with_retries(|| {
            let to_hub = |url: &WebUrl| model_on_page(url, self.base());
            match self.client.get_until(url, Some(first), Access::Given, to_hub) {
                Ok(answer) if matches!(answer.status, 200 | 206) => Ok(Ok(answer)),
                Ok(answer) => Err(self.url_refusal(&answer, url)),
                Err(Stopped::At(page)) => page.map(Err),
                Err(Stopped::Failed(error)) => Err(error),
            }
        })?;
        match found {
            Ok(answer) => Ok(Found::File(Box::new(plan(url, &answer)?))),
            Err(page) => Ok(Found::Page(page)),
        }
    }

    /// The error for a response from a URL that is no page of a model of the hub.
    pub(super) fn url_refusal(&self, answer: &Answer, url: &WebUrl) -> HubError {
        let what = last_segment(url).map_or_else(|| "this URL".to_owned(), |path| path.to_string());
        let host = answer.host().to_owned();
        let has_token = self.client.has_download_token();
        match answer.status {
            401 | 403 if self.client.is_of_hub(&answer.url) => {
                HubError::ForbiddenByHub { host, what, has_token: self.client.has_hub_token() }
            }
            401 | 403 => HubError::Forbidden { host, what, has_token },
            404 | 410 => HubError::Missing { host, what },
            _ => answer.refusal(what),
        }
    }
}

fn plan(url: &WebUrl, answer: &Answer) -> Result<Plan, HubError> {
    let is_page = answer.header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let named = answer.disposition.as_ref().and_then(|value| disposition::file_name(value.as_bytes()));
    let path = last_segment(url)
        .filter(RepoPath::is_weights)
        .or_else(|| named.and_then(|name| safe_name(&name)))
        .or_else(|| last_segment(&answer.url))
        .filter(|path| path.is_weights() && !is_page);
    let Some(path) = path else { return Err(no_model(url, is_page)) };
    let size = match answer.content_range() {
        Some((_, size)) => size,
        None => answer.content_length(),
    };
    let (host, port) = (url.host(), url.as_url().port().map(|port| format!(":{port}")).unwrap_or_default());
    let mut source = url.as_url().clone();
    source.set_query(None);
    let files = [path.clone()].into();
    let selection = Selection {
        kind: ModelKind::File,
        folder: None,
        checkpoint: Some(path.clone()),
        files,
        indexes: Vec::new(),
    };
    Ok(Plan {
        name: format!("{host}{port}/{path}"),
        place: Place::for_model(&ModelRef::Url(url.clone()), &path),
        source: source.into(),
        repository: None,
        commit: None,
        kind: ModelKind::File,
        files: vec![PlannedFile {
            origin: path.clone(),
            path,
            url: url.clone(),
            size,
            checksum: answer.linked_sha256.clone().map(Checksum::Sha256),
            validator: answer.validator().map(str::to_owned),
        }],
        notes: selection.note_on_pickles().into_iter().collect(),
    })
}

fn no_model(url: &WebUrl, is_page: bool) -> HubError {
    let host = url.host();
    HubError::Refused(match is_page {
        true => format!(
            "{host} has a web page at this URL: give the URL of {WEIGHTS}, such as the link of the page's download button; \
             if the page asks to log in, set STABLEHAND_DOWNLOAD_TOKEN"
        ),
        false => format!("{host} has no file of weights at this URL: give the URL of {WEIGHTS}"),
    })
}

/// The file name at the end of a URL.
fn last_segment(url: &WebUrl) -> Option<RepoPath> {
    let name = percent_decode_str(url.as_url().path_segments()?.next_back()?).decode_utf8().ok()?;
    safe_name(&name)
}

/// The text as the name of a file. A name that is a path, hidden or long is no name.
fn safe_name(name: &str) -> Option<RepoPath> {
    let is_good = !name.contains(['/', ':']) && !name.starts_with('.') && name.len() <= MAX_NAME;
    name.parse().ok().filter(|_| is_good)
}
