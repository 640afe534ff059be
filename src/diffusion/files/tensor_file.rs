//! One file of tensors: what it holds in memory, its values read from the file a piece at a time.
//!
//! Each format is a way to make the [`TensorTable`]; everything else is the same for all. After reading, callers check
//! that the file has not changed ([`TensorFile::check_unchanged`]).

mod element_type;
mod file_bytes;
mod pickle;
mod pickle_global;
mod pickle_machine;
mod pickle_reader;
mod pickle_room;
mod safetensors_header;
mod state_dict;
mod strided;
mod tensor_table;
mod torch_file;
mod torch_value;
mod zip_directory;

use std::path::Path;
use std::time::SystemTime;

pub(super) use self::element_type::ElementType;
use self::file_bytes::FileBytes;
pub(super) use self::tensor_table::TensorPlace;
use self::tensor_table::TensorTable;
use super::{FileError, quoted_name};

/// What people call files of tensors, the preferred form first. The others are torch's, whichever form it has.
pub const EXTENSIONS: [&str; 5] = ["safetensors", "ckpt", "pt", "bin", "pth"];

/// Bytes of a tensor that are converted at a time.
const PIECE: usize = 1 << 20;
/// Bytes that are read for each one that a tensor with strides has, and how many more are read anyway: a view of a
/// large tensor would take its memory.
const WIDEST_STEP: u64 = 8;
const WIDE: u64 = 1 << 20;
/// What quantised files call the number that a module's weights in eight bits are multiplied by.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];
/// What `ComfyUI` lays beside weights that are quantised.
const QUANTISED: &str = "comfy_quant";

/// The place in [`EXTENSIONS`] of a file's extension, or none where it is another one.
pub fn extension_rank(name: &str) -> Option<usize> {
    let (_, found) = name.rsplit_once('.')?;
    EXTENSIONS.iter().position(|extension| found.eq_ignore_ascii_case(extension))
}

pub struct TensorFile {
    /// The file's name in messages.
    name: String,
    bytes: FileBytes,
    table: TensorTable,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut name = path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        // diffusers calls every component's file the same.
        if let Some(folder) = path.parent().and_then(Path::file_name).filter(|_| name.contains("model")) {
            name = format!("{}/{name}", folder.to_string_lossy());
        }
        match FileBytes::open(path) {
            Ok(bytes) => Self::read(name, bytes),
            Err(error) => Err(FileError::Unreadable { file: name, reason: error.to_string() }),
        }
    }

    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, FileError> {
        Self::read(name.to_owned(), FileBytes::Embedded(bytes))
    }

    fn read(name: String, bytes: FileBytes) -> Result<Self, FileError> {
        #[cfg(test)]
        super::reads::note(&format!("{name}, {} bytes", bytes.length()));
        // By the bytes, whatever the file is called: people rename both forms.
        let table = match torch_file::is_torch(&bytes) {
            true => torch_file::table(&bytes, &name),
            false => safetensors_header::table(&bytes),
        };
        let table = table.map_err(|reason| FileError::Unreadable { file: name.clone(), reason })?;
        if !table.not_read.is_empty() {
            tracing::info!(
                file = name,
                "beside its weights, this file holds what is not read: {}",
                table.not_read.join(", ")
            );
        }
        Ok(Self { name, bytes, table })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size of the file in bytes.
    pub fn length(&self) -> u64 {
        self.bytes.length()
    }

    /// When it was last written, if it is on disk.
    pub fn modified(&self) -> Option<SystemTime> {
        self.bytes.modified()
    }

    /// The offset of the first byte after the header.
    pub fn data_start(&self) -> u64 {
        self.table.data_start
    }

    /// The names of its tensors, in the order of the file.
    pub fn tensor_names(&self) -> Vec<String> {
        self.table.iter().map(|tensor| tensor.name.clone()).collect()
    }

    pub fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.table.get(tensor).map(|tensor| tensor.shape.as_slice())
    }

    /// A value of the file's metadata.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.table.notes.get(key).map(String::as_str)
    }

    /// All of the file's metadata.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.table.notes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What lies in the file beside its tensors, a few words each.
    pub fn not_read(&self) -> &[String] {
        &self.table.not_read
    }

    /// Its tensors, in the order of the file.
    pub(super) fn places(&self) -> impl Iterator<Item = &TensorPlace> {
        self.table.iter()
    }

    /// Calls `take` with the values of a tensor as f32, piece by piece and in order.
    pub fn each_piece(&self, tensor: &str, mut take: impl FnMut(&[f32])) -> Result<(), FileError> {
        let place = self.readable(tensor)?;
        let scale = self.scale(place)?;
        let mut values = Vec::new();
        self.each_raw_piece(place, |element, bytes| {
            values.resize(bytes.len() / element.width().unwrap_or(1), 0.0);
            element.read(bytes, &mut values);
            if let Some(scale) = scale {
                for value in &mut values {
                    *value *= scale;
                }
            }
            take(&values);
        })
    }

    /// All values of a tensor, as f32.
    pub fn values(&self, tensor: &str) -> Result<Vec<f32>, FileError> {
        // The shape of a type that is not read says nothing about the file's length.
        let mut values = Vec::with_capacity(self.readable(tensor)?.count());
        self.each_piece(tensor, |piece| values.extend_from_slice(piece))?;
        Ok(values)
    }

    /// Fails if the file was written to since it was opened.
    pub fn check_unchanged(&self) -> Result<(), FileError> {
        match self.bytes.has_changed() {
            true => Err(FileError::Changed(self.name.clone())),
            false => Ok(()),
        }
    }

    /// Calls `take` with a tensor's bytes, whole values at a time and in the order of its shape.
    pub(super) fn each_raw_piece(
        &self,
        place: &TensorPlace,
        mut take: impl FnMut(&ElementType, &[u8]),
    ) -> Result<(), FileError> {
        let unreadable = |error: std::io::Error| self.broken_tensor(&place.name, &error.to_string());
        if let (Some(strides), Some(width)) = (&place.strides, place.element.width()) {
            let most = (place.count() as u64).saturating_mul(width as u64 * WIDEST_STEP).saturating_add(WIDE);
            if place.length > most {
                return Err(self.broken_tensor(
                    &place.name,
                    "its values lie far apart in a larger tensor; save it with torch's contiguous()",
                ));
            }
            let bytes = self.bytes.read_range(place.at, place.length).map_err(unreadable)?;
            strided::each_piece(&bytes, &place.shape, strides, width, PIECE, |piece| {
                take(&place.element, piece);
            });
            return Ok(());
        }
        let (mut at, end) = (place.at, place.at + place.length);
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(PIECE).min(PIECE)];
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(PIECE);
            let piece = &mut bytes[..left.min(PIECE)];
            self.bytes.read_at(at, piece).map_err(unreadable)?;
            take(&place.element, piece);
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The number that weights in eight bits are multiplied by, if the file has one for them.
    fn scale(&self, place: &TensorPlace) -> Result<Option<f32>, FileError> {
        let Some(module) = place.name.strip_suffix("weight").filter(|_| place.element.is_float8()) else {
            return Ok(None);
        };
        let beside = |name: &str| self.table.get(&format!("{module}{name}"));
        match SCALES.into_iter().find_map(beside) {
            Some(scale) if scale.count() != 1 => Err(self.broken_tensor(
                &place.name,
                &format!(
                    "it is quantised in blocks, by {}; one scale for a whole weight is supported",
                    quoted_name(&scale.name)
                ),
            )),
            // As it lies there: a scale has no scale of its own, whatever the tensor beside it is called.
            Some(scale) => {
                let (scale, mut number) = (self.readable(&scale.name)?, [0.0]);
                self.each_raw_piece(scale, |element, bytes| element.read(bytes, &mut number))?;
                Ok(Some(number[0]))
            }
            None if beside(QUANTISED).is_some() => {
                Err(self.broken_tensor(&place.name, "it is quantised, but its scale is missing"))
            }
            None => Ok(None),
        }
    }

    /// A tensor whose type is one that is read: its values have a place in the file.
    fn readable(&self, tensor: &str) -> Result<&TensorPlace, FileError> {
        let place = self.place(tensor)?;
        // Single numbers come in any type (`num_batches_tracked`, alphas); weights of whole numbers are quantised.
        if place.element.is_float() || place.element.width().is_some() && place.count() <= 1 {
            return Ok(place);
        }
        let reason = format!(
            "its type is {}; weights in F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 are supported",
            place.element
        );
        Err(self.broken_tensor(tensor, &reason))
    }

    pub(super) fn place(&self, tensor: &str) -> Result<&TensorPlace, FileError> {
        self.table.get(tensor).ok_or_else(|| self.broken_tensor(tensor, "it is not there"))
    }

    pub(super) fn broken_tensor(&self, tensor: &str, reason: &str) -> FileError {
        FileError::Tensor { tensor: quoted_name(tensor), file: self.name.clone(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod torch_tests;
