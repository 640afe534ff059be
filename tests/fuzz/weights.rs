//! Files of weights: headers, offsets, pickles, archives. Each is read to its last value, as `models convert` does.

use std::fs;
use std::io::{Cursor, Read as _};
use std::path::Path;

use stablehand::diffusion::Conversion;
use zip::ZipArchive;

use super::peak_memory::during;
use super::torch_writer::zipped;
use super::{Random, fuzz_with, mutate, mutate_in_place};

/// What reading may take beside twice the file: a small pickle's values, and the pieces that are read at a time.
const ALWAYS: usize = 32 << 20;

/// What an input of the corpus is, by its first byte: a file, a pickle for an archive, or the header of a safetensors file.
const FILE: u8 = b'0';
const PICKLE: u8 = b'1';
const HEADER: u8 = b'2';

/// The files that trainers and torch wrote.
fn golden() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for folder in ["torch", "lora"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let is_weights = |path: &&std::path::PathBuf| path.extension().is_some_and(|found| found != "json");
        files.extend(paths.iter().filter(is_weights).map(|path| fs::read(path).unwrap()));
    }
    files.retain(|file| file.len() < 50_000);
    assert!(files.len() > 40);
    files
}

fn marked(mark: u8, bytes: &[u8]) -> Vec<u8> {
    [&[mark], bytes].concat()
}

fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for file in golden() {
        corpus.push(marked(FILE, &file));
        if file.starts_with(b"PK") {
            let mut archive = ZipArchive::new(Cursor::new(&file)).unwrap();
            let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
            let name = names.iter().find(|name| name.ends_with("data.pkl")).unwrap();
            let mut pickle = Vec::new();
            archive.by_name(name).unwrap().read_to_end(&mut pickle).unwrap();
            corpus.push(marked(PICKLE, &pickle));
        } else if file[0] != 0x80 {
            let length = usize::try_from(u64::from_le_bytes(file[..8].try_into().unwrap())).unwrap();
            corpus.push(marked(HEADER, &file[8..8 + length]));
        }
    }
    corpus.extend(hostile());
    corpus
}

/// What made a reader take memory once: shapes of types that are not read, calls that copy, names that multiply, and
/// scales of scales.
fn hostile() -> Vec<Vec<u8>> {
    let header = r#"{"m.lora_down.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]},
        "m.lora_down.scale_weight":{"dtype":"F8_E4M3","shape":[],"data_offsets":[4,5]},
        "m.lora_down.scale_scale_weight":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[5,6]},
        "m.alpha":{"dtype":"F4","shape":[1125899906842624],"data_offsets":[6,6]},
        "m.on_input":{"dtype":"F8_E8M0","shape":[0,4611686018427387904],"data_offsets":[6,4096]}}"#;
    let calls = [
        b"\x80\x02ccollections\nOrderedDict\nq\x00](NN\x86q\x01".as_slice(),
        &b"h\x01".repeat(2000),
        b"e\x85q\x02",
        &b"h\x00h\x02R0".repeat(4000),
        b"h\x00h\x02R.",
    ]
    .concat();
    let tensor =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000\
        X\x03\0\0\0cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tRq\x00";
    let keys: Vec<u8> =
        (0..2000_u16).flat_map(|key| [b"M".as_slice(), &key.to_le_bytes(), b"h\x00"].concat()).collect();
    let (length, outer) = (900_u32.to_le_bytes(), [b'K'; 900]);
    let nested = [b"\x80\x02", &tensor[..], b"0}X", &length, &outer, b"}(", &keys, b"us."].concat();
    vec![marked(HEADER, header.as_bytes()), marked(PICKLE, &calls), marked(PICKLE, &nested)]
}

/// The file that an input stands for.
fn file(input: &[u8]) -> Vec<u8> {
    match input {
        [PICKLE, pickle @ ..] => {
            let storages: Vec<String> = (0..8).map(|key| format!("a/data/{key}")).collect();
            let values = [0x3c; 1024];
            let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", pickle)];
            entries.extend(storages.iter().map(|name| (name.as_str(), &values[..])));
            zipped(&entries)
        }
        [HEADER, header @ ..] => {
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], header, &[0x3c; 4096]].concat()
        }
        [_, file @ ..] => file.to_vec(),
        [] => Vec::new(),
    }
}

#[test]
#[ignore = "runs for seconds; .ci/run gives it a minute"]
fn weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fox.pt");
    let corpus = corpus();
    let corpus: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
    let (read, refused) = (std::cell::Cell::new(0_u64), std::cell::Cell::new(0_u64));
    let change = |corpus: &[Vec<u8>], random: &mut Random| match random.below(4) {
        0 => mutate(corpus, random),
        _ => mutate_in_place(corpus, random),
    };
    fuzz_with("weights", &corpus, change, |input| {
        let file = file(input);
        fs::write(&path, &file).unwrap();
        for half in [false, true] {
            let convert = || Conversion::open(&path, half)?.write(&mut std::io::sink(), |_| Ok(()));
            let (outcome, most) = during(convert);
            assert!(most <= 2 * file.len() + ALWAYS, "{most} bytes for a file of {}", file.len());
            let count = match outcome {
                Ok(()) => &read,
                Err(error) => {
                    let sentence = error.to_string();
                    // Every place is checked before it is read.
                    assert!(!sentence.contains("fill whole buffer"), "{sentence}");
                    &refused
                }
            };
            count.set(count.get() + 1);
        }
    });
    println!("weights: {} readings and {} refusals", read.get(), refused.get());
}
