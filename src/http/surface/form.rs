//! A `multipart/form-data` body: fields of text, and files.
//!
//! The whole body is in memory already, and its size was limited there. A part is a file if it has a file name or if the
//! surface says that its name is a file's; all other parts are fields of text.

use actix_web::web::Bytes;
use futures_util::{FutureExt as _, stream};
use serde_json::{Map, Value};

use super::Fields;
use crate::http::request::ApiError;

/// The most parts of one body.
const MAX_PARTS: usize = 64;

/// A file in a form.
pub struct Part {
    pub name: String,
    pub bytes: Bytes,
}

/// What was sent. Of several fields with one name, the last counts.
pub struct Form {
    pub fields: Fields,
    /// In the order of the body.
    pub files: Vec<Part>,
}

impl Form {
    /// Whether a Content-Type is that of a form.
    pub fn is_announced(content_type: &str) -> bool {
        content_type.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
    }

    /// Reads a form. Blocks for as long as that takes.
    pub fn read(content_type: &str, body: Bytes, is_file: impl Fn(&str) -> bool) -> Result<Self, ApiError> {
        let boundary = multer::parse_boundary(content_type).map_err(|error| malformed(&error))?;
        let whole = stream::iter([Ok::<_, std::io::Error>(body)]);
        let mut parts = multer::Multipart::new(whole, boundary);
        let read = async move {
            let (mut fields, mut files) = (Map::new(), Vec::new());
            let mut count = 0;
            while let Some(part) = parts.next_field().await.map_err(|error| malformed(&error))? {
                count += 1;
                if count > MAX_PARTS {
                    return Err(ApiError::BadRequest(format!(
                        "The form has more than {MAX_PARTS} parts; send fewer."
                    )));
                }
                let name = part.name().unwrap_or_default().to_owned();
                let is_file = part.file_name().is_some() || is_file(&name);
                let bytes = part.bytes().await.map_err(|error| malformed(&error))?;
                if is_file {
                    files.push(Part { name, bytes });
                } else {
                    fields.insert(name, Value::String(String::from_utf8_lossy(&bytes).into_owned()));
                }
            }
            Ok(Self { fields: Fields::new(fields), files })
        };
        // All bytes are there, so nothing waits.
        read.now_or_never().unwrap_or(Err(ApiError::Internal))
    }
}

/// The sentence quotes nothing of the form.
fn malformed(error: &multer::Error) -> ApiError {
    let why = match error {
        multer::Error::NoBoundary | multer::Error::NoMultipart | multer::Error::DecodeContentType(_) => {
            "its Content-Type names no boundary"
        }
        multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders
        | multer::Error::IncompleteStream => "it ends before its last boundary",
        _ => "a part's headers cannot be read",
    };
    ApiError::BadRequest(format!("The request body is not a valid multipart form: {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Form, String> {
        let body = Bytes::from(body.replace('\n', "\r\n"));
        let read = Form::read("multipart/form-data; boundary=X", body, |name| name == "image");
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn texts_and_files_are_told_apart_by_file_name_or_name() {
        let form = read(
            "--X\nContent-Disposition: form-data; name=\"prompt\"\n\na fox\n\
             --X\nContent-Disposition: form-data; name=\"image\"\n\nraw\n\
             --X\nContent-Disposition: form-data; name=\"mask\"; filename=\"blob\"\nContent-Type: application/octet-stream\n\n\0\n\
             --X\nContent-Disposition: form-data; name=\"n\"\n\n2\n--X--\n",
        )
        .unwrap();
        let files: Vec<_> = form.files.iter().map(|file| (file.name.as_str(), &file.bytes[..])).collect();
        assert_eq!(files, [("image", &b"raw"[..]), ("mask", b"\0")]);
        assert_eq!(form.fields.text(&["prompt"]).unwrap().as_deref(), Some("a fox"));
        assert_eq!(form.fields.integer(&["n"]).unwrap(), Some(2));
    }

    #[test]
    fn a_form_that_is_cut_short_or_has_too_many_parts_is_refused() {
        let part = "--X\nContent-Disposition: form-data; name=\"a\"\n\n1\n";
        assert!(read(&format!("{}--X--\n", part.repeat(MAX_PARTS))).is_ok());
        let sentence = read(&format!("{}--X--\n", part.repeat(MAX_PARTS + 1))).err().unwrap();
        assert_eq!(sentence, "The form has more than 64 parts; send fewer.");
        for body in ["", "a fox", part, "--X\n", "--X\nContent-Disposition: form-data; name=\"a\"\n"] {
            let sentence = read(body).err().unwrap_or_else(|| panic!("{body}"));
            assert!(sentence.starts_with("The request body is not a valid multipart form: "), "{sentence}");
        }
        assert!(Form::read("multipart/form-data", Bytes::new(), |_| false).is_err());
    }
}
