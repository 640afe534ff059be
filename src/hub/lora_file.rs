//! Tells a LoRA from a model by the names of its tensors, so that a LoRA is not kept among the models, where nothing could use it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::de::IgnoredAny;

/// No header of a LoRA is longer.
const LONGEST_HEADER: u64 = 16 << 20;

/// Whether this is a safetensors file with tensors of a LoRA and no others. False for what cannot be read.
pub fn is_lora(path: &Path) -> bool {
    names(path).is_ok_and(|names| {
        let mut tensors = names.keys().filter(|name| *name != "__metadata__").peekable();
        tensors.peek().is_some() && tensors.all(|name| name.to_ascii_lowercase().contains("lora"))
    })
}

#[expect(clippy::zero_sized_map_values, reason = "the form in which serde reads names and skips the rest")]
fn names(path: &Path) -> io::Result<HashMap<String, IgnoredAny>> {
    let mut file = File::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lora_with(header: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let length = (header.len() as u64).to_le_bytes();
        std::fs::write(&path, [&length[..], header.as_bytes()].concat()).unwrap();
        is_lora(&path)
    }

    #[test]
    fn only_a_file_with_nothing_but_a_lora_is_one() {
        let file = |names: &[&str]| {
            let tensors: serde_json::Map<String, serde_json::Value> =
                names.iter().map(|name| ((*name).to_owned(), serde_json::json!({"shape": [1]}))).collect();
            is_lora_with(&serde_json::Value::Object(tensors).to_string())
        };
        assert!(file(&["__metadata__", "lora_unet_x.lora_down.weight", "lora_unet_x.alpha"]));
        assert!(file(&["unet.x.lora_A.weight", "unet.x.lora_B.weight"]));
        assert!(!file(&["lora_unet_x.alpha", "model.diffusion_model.x.weight"]));
        assert!(!file(&["__metadata__"]) && !file(&[]));
        for header in ["", "[]", "{", "null"] {
            assert!(!is_lora_with(header), "{header}");
        }
        assert!(!is_lora(Path::new("/nowhere")));
    }
}
