//! A textual inversion: a file of A1111 or diffusers with the vectors of one word.

use std::io::Read as _;
use std::path::Path;

use ndarray::Array2;
use sha2::{Digest as _, Sha256};

use super::TensorFile;
use crate::domain::ModelFamily;

/// The vectors, and the word if the file names one.
pub struct TextualInversion {
    pub word: Option<String>,
    /// `[vectors, width]`.
    pub vectors: Array2<f32>,
}

/// A1111's name for the only tensor. diffusers names it by the word.
const UNNAMED: &str = "emb_params";
/// The name of diffusers' training script for the only tensor. Stable Diffusion XL has `clip_g` beside it.
const CLIP_L: &str = "clip_l";
/// The tensor for the second text encoder of Stable Diffusion XL.
const CLIP_G: &str = "clip_g";

impl TextualInversion {
    /// Reads the file at `path` for a model whose vectors are `width` wide and whose prompts take up to `room` of them. The
    /// error says what is wrong with the file.
    pub fn read(path: &Path, width: usize, room: usize) -> Result<Self, String> {
        let file = TensorFile::open(path).map_err(|error| error.to_string())?;
        let names = file.tensor_names();
        if names.iter().any(|name| name == CLIP_G) {
            return Err("it is for Stable Diffusion XL, judging by its tensor clip_g".to_owned());
        }
        let [name] = names.as_slice() else {
            return Err(format!("it has {} tensors, but a textual inversion has one", names.len()));
        };
        let shape = file.shape(name).unwrap_or_default();
        let (vectors, found) = match shape[..] {
            [found] => (1, found),
            [vectors, found] => (vectors, found),
            _ => {
                return Err(format!("its tensor {name} has the shape {shape:?} instead of [vectors, width]"));
            }
        };
        if found != width {
            let whose = ModelFamily::from_embedding_width(found)
                .map_or(String::new(), |family| format!(", as {family}'s are"));
            return Err(format!("its vectors are {found} wide{whose}; this model's are {width}"));
        }
        if !(1..=room).contains(&vectors) {
            return Err(format!("it has {vectors} vectors; a prompt takes from 1 to {room}"));
        }
        let values = file.values(name).map_err(|error| error.to_string())?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(format!("its tensor {name} has values that are NaN or infinite"));
        }
        let vectors = Array2::from_shape_vec((vectors, width), values);
        let vectors = vectors.map_err(|_| format!("its tensor {name} is cut off"))?;
        Ok(Self { word: Some(name).filter(|name| *name != UNNAMED && *name != CLIP_L).cloned(), vectors })
    }
}

/// The first digits of the SHA-256 of a file after `skip` bytes, as A1111 writes it into pictures. Empty where the
/// file cannot be read.
pub fn short_hash(path: &Path, skip: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(skip))?;
        let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut block)? {
                0 => break,
                read => hasher.update(&block[..read]),
            }
        }
        let start = hasher.finalize().iter().take(6).fold(0_u64, |start, byte| start << 8 | u64::from(*byte));
        Ok(format!("{start:012x}"))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use safetensors::serialize_to_file;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    fn read(tensors: &[(&str, [usize; 2])]) -> Result<TextualInversion, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes = 0.5_f32.to_le_bytes().repeat(4096);
        let views = tensors.iter().map(|(name, shape)| {
            let bytes = &bytes[..4 * shape[0] * shape[1]];
            ((*name).to_owned(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        serialize_to_file(views, None, file.path()).unwrap();
        TextualInversion::read(file.path(), 8, 75)
    }

    #[test]
    fn only_a_word_is_taken_from_the_name_of_the_tensor() {
        for (name, word) in [("emb_params", None), ("clip_l", None), ("<fox>", Some("<fox>"))] {
            let inversion = read(&[(name, [2, 8])]).unwrap();
            assert_eq!(inversion.word.as_deref(), word);
            assert_eq!(inversion.vectors.shape(), [2, 8], "{name}");
        }
    }

    #[test]
    fn vectors_for_another_family_are_refused() {
        for (tensors, part) in [
            (
                &[("clip_l", [2, 8]), ("clip_g", [2, 16])][..],
                "Stable Diffusion XL, judging by its tensor clip_g",
            ),
            (&[("clip_g", [2, 16])], "Stable Diffusion XL, judging by its tensor clip_g"),
            (&[("clip_l", [2, 1024])], "1024 wide, as Stable Diffusion 2's are; this model's are 8"),
            (&[("clip_l", [2, 8]), ("other", [2, 8])], "has 2 tensors"),
        ] {
            let sentence = read(tensors).err().unwrap();
            assert!(sentence.contains(part), "{sentence}");
        }
    }
}
