//! Pictures on this computer. A language model names a file; the server, which may be elsewhere, gets the picture.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::domain::MAX_IMAGE_BYTES;

/// The arguments that are pictures.
const PICTURES: [&str; 2] = ["image", "mask"];
/// Longer texts are no paths.
const MAX_PATH: usize = 4096;

/// Puts pictures in the place of paths into a call. The error is a sentence for the language model.
pub(super) fn put_in(message: &mut Value) -> Result<(), String> {
    if message["method"] != "tools/call" {
        return Ok(());
    }
    let Some(arguments) = message.pointer_mut("/params/arguments").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    for name in PICTURES {
        let Some(Value::String(text)) = arguments.get_mut(name) else { continue };
        if let Some(path) = path(text) {
            *text = read(&path).map_err(|why| format!("{name} does not meet the constraints. {why}"))?;
        }
    }
    Ok(())
}

/// Says in the descriptions of tools that paths are understood.
pub(super) fn announce(answer: &mut Value) {
    let Some(tools) = answer.pointer_mut("/result/tools").and_then(Value::as_array_mut) else { return };
    for tool in tools {
        for name in PICTURES {
            if let Some(Value::String(about)) =
                tool.pointer_mut(&format!("/inputSchema/properties/{name}/description"))
            {
                about.push_str(", or the path of a file on this computer");
            }
        }
    }
}

/// The path that a text is. Base64 may begin like one (`/9j/` is a JPEG), but it is no file, and has no dots.
fn path(text: &str) -> Option<PathBuf> {
    let text = text.trim();
    let is_other = ["data:", "http://", "https://"].iter().any(|prefix| text.starts_with(prefix));
    if is_other || text.is_empty() || text.len() > MAX_PATH {
        return None;
    }
    if text.starts_with("file:") {
        return url::Url::parse(text).ok()?.to_file_path().ok();
    }
    let path = match text.strip_prefix("~/") {
        Some(rest) => directories::UserDirs::new()?.home_dir().join(rest),
        None => PathBuf::from(text),
    };
    (path.is_file() || text.contains('.') || text.starts_with('~')).then_some(path)
}

fn read(path: &Path) -> Result<String, String> {
    let unread = |error: std::io::Error| format!("The file cannot be read: {error}.");
    let about = fs::metadata(path).map_err(unread)?;
    if !about.is_file() {
        return Err("It is not a file.".to_owned());
    }
    if about.len() > MAX_IMAGE_BYTES as u64 {
        return Err(format!("The file has {} bytes; at most {MAX_IMAGE_BYTES} are allowed.", about.len()));
    }
    Ok(STANDARD.encode(fs::read(path).map_err(unread)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(image: &str) -> Value {
        json!({"method": "tools/call", "params": {"name": "edit_image", "arguments": {"prompt": "a.b", "image": image}}})
    }

    #[test]
    fn a_path_is_replaced_by_the_file_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a fox.png");
        fs::write(&file, b"\x89PNG").unwrap();
        let url = url::Url::from_file_path(&file).unwrap();
        for text in [file.to_str().unwrap(), url.as_str()] {
            let mut message = call(text);
            put_in(&mut message).unwrap();
            assert_eq!(message, call("iVBORw=="), "{text}");
        }
        for text in
            ["/9j/4AAQSkZJRg==", "data:image/png;base64,iVBORw==", "https://a.example/b.png", "iVBORw==", ""]
        {
            let mut message = call(text);
            put_in(&mut message).unwrap();
            assert_eq!(message, call(text));
        }
        let missing = put_in(&mut call("/nowhere/fox.png")).unwrap_err();
        assert!(
            missing.starts_with("image does not meet the constraints. The file cannot be read:"),
            "{missing}"
        );
        assert!(put_in(&mut call(&format!("{}/.", folder.path().display()))).is_err());
    }
}
