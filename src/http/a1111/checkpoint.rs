//! Endpoints as A1111's checkpoints: a file name, a title and a name each.

use serde_json::{Value, json};

use crate::http::request::{Endpoints, ServedEndpoint};

const EXTENSIONS: [&str; 2] = [".safetensors", ".ckpt"];

/// The name of an endpoint's file, as A1111's clients expect one. It is also its title, since a title has a hash only where
/// A1111 has computed it.
pub fn title(endpoint: &ServedEndpoint) -> String {
    format!("{}{}", endpoint.id, EXTENSIONS[0])
}

/// A row of `/sd-models`.
pub fn row(endpoint: &ServedEndpoint) -> Value {
    json!({
        "title": title(endpoint),
        "model_name": endpoint.id,
        "hash": null,
        "sha256": null,
        "filename": title(endpoint),
        "config": null,
    })
}

/// The endpoint that a client's text means: a title, also with the hash that another server gave it; a file with or
/// without its folder and extension; an endpoint's id, or the name of its model.
pub fn find<'a>(endpoints: &'a Endpoints, text: &str) -> Option<&'a ServedEndpoint> {
    let text = text.trim();
    let unhashed = match text.rsplit_once(" [") {
        Some((name, hash)) if hash.ends_with(']') => name,
        _ => text,
    };
    let file = unhashed.rsplit(['/', '\\']).next().unwrap_or(unhashed);
    let bare = EXTENSIONS.iter().find_map(|extension| file.strip_suffix(extension)).unwrap_or(file);
    [text, unhashed, file, bare].into_iter().find_map(|name| endpoints.named(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointId, InputRules};

    #[test]
    fn a_checkpoint_is_found_by_every_name_that_clients_have_for_it() {
        let served = |id: &str, model: &str| ServedEndpoint {
            id: EndpointId::new(id),
            rules: InputRules::default(),
            model: model.to_owned(),
        };
        let endpoints = Endpoints::new(vec![served("first", "sd15"), served("anime", "anything-v3")]);
        for text in [
            "anime",
            "Anime",
            "anime.safetensors",
            "anime.safetensors [6ce0161689]",
            "anime [6ce0161689]",
            "models/anime.ckpt",
            "C:\\models\\anime.safetensors [6ce0161689]",
            "anything-v3",
            "anything-v3.ckpt",
            " anime ",
        ] {
            assert_eq!(find(&endpoints, text).map(|endpoint| endpoint.id.as_str()), Some("anime"), "{text}");
        }
        for text in ["", "second", "[anime]", "anime.pt", ".safetensors"] {
            assert!(find(&endpoints, text).is_none(), "{text}");
        }
    }
}
