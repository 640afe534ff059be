//! Writes the tensors of any file that is read here as a `.safetensors` file.
//!
//! Tensor by tensor and piece by piece: memory does not depend on the file's size. Tensors keep their names, shapes and
//! types, and the file its metadata.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use serde::ser::{SerializeMap as _, Serializer as _};

use super::FileError;
use super::tensor_file::{ElementType, TensorFile, TensorPlace};

/// Where several tensors share their values, each gets its own copy: not more than this many times the file.
const MOST_GROWTH: u64 = 4;
/// The larger files that people have are all below this; small files may grow by their headers.
const ALWAYS_FINE: u64 = 1 << 20;
/// The header's length is a multiple of this, so that tensors lie well in memory.
const ALIGNMENT: usize = 8;
const NOTES: &str = "__metadata__";
/// What torch looks for in the metadata.
const FORMAT: (&str, &str) = ("format", "pt");

/// A file, ready to be written in the other form.
pub struct Conversion {
    file: TensorFile,
    tensors: Vec<Planned>,
    kept_full: Vec<String>,
}

/// A tensor in the order of the new file.
struct Planned {
    name: String,
    becomes: ElementType,
    bytes: u64,
}

impl Conversion {
    /// Opens the file at `path`. With `half`, F64 and F32 become F16, apart from single numbers (alphas and scales, which
    /// multiply whole tensors) and from tensors with values that F16 has no number for; all values are read once to find
    /// those.
    pub fn open(path: &Path, half: bool) -> Result<Self, FileError> {
        let file = TensorFile::open(path)?;
        let (mut tensors, mut kept_full, mut total) = (Vec::new(), Vec::new(), 0_u64);
        for place in file.places() {
            let Some(width) = place.element.width() else {
                return Err(file.broken_tensor(
                    &place.name,
                    &format!("its type is {}, which a safetensors file does not have", place.element),
                ));
            };
            let is_wide = matches!(place.element, ElementType::F64 | ElementType::F32);
            let may_shrink = half && is_wide && place.count() != 1;
            let fits = may_shrink && fits_half(&file, place)?;
            if may_shrink && !fits {
                kept_full.push(place.name.clone());
            }
            let becomes = if fits { ElementType::F16 } else { place.element.clone() };
            let bytes = place.count() as u64 * becomes.width().unwrap_or(width) as u64;
            total = total.saturating_add(bytes);
            tensors.push(Planned { name: place.name.clone(), becomes, bytes });
        }
        if total > file.length().saturating_mul(MOST_GROWTH).saturating_add(ALWAYS_FINE) {
            return Err(FileError::Unreadable {
                file: file.name().to_owned(),
                reason: format!(
                    "its tensors lie over each other: written one by one they would be {total} bytes, {MOST_GROWTH} \
                     times the file and more"
                ),
            });
        }
        // Wide values first, so that all lie at multiples of their width.
        tensors.sort_by_key(|tensor| std::cmp::Reverse(tensor.becomes.width()));
        Ok(Self { file, tensors, kept_full })
    }

    /// The number of tensors.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// The bytes of all tensors in the new file.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// The tensors that half precision has no numbers for.
    pub fn kept_full(&self) -> &[String] {
        &self.kept_full
    }

    /// What the file holds beside tensors, and the new one does not.
    pub fn not_read(&self) -> &[String] {
        self.file.not_read()
    }

    /// Writes the new file. Calls `progress` with the number of bytes that were written since the last call, and ends with
    /// its error.
    pub fn write(
        &self,
        to: &mut impl Write,
        mut progress: impl FnMut(u64) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let unwritable = |error: io::Error| FileError::Unwritable(error.to_string());
        let header = self.header().map_err(|error| unwritable(error.into()))?;
        to.write_all(&(header.len() as u64).to_le_bytes()).map_err(unwritable)?;
        to.write_all(&header).map_err(unwritable)?;
        for tensor in &self.tensors {
            let place = self.file.place(&tensor.name)?;
            let mut written = Ok(());
            let (mut values, mut halves) = (Vec::new(), Vec::new());
            self.file.each_raw_piece(place, |element, bytes| {
                let bytes = if tensor.becomes == *element {
                    bytes
                } else {
                    values.resize(bytes.len() / element.width().unwrap_or(1), 0.0);
                    element.read(bytes, &mut values);
                    halves.clear();
                    halves.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()));
                    &halves
                };
                if written.is_ok() {
                    written = to.write_all(bytes).and_then(|()| progress(bytes.len() as u64));
                }
            })?;
            written.map_err(unwritable)?;
        }
        self.file.check_unchanged()
    }

    fn header(&self) -> serde_json::Result<Vec<u8>> {
        let mut json = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut json);
        let mut map = serializer.serialize_map(None)?;
        let mut notes: BTreeMap<&str, &str> = self.file.notes().collect();
        notes.entry(FORMAT.0).or_insert(FORMAT.1);
        map.serialize_entry(NOTES, &notes)?;
        let mut start = 0;
        for tensor in &self.tensors {
            let end = start + tensor.bytes;
            map.serialize_entry(
                &tensor.name,
                &serde_json::json!({
                    "dtype": tensor.becomes.name(),
                    "shape": self.file.shape(&tensor.name),
                    "data_offsets": [start, end],
                }),
            )?;
            start = end;
        }
        map.end()?;
        json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
        Ok(json)
    }
}

/// Whether half precision has numbers for the values: none becomes infinite, and not all of them become zero.
fn fits_half(file: &TensorFile, place: &TensorPlace) -> Result<bool, FileError> {
    let (mut fits, mut values) = (true, Vec::new());
    let (mut are_zero, mut become_zero) = (true, true);
    file.each_raw_piece(place, |element, bytes| {
        values.resize(bytes.len() / element.width().unwrap_or(1), 0.0);
        element.read(bytes, &mut values);
        fits &= values.iter().all(|value| f16::from_f32(*value).is_finite() || !value.is_finite());
        are_zero &= values.iter().all(|value| *value == 0.0);
        become_zero &= values.iter().all(|value| f16::from_f32(*value).to_f32() == 0.0);
    })?;
    Ok(fits && (are_zero || !become_zero))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::SafeTensors;

    use super::*;

    const TORCH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/torch");
    const LORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lora");

    fn converted(path: &str, half: bool) -> (Conversion, Vec<u8>) {
        let conversion = Conversion::open(Path::new(path), half).unwrap();
        let (mut bytes, mut progress) = (Vec::new(), 0);
        let count = |written| {
            progress += written;
            Ok(())
        };
        conversion.write(&mut bytes, count).unwrap();
        assert_eq!(progress, conversion.bytes());
        (conversion, bytes)
    }

    #[test]
    fn the_new_file_has_the_same_tensors_and_its_own_library_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["types.pt", "views.old.pt", "eights.pt", "lightning.old.pt", "pairs.text_encoder.pt"] {
            let path = format!("{TORCH}/{name}");
            let (conversion, bytes) = converted(&path, false);
            let read = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(read.len(), conversion.tensors(), "{name}");
            let to = folder.path().join(name).with_extension("safetensors");
            fs::write(&to, &bytes).unwrap();
            let (before, after) =
                (TensorFile::open(Path::new(&path)).unwrap(), TensorFile::open(&to).unwrap());
            for tensor in before.tensor_names() {
                assert_eq!(before.shape(&tensor), after.shape(&tensor), "{name}: {tensor}");
                let values = |file: &TensorFile| file.values(&tensor).unwrap().into_iter().map(f32::to_bits);
                assert!(values(&before).eq(values(&after)), "{name}: {tensor}");
            }
        }
    }

    #[test]
    fn metadata_is_kept_and_a_second_conversion_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (_, once) = converted(&format!("{LORA}/kohya.safetensors"), false);
        let path = folder.path().join("once.safetensors");
        fs::write(&path, &once).unwrap();
        assert_eq!(converted(path.to_str().unwrap(), false).1, once);
        let original = TensorFile::open(Path::new(&format!("{LORA}/kohya.safetensors"))).unwrap();
        let notes: BTreeMap<_, _> = original.notes().collect();
        let file = TensorFile::open(&path).unwrap();
        for (key, value) in notes {
            assert_eq!(file.note(key), Some(value));
        }
        assert_eq!(file.note("format"), Some("pt"));
    }

    #[test]
    fn half_precision_is_for_wide_numbers_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.safetensors");
        let (mut header, mut values) = (serde_json::Map::new(), Vec::new());
        let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
            let place = [values.len(), values.len() + bytes.len()];
            let tensor = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": place});
            header.insert(name.to_owned(), tensor);
            values.extend(bytes);
        };
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        add("big", "F32", &[2], floats(&[65520.0, 1.0]));
        add("inf", "F32", &[2], floats(&[f32::INFINITY, 1.0]));
        add("count", "I32", &[], 7_i32.to_le_bytes().to_vec());
        add("small", "F32", &[2], floats(&[1.25, 1e-9]));
        // Half precision has no number between zero and 2⁻²⁵.
        add("tiny", "F32", &[2], floats(&[-1e-8, 1e-9]));
        add("zeros", "F32", &[2], floats(&[0.0, 0.0]));
        add("alpha", "F32", &[], floats(&[1.25]));
        add("scale_weight", "F32", &[1], floats(&[1e-5]));
        add("wide", "F64", &[2], [-0.5_f64, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect());
        let header = serde_json::Value::Object(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length[..], header.as_bytes(), &values].concat()).unwrap();
        let (conversion, bytes) = converted(path.to_str().unwrap(), true);
        assert_eq!(conversion.kept_full(), ["big", "tiny"]);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, dtype) in [
            ("big", "F32"),
            ("inf", "F16"),
            ("count", "I32"),
            ("small", "F16"),
            ("tiny", "F32"),
            ("zeros", "F16"),
            ("alpha", "F32"),
            ("scale_weight", "F32"),
            ("wide", "F16"),
        ] {
            assert_eq!(format!("{:?}", file.tensor(name).unwrap().dtype()), dtype, "{name}");
        }
        assert_eq!(file.tensor("small").unwrap().data()[..2], f16::from_f32(1.25).to_le_bytes());
        assert_eq!(file.tensor("scale_weight").unwrap().data(), 1e-5_f32.to_le_bytes());
    }
}
