//! Files that `torch.save` wrote: a pickle that says which tensors there are, and their storages.
//!
//! Since torch 1.6 the file is a zip archive; before, it was a row of pickles with the storages behind them. Both give the
//! same table.

use std::collections::HashMap;

use super::super::quoted_name;
use super::file_bytes::FileBytes;
use super::pickle::{Unpickled, Value};
use super::pickle_machine::HIGHEST_PROTOCOL;
use super::pickle_reader::Trouble;
use super::state_dict;
use super::tensor_table::{TensorPlace, TensorTable, count, span};
use super::torch_value::{StorageValue, TensorValue};
use super::zip_directory::ZipDirectory;

/// The longest pickle: checkpoints with everything that training needs have a few megabytes.
const LONGEST_PICKLE: u64 = 64 << 20;
/// How much of a file is read at first to find the end of its pickles.
const FIRST_WINDOW: u64 = 1 << 16;
/// The number in front of files in the older form, as a pickle has it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const OLD_PROTOCOL: i64 = 1001;
const CUT: &str = "it was cut short; fetch it again";

/// Whether the file begins as one of torch does. A safetensors file may begin with the same bytes by chance, but goes on
/// as only such a file does.
pub(super) fn is_torch(bytes: &FileBytes) -> bool {
    let start = start(bytes);
    let is_pickle = start[0] == 0x80 && start[1] <= HIGHEST_PROTOCOL;
    start[4..] != *b"\0\0\0\0{" && (start.starts_with(b"PK") || is_pickle || is_tar(bytes))
}

/// The table of a file of that name. The error says what is wrong with it.
pub(super) fn table(bytes: &FileBytes, name: &str) -> Result<TensorTable, String> {
    if start(bytes).starts_with(b"PK") {
        zipped(bytes, name)
    } else if is_tar(bytes) {
        Err("torch 0.1 wrote it, as a tar archive; load and save it with a newer torch".to_owned())
    } else {
        older(bytes, name)
    }
}

/// The first bytes, with zeros behind the end of the file.
fn start(bytes: &FileBytes) -> [u8; 9] {
    let mut start = [0; 9];
    let length = usize::try_from(bytes.length()).unwrap_or(usize::MAX).min(start.len());
    match bytes.read_at(0, &mut start[..length]) {
        Ok(()) => start,
        Err(_) => [0; 9],
    }
}

/// The first form of all, of torch 0.1.
fn is_tar(bytes: &FileBytes) -> bool {
    let mut mark = [0; 5];
    bytes.read_at(257, &mut mark).is_ok() && &mark == b"ustar"
}

fn zipped(bytes: &FileBytes, name: &str) -> Result<TensorTable, String> {
    let directory = ZipDirectory::read(bytes)?;
    let mut roots = directory.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let mut roots: Vec<&str> = roots
        .by_ref()
        .filter(|root| root.is_empty() || root.ends_with('/') && !root[..root.len() - 1].contains('/'))
        .collect();
    roots.sort_unstable();
    let [root] = roots[..] else {
        return Err(
            "it is a zip archive, but not one of torch.save: it has no data.pkl of its own".to_owned()
        );
    };
    if directory.names().any(|name| name.strip_prefix(root) == Some("constants.pkl")) {
        return Err("it is a TorchScript program; only files with a state dict of torch are read".to_owned());
    }
    let read = |entry: &str, longest: u64| match directory.place(bytes, &format!("{root}{entry}"))? {
        Some((_, length)) if length > longest => {
            Err(format!("its {entry} has {length} bytes; {longest} are read"))
        }
        Some((at, length)) => bytes.read_range(at, length).map(Some).map_err(|error| error.to_string()),
        None => Ok(None),
    };
    if read("byteorder", 16)?.is_some_and(|order| order != b"little") {
        return Err(BIG_ENDIAN.to_owned());
    }
    let pickle = read("data.pkl", LONGEST_PICKLE)?.unwrap_or_default();
    let pickle = Unpickled::new(&pickle, bytes.length()).map_err(|trouble| match trouble {
        Trouble::Needs(_) => format!("its pickle has no end: {CUT}"),
        Trouble::Refused(reason) => reason,
    })?;
    build(&pickle, bytes, name, |key, storage| {
        let entry = format!("{root}data/{key}");
        let (at, length) = directory
            .place(bytes, &entry)?
            .ok_or_else(|| format!("it has no storage {}: {CUT}", quoted_name(key)))?;
        match storage.length()? {
            Some(needed) if needed > length => {
                Err(format!("its storage {} has {length} bytes, not {needed}: {CUT}", quoted_name(key)))
            }
            _ => Ok(at),
        }
    })
}

const BIG_ENDIAN: &str = "it was written on a big-endian machine; save it again on a usual one";

/// The older form: pickles of a number, a protocol, the machine, the value and the keys of its storages; then for each
/// storage, in the order of the keys, its count and its bytes.
fn older(bytes: &FileBytes, name: &str) -> Result<TensorTable, String> {
    let not_torch = || "it is a pickle, but torch.save did not write it".to_owned();
    let ((), mut at) = with_pickle(bytes, 0, |pickle| match pickle.root {
        Value::Long(magic) if pickle.span(magic) == MAGIC => Ok(()),
        _ => Err(not_torch()),
    })?;
    let ((), length) = with_pickle(bytes, at, |pickle| match pickle.root {
        Value::Int(OLD_PROTOCOL) => Ok(()),
        _ => Err("a version of torch that is not known wrote it".to_owned()),
    })?;
    at += length;
    let ((), length) = with_pickle(bytes, at, |pickle| {
        let items = pickle.dict(pickle.root).unwrap_or_default();
        let order = items.iter().find(|(key, _)| pickle.text(*key) == Some("little_endian"));
        match order {
            Some((_, Value::Bool(false))) => Err(BIG_ENDIAN.to_owned()),
            _ => Ok(()),
        }
    })?;
    at += length;
    let (table, _) = with_pickle(bytes, at, |pickle| {
        let keys_at = at + pickle.length() as u64;
        let (places, _) = with_pickle(bytes, keys_at, |keys| {
            storages(bytes, keys_at + keys.length() as u64, pickle, keys)
        })?;
        build(pickle, bytes, name, |key, _| {
            places.get(key).copied().ok_or_else(|| format!("it has no storage {}: {CUT}", quoted_name(key)))
        })
    })?;
    Ok(table)
}

/// Runs the pickle at the offset `at` and calls `take` with what it made. Returns the length of the pickle too.
fn with_pickle<T>(
    bytes: &FileBytes,
    at: u64,
    take: impl FnOnce(&Unpickled) -> Result<T, String>,
) -> Result<(T, u64), String> {
    let rest = bytes.length().saturating_sub(at);
    let mut window = FIRST_WINDOW.min(rest);
    loop {
        let part = bytes.read_range(at, window).map_err(|error| error.to_string())?;
        match Unpickled::new(&part, bytes.length()) {
            Ok(pickle) => return Ok((take(&pickle)?, pickle.length() as u64)),
            Err(Trouble::Refused(reason)) => return Err(reason),
            Err(Trouble::Needs(length)) if length > rest => {
                return Err(format!("its pickle has no end: {CUT}"));
            }
            Err(Trouble::Needs(length)) if length > LONGEST_PICKLE => {
                return Err(format!("its pickle has more than {LONGEST_PICKLE} bytes"));
            }
            Err(Trouble::Needs(length)) => window = (window * 2).max(length).min(rest),
        }
    }
}

/// Where each storage's values lie, by its key. The first one's count is at `at`.
fn storages(
    bytes: &FileBytes,
    mut at: u64,
    pickle: &Unpickled,
    keys: &Unpickled,
) -> Result<HashMap<String, u64>, String> {
    let known: HashMap<&[u8], &StorageValue> =
        pickle.storages().map(|storage| (pickle.span(storage.key), storage)).collect();
    let mut places = HashMap::new();
    for key in keys.sequence(keys.root).unwrap_or_default() {
        let key = keys.text(*key).ok_or("its storages have no keys")?;
        let storage = known.get(key.as_bytes()).ok_or("it has a storage of no tensor")?;
        let cut = || format!("its storage {} lies beyond the end of the file: {CUT}", quoted_name(key));
        let mut count = [0; 8];
        bytes.read_at(at, &mut count).map_err(|_| cut())?;
        if u64::from_le_bytes(count) != storage.count {
            return Err(format!("its storage {} has another length than its pickle says", quoted_name(key)));
        }
        let length = storage
            .length()?
            .ok_or_else(|| format!("its storage {} is of an unknown type", quoted_name(key)))?;
        let end = (at + 8).checked_add(length).filter(|end| *end <= bytes.length()).ok_or_else(cut)?;
        places.insert(key.to_owned(), at + 8);
        at = end;
    }
    Ok(places)
}

/// The table of the tensors in a pickle. `place` finds the offset of a storage's first byte by its key, and refuses one
/// that is not there as a whole.
fn build(
    pickle: &Unpickled,
    bytes: &FileBytes,
    name: &str,
    mut place: impl FnMut(&str, &StorageValue) -> Result<u64, String>,
) -> Result<TensorTable, String> {
    let found = state_dict::find(pickle, name, bytes.length())?;
    let mut table = TensorTable::new(bytes.length());
    table.not_read = found.not_read;
    let mut places: HashMap<u32, u64> = HashMap::new();
    for (name, tensor) in found.tensors {
        let start = if let Some(start) = places.get(&tensor.storage) {
            *start
        } else {
            let storage = pickle.storage(tensor.storage).ok_or("it has a tensor without a storage")?;
            let key =
                std::str::from_utf8(pickle.span(storage.key)).map_err(|_| "its storages have no keys")?;
            let start = place(key, storage)?;
            places.insert(tensor.storage, start);
            start
        };
        let shown = quoted_name(&name);
        table.add(placed(name, tensor, start)?).map_err(|reason| format!("its tensor {shown}: {reason}"))?;
    }
    Ok(table)
}

/// Where a tensor's values lie, if its storage begins at `start`.
fn placed(name: String, tensor: &TensorValue, start: u64) -> Result<TensorPlace, String> {
    let width = tensor.element.width().unwrap_or(0) as u64;
    let values = match &tensor.strides {
        Some(strides) => span(&tensor.shape, strides),
        None => count(&tensor.shape),
    };
    let numbers = || {
        let at = tensor.offset.checked_mul(width)?.checked_add(start)?;
        Some((at, (values? as u64).checked_mul(width)?))
    };
    let (at, length) = numbers().ok_or_else(|| format!("its tensor {} is too large", quoted_name(&name)))?;
    Ok(TensorPlace {
        name,
        element: tensor.element.clone(),
        shape: tensor.shape.clone(),
        at,
        length,
        strides: tensor.strides.clone(),
    })
}
