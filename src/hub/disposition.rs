//! The file name in a `Content-Disposition` header (RFC 6266), as servers in fact write it.

use percent_encoding::{percent_decode, percent_decode_str};

/// The name in `filename*`, otherwise the one in `filename`. It is not checked: it may be any text.
pub fn file_name(header: &[u8]) -> Option<String> {
    // Many servers send raw UTF-8, and old ones Latin-1.
    let text = std::str::from_utf8(header).map_or_else(|_| latin_1(header), str::to_owned);
    let parameters = parameters(&text);
    let value = |wanted: &str| parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let extended = value("filename*").and_then(|(_, value)| extended(value));
    extended.or_else(|| value("filename").map(|(_, value)| plain(value))).filter(|name| !name.is_empty())
}

/// The parameters after the type: `; NAME=VALUE`, where the value may be a quoted string with semicolons in it.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, behind)) = rest.split_once('=') {
        // Whatever stands before a semicolon without a value is skipped.
        let name = name.rsplit(';').next().unwrap_or(name).trim().to_owned();
        let behind = behind.trim_start();
        let plain = || {
            let end = behind.find(';').unwrap_or(behind.len());
            (behind[..end].trim().to_owned(), end)
        };
        let (value, length) = behind.strip_prefix('"').map_or_else(plain, quoted_string);
        found.push((name, value));
        rest = &behind[length..];
    }
    found
}

/// The content of a quoted string whose first quotation mark has been read, and its length with both marks. A backslash
/// makes the next character a part of it.
fn quoted_string(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, at + 2),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, text.len() + 1)
}

/// `CHARSET'LANGUAGE'NAME`, with the name's bytes escaped by `%` (RFC 8187).
fn extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _, name) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(name).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(latin_1(&bytes)),
        _ => None,
    }
}

/// A plain name. Many servers escape it although the standard does not say so, and browsers read it.
fn plain(value: &str) -> String {
    percent_decode(value.as_bytes()).decode_utf8().map_or_else(|_| value.to_owned(), Into::into)
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_is_read_as_servers_write_it() {
        for (header, name) in [
            (r"attachment; filename=dream.safetensors", "dream.safetensors"),
            (r#"attachment; filename="dream v1.safetensors""#, "dream v1.safetensors"),
            (r#"ATTACHMENT;FileName = "dream.safetensors";size=3"#, "dream.safetensors"),
            (r#"inline; x; filename="a;b=c\"d\\.safetensors"; y=1"#, r#"a;b=c"d\.safetensors"#),
            (r"attachment; filename*=UTF-8''d%C3%A9j%C3%A0%20vu.safetensors", "déjà vu.safetensors"),
            (r"attachment; filename*=utf-8'en'a.safetensors; filename=b.safetensors", "a.safetensors"),
            (r#"attachment; filename="b.safetensors"; filename*=UTF-8''a.safetensors"#, "a.safetensors"),
            (r"attachment; filename*=ISO-8859-1''d%E9j%E0.safetensors", "déjà.safetensors"),
            (r"attachment; filename*=UTF-16''x; filename=a.safetensors", "a.safetensors"),
            (r"attachment; filename*=broken; filename=a.safetensors", "a.safetensors"),
            (r"attachment; filename=a%20b.safetensors", "a b.safetensors"),
            (r#"attachment; filename="déjà.safetensors""#, "déjà.safetensors"),
            (r#"attachment; filename="open"#, "open"),
        ] {
            assert_eq!(file_name(header.as_bytes()).as_deref(), Some(name), "{header}");
        }
        assert_eq!(file_name(b"attachment; filename=d\xe9.pt").as_deref(), Some("dé.pt"));
        for header in ["", "attachment", "attachment; filename=", "attachment; filename=\"\"", "; =", "a;b;c"]
        {
            assert_eq!(file_name(header.as_bytes()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_to_its_end(header in proptest::collection::vec(any::<u8>(), 0..60), text in r#"[;="\\'a*é% ]{0,24}"#) {
            file_name(&header);
            file_name(text.as_bytes());
        }
    }
}
