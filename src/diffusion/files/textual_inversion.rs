//! A textual inversion: a `.safetensors` file of A1111 or diffusers with the vectors of one word.

use std::io::Read as _;
use std::path::Path;

use ndarray::Array2;
use sha2::{Digest as _, Sha256};

use super::SafetensorsFile;
use crate::domain::ModelFamily;

/// The vectors, and the word if the file names one.
pub struct TextualInversion {
    pub word: Option<String>,
    /// `[vectors, width]`.
    pub vectors: Array2<f32>,
}

/// A1111's name for the only tensor. diffusers names it by the word.
const UNNAMED: &str = "emb_params";
/// The tensors for the two text encoders of Stable Diffusion XL.
const XL: [&str; 2] = ["clip_l", "clip_g"];

impl TextualInversion {
    /// Reads the file at `path` for a model whose vectors are `width` wide and whose prompts take up to `room` of them. The
    /// error says what is wrong with the file.
    pub fn read(path: &Path, width: usize, room: usize) -> Result<Self, String> {
        let file = SafetensorsFile::open(path).map_err(|error| error.to_string())?;
        let names = file.tensor_names();
        if names.iter().any(|name| XL.contains(&name.as_str())) {
            return Err("it is for Stable Diffusion XL, judging by its tensors clip_l and clip_g".to_owned());
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
        Ok(Self { word: (name != UNNAMED).then(|| name.clone()), vectors })
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
