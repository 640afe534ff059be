//! Writes files as `torch.save` does, for tests: `torch.load` reads them. What torch itself wrote is in `torch/`.

use std::io::{Cursor, Write as _};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A tensor and what torch calls the storage of its type, such as `Half`.
pub struct TorchTensor<'a> {
    pub name: &'a str,
    pub storage: &'a str,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// What lies around the tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Around {
    Nothing,
    /// A checkpoint of a trainer, with the tensors in its `state_dict`.
    Checkpoint,
}

/// A zip archive whose entries are stored, as torch writes since 1.6.
pub fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(*name, stored).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

pub fn save(tensors: &[TorchTensor], around: Around) -> Vec<u8> {
    let pickle = pickle(tensors, around);
    let names: Vec<String> = (0..tensors.len()).map(|key| format!("archive/data/{key}")).collect();
    let mut entries: Vec<(&str, &[u8])> =
        vec![("archive/data.pkl", &pickle), ("archive/byteorder", b"little"), ("archive/version", b"3\n")];
    entries.extend(names.iter().map(String::as_str).zip(tensors.iter().map(|tensor| tensor.bytes)));
    zipped(&entries)
}

/// As torch wrote before 1.6.
pub fn save_old(tensors: &[TorchTensor], around: Around) -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}(".to_vec();
    text(&mut file, "little_endian");
    file.extend(b"\x88u.");
    file.extend(pickle(tensors, around));
    file.extend(b"\x80\x02](");
    (0..tensors.len()).for_each(|key| text(&mut file, &key.to_string()));
    file.extend(b"e.");
    for tensor in tensors {
        file.extend(u64::try_from(count(tensor)).unwrap().to_le_bytes());
        file.extend(tensor.bytes);
    }
    file
}

/// The pickle of an ordered dict of tensors.
pub fn pickle(tensors: &[TorchTensor], around: Around) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    if around == Around::Checkpoint {
        pickle.extend(b"}(");
        text(&mut pickle, "global_step");
        pickle.extend(b"K\x07");
        text(&mut pickle, "callbacks");
        pickle.extend(b"cpytorch_lightning.callbacks\nModelCheckpoint\n)R");
        text(&mut pickle, "state_dict");
    }
    pickle.extend(b"ccollections\nOrderedDict\n)R(");
    for (key, tensor) in tensors.iter().enumerate() {
        text(&mut pickle, tensor.name);
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut pickle, "storage");
        pickle.extend(format!("ctorch\n{}Storage\n", tensor.storage).bytes());
        text(&mut pickle, &key.to_string());
        text(&mut pickle, "cpu");
        number(&mut pickle, count(tensor));
        pickle.extend(b"tQK\x00(");
        tensor.shape.iter().for_each(|size| number(&mut pickle, *size));
        pickle.extend(b"t(");
        for size in 1..=tensor.shape.len() {
            number(&mut pickle, tensor.shape[size..].iter().product());
        }
        pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    pickle.extend(if around == Around::Checkpoint { &b"uu."[..] } else { b"u." });
    pickle
}

/// The opcode of a text.
pub fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    pickle.extend(text.bytes());
}

fn number(pickle: &mut Vec<u8>, number: usize) {
    pickle.push(b'J');
    pickle.extend(i32::try_from(number).unwrap().to_le_bytes());
}

fn count(tensor: &TorchTensor) -> usize {
    tensor.shape.iter().product()
}
