//! The header of a `.safetensors` file: the eight bytes of its length, then JSON with a name, a type, a shape and the
//! place of each tensor.
//!
//! It is read as a stream, into the table at once: the format's own library first takes many times the header's size.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::quoted_name;
use super::element_type::ElementType;
use super::file_bytes::FileBytes;
use super::tensor_table::{LARGEST_RANK, MOST_TENSORS, TensorPlace, TensorTable};

/// The limit of the format's own library.
const LONGEST: u64 = 100_000_000;
const NOTES: &str = "__metadata__";
/// Trainers note about a hundred things. More are left out.
const MOST_NOTES: usize = 10_000;

/// A tensor in the header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// The table of a file. The error says what is wrong with the file.
pub(super) fn table(bytes: &FileBytes) -> Result<TensorTable, String> {
    let mut prefix = [0; 8];
    // A disk that fails has its own words: fetching the file again does not help.
    bytes.read_at(0, &mut prefix).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => broken("it has no header"),
        _ => error.to_string(),
    })?;
    let length = u64::from_le_bytes(prefix);
    if length > LONGEST || length > bytes.length().saturating_sub(8) {
        return Err(broken("its header is longer than the file"));
    }
    let header = bytes.read_range(8, length).map_err(|error| error.to_string())?;
    parsed(&header, bytes.length()).map_err(|reason| broken(&reason))
}

fn broken(reason: &str) -> String {
    format!("{reason}; it is neither a safetensors file nor one of torch, or was cut short: fetch it again")
}

fn parsed(header: &[u8], file_length: u64) -> Result<TensorTable, String> {
    let length = header.len() as u64;
    let mut table = TensorTable::new(file_length);
    table.data_start = 8 + length;
    let mut parser = serde_json::Deserializer::from_slice(header);
    let mut places = parser
        .deserialize_map(Header { table: &mut table })
        .and_then(|places| parser.end().map(|()| places))
        .map_err(|error| format!("its header is broken ({error})"))?;
    // By place: a header may have any order.
    places.sort_by_key(|place| (place.at, place.length));
    let mut end = table.data_start;
    for place in places {
        let (name, at, length) = (place.name.clone(), place.at, place.length);
        let broken =
            |reason: &str| format!("its header is broken (the tensor {}: {reason})", quoted_name(&name));
        table.add(place).map_err(|reason| broken(&reason))?;
        if at != end {
            return Err(broken("its values do not begin where those before it end"));
        }
        end = at + length;
    }
    if end != file_length {
        return Err("its length is not what its header says".to_owned());
    }
    Ok(table)
}

/// The visitor of the whole header.
struct Header<'a> {
    table: &'a mut TensorTable,
}

impl<'de> Visitor<'de> for Header<'_> {
    type Value = Vec<TensorPlace>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tensors of a file by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut places = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == NOTES {
                self.table.notes = map.next_value::<Option<Notes>>()?.unwrap_or_default().0;
                continue;
            }
            let Entry { dtype, shape, data_offsets: [start, end] } = map.next_value()?;
            let at = self.table.data_start.checked_add(start);
            let (Some(at), Some(length)) = (at, end.checked_sub(start)) else {
                return Err(A::Error::custom(format!(
                    "the tensor {} ends before it begins",
                    quoted_name(&name)
                )));
            };
            if places.len() >= MOST_TENSORS {
                return Err(A::Error::custom(format!("it has more than {MOST_TENSORS} tensors")));
            }
            let element = ElementType::from_name(&dtype);
            places.push(TensorPlace { name, element, shape: shape.0, at, length, strides: None });
        }
        Ok(places)
    }
}

/// A tensor's sizes, not more than a tensor can have.
struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "up to {LARGEST_RANK} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Self::Value, A::Error> {
                let mut shape = Vec::new();
                while let Some(size) = sizes.next_element()? {
                    if shape.len() >= LARGEST_RANK {
                        return Err(A::Error::invalid_length(shape.len() + 1, &self));
                    }
                    shape.push(size);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// The metadata. The format has only texts there; other values are left out.
#[derive(Default)]
struct Notes(HashMap<String, String>);

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Notes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("texts by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut notes = HashMap::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if notes.len() < MOST_NOTES
                        && let Ok(text) = serde_json::from_str(value.get())
                    {
                        notes.insert(key, text);
                    }
                }
                Ok(Notes(notes))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}
