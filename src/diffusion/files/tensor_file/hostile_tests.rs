//! Files made to run code, to read beyond themselves, or to take all memory and time.

use std::io::Write as _;

use tempfile::NamedTempFile;

use super::*;

#[path = "../../../../tests/golden/torch_writer.rs"]
mod torch_writer;

use torch_writer::{Around, TorchTensor, pickle, save, save_old, text, zipped};

fn opened(bytes: &[u8]) -> Result<TensorFile, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    TensorFile::open(file.path()).map_err(|error| error.to_string())
}

/// Why the file is refused: one line.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    let sentence = opened(bytes).err().expect("it is refused");
    assert!(!sentence.contains('\n') && sentence.len() < 600, "{sentence}");
    sentence
}

/// What stands in front of the value in a file of the older form.
const OLD_START: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";

/// The pickle in a file of today's form, beside one storage of 16 bytes.
fn holding(pickle: &[u8]) -> Vec<u8> {
    zipped(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])
}

/// A pickle's opcodes, with texts in their places.
macro_rules! opcodes {
    ($($part:expr),* $(,)?) => {{
        let mut pickle = b"\x80\x02".to_vec();
        $(Part::from($part).write(&mut pickle);)*
        pickle
    }};
}

// Behind the macro, which they use.
mod archives;
mod limits;
mod pickles;

enum Part<'a> {
    Raw(&'a [u8]),
    Text(&'a str),
}

impl<'a, const LENGTH: usize> From<&'a [u8; LENGTH]> for Part<'a> {
    fn from(raw: &'a [u8; LENGTH]) -> Self {
        Self::Raw(raw)
    }
}

impl<'a> From<&'a [u8]> for Part<'a> {
    fn from(raw: &'a [u8]) -> Self {
        Self::Raw(raw)
    }
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl Part<'_> {
    fn write(self, pickle: &mut Vec<u8>) {
        match self {
            Self::Raw(raw) => pickle.extend(raw),
            Self::Text(line) => text(pickle, line),
        }
    }
}

/// A tensor of the storage `0`, which has four f32, with these opcodes for offset, shape and strides.
fn tensor(offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    opcodes![
        b"}",
        "t",
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        "storage",
        b"ctorch\nFloatStorage\n",
        "0",
        "cpu",
        b"K\x04tQ",
        offset,
        shape,
        strides,
        b"\x89}tRs."
    ]
}
