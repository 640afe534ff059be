//! One `.safetensors` file: its header in memory, its tensors read from the file one at a time.
//!
//! The file is read, not mapped: truncating a mapped file would kill the process, and the values are converted on the
//! way anyhow. After reading, callers check that the file has not changed ([`SafetensorsFile::check_unchanged`]).

use std::fs::{File, Metadata as FileMetadata};
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::SystemTime;

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::FileError;

/// The limit of the format's own library.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes of a tensor that are converted at a time.
const PIECE: usize = 1 << 20;

pub struct SafetensorsFile {
    /// The file's name in messages.
    name: String,
    bytes: Bytes,
    header: Metadata,
    data_start: u64,
}

enum Bytes {
    OnDisk { file: File, stamp: Stamp },
    Embedded(&'static [u8]),
}

/// Changes when the file is written to.
#[derive(PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn from_metadata(metadata: &FileMetadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl SafetensorsFile {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut name = path
            .file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        // diffusers calls every component's file the same.
        if let Some(folder) = path.parent().and_then(Path::file_name).filter(|_| name.contains("model")) {
            name = format!("{}/{name}", folder.to_string_lossy());
        }
        let unreadable =
            |error: std::io::Error| FileError::Unreadable { file: name.clone(), reason: error.to_string() };
        let file = File::open(path).map_err(unreadable)?;
        let stamp = Stamp::from_metadata(&file.metadata().map_err(unreadable)?);
        Self::read(name, Bytes::OnDisk { file, stamp })
    }

    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self, FileError> {
        Self::read(name.to_owned(), Bytes::Embedded(bytes))
    }

    fn read(name: String, bytes: Bytes) -> Result<Self, FileError> {
        let broken = |reason: &str| FileError::Unreadable {
            file: name.clone(),
            reason: format!("{reason}; it is not a safetensors file, or was cut short: fetch it again"),
        };
        #[cfg(test)]
        super::reads::note(&format!("{name}, {} bytes", bytes.length()));
        let length = bytes.length();
        let mut prefix = [0; 8];
        bytes.read_at(0, &mut prefix).map_err(|_| broken("it has no header"))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > LONGEST_HEADER || header_length > length.saturating_sub(8) {
            return Err(broken("its header is longer than the file"));
        }
        let mut header = vec![0; usize::try_from(header_length).unwrap_or(usize::MAX)];
        bytes.read_at(8, &mut header).map_err(|error| broken(&error.to_string()))?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| broken(&format!("its header is broken ({error})")))?;
        let data_start = 8 + header_length;
        if data_start + header.data_len() as u64 != length {
            return Err(broken("its length is not what its header says"));
        }
        Ok(Self { name, bytes, header, data_start })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The size of the file in bytes.
    pub fn length(&self) -> u64 {
        self.bytes.length()
    }

    /// The offset of the first byte after the header.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The names of its tensors, in the order of the file.
    pub fn tensor_names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    pub fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.header.info(tensor).map(|info| info.shape.as_slice())
    }

    /// A value of the file's metadata.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Calls `take` with the values of a tensor as f32, piece by piece and in order.
    pub fn each_piece(&self, tensor: &str, mut take: impl FnMut(&[f32])) -> Result<(), FileError> {
        let info = self.info(tensor)?;
        let width = match info.dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                return Err(self.broken_tensor(
                    tensor,
                    &format!("its type is {other:?}; only F16, BF16 and F32 are supported"),
                ));
            }
        };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; PIECE.min(end - start)];
        let mut values = vec![0.0; bytes.len() / width];
        let mut at = start;
        while at < end {
            let piece = &mut bytes[..PIECE.min(end - at)];
            let values = &mut values[..piece.len() / width];
            self.bytes
                .read_at(self.data_start + at as u64, piece)
                .map_err(|error| self.broken_tensor(tensor, &error.to_string()))?;
            let bits = || piece.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            match info.dtype {
                Dtype::F32 => {
                    for (value, four) in values.iter_mut().zip(piece.chunks_exact(4)) {
                        *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                    }
                }
                Dtype::F16 => {
                    bits().map(f16::from_bits).collect::<Vec<_>>().convert_to_f32_slice(values);
                }
                _ => bits().map(bf16::from_bits).collect::<Vec<_>>().convert_to_f32_slice(values),
            }
            take(values);
            at += piece.len();
        }
        Ok(())
    }

    /// All values of a tensor, as f32.
    pub fn values(&self, tensor: &str) -> Result<Vec<f32>, FileError> {
        let mut values = Vec::with_capacity(self.info(tensor)?.shape.iter().product());
        self.each_piece(tensor, |piece| values.extend_from_slice(piece))?;
        Ok(values)
    }

    /// Fails if the file was written to since it was opened.
    pub fn check_unchanged(&self) -> Result<(), FileError> {
        match &self.bytes {
            Bytes::OnDisk { file, stamp }
                if !file.metadata().is_ok_and(|now| Stamp::from_metadata(&now) == *stamp) =>
            {
                Err(FileError::Changed(self.name.clone()))
            }
            _ => Ok(()),
        }
    }

    fn info(&self, tensor: &str) -> Result<&TensorInfo, FileError> {
        self.header.info(tensor).ok_or_else(|| self.broken_tensor(tensor, "it is not there"))
    }

    fn broken_tensor(&self, tensor: &str, reason: &str) -> FileError {
        FileError::Tensor { tensor: tensor.to_owned(), file: self.name.clone(), reason: reason.to_owned() }
    }
}

impl Bytes {
    fn length(&self) -> u64 {
        match self {
            Self::OnDisk { stamp, .. } => stamp.length,
            Self::Embedded(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::OnDisk { file, .. } => read_exact_at(file, at, into),
            Self::Embedded(bytes) => {
                let mut cursor = Cursor::new(bytes);
                cursor.set_position(at);
                cursor.read_exact(into)
            }
        }
    }
}

/// Reads without moving the file's position, which threads share.
#[cfg(unix)]
fn read_exact_at(file: &File, at: u64, into: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut at: u64, mut into: &mut [u8]) -> std::io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, at)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => (into, at) = (&mut into[read..], at + read as u64),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use safetensors::serialize;
    use safetensors::tensor::TensorView;
    use tempfile::NamedTempFile;

    use super::*;

    fn file_of(bytes: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn three_dtypes() -> Vec<u8> {
        let values = [1.0_f32, -2.5, 0.0, 1024.0];
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let tensors = [
            ("full", TensorView::new(Dtype::F32, vec![2, 2], &f32s).unwrap()),
            ("half", TensorView::new(Dtype::F16, vec![4], &f16s).unwrap()),
            ("brain", TensorView::new(Dtype::BF16, vec![4], &bf16s).unwrap()),
            ("whole", TensorView::new(Dtype::U8, vec![16], &f32s).unwrap()),
        ];
        serialize(tensors, None).unwrap()
    }

    #[test]
    fn every_float_is_read_as_f32() {
        let file = file_of(&three_dtypes());
        let weights = SafetensorsFile::open(file.path()).unwrap();
        for tensor in ["full", "half", "brain"] {
            assert_eq!(weights.values(tensor).unwrap(), [1.0, -2.5, 0.0, 1024.0], "{tensor}");
        }
        assert_eq!(weights.shape("full"), Some([2, 2].as_slice()));
        let refusal = weights.values("whole").unwrap_err().to_string();
        assert!(refusal.contains("whole") && refusal.contains("U8"), "{refusal}");
        let missing = weights.values("nothing").unwrap_err().to_string();
        assert!(missing.contains("nothing"), "{missing}");
    }

    #[test]
    fn large_tensors_are_read_in_order_in_many_pieces() {
        let values: Vec<f32> = (0..700_000_u32).map(|i| f32::from_bits(0x3f80_0000 + i)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![700, 1000], &bytes).unwrap();
        let file = file_of(&serialize([("large", view)], None).unwrap());
        assert_eq!(SafetensorsFile::open(file.path()).unwrap().values("large").unwrap(), values);
    }

    #[test]
    fn a_change_of_an_open_file_is_noticed() {
        let mut file = file_of(&three_dtypes());
        let weights = SafetensorsFile::open(file.path()).unwrap();
        weights.check_unchanged().unwrap();
        file.write_all(b"more").unwrap();
        let refusal = weights.check_unchanged().unwrap_err().to_string();
        assert!(refusal.contains("changed since"), "{refusal}");

        file.as_file().set_len(200).unwrap();
        assert!(weights.values("full").is_err() || weights.check_unchanged().is_err());
    }

    #[test]
    fn a_broken_file_is_one_sentence_and_never_a_panic() {
        let good = three_dtypes();
        let mut cases: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|cut| good[..cut].to_vec()).collect();
        cases.push(b"\xff\xff\xff\xff\xff\xff\xff\xff{}".to_vec());
        cases.push(b"\x02\0\0\0\0\0\0\0[]".to_vec());
        cases.push([good.as_slice(), b"tail"].concat());
        for case in cases {
            let refusal = match SafetensorsFile::open(file_of(&case).path()) {
                Ok(_) => panic!("{} bytes were taken", case.len()),
                Err(error) => error.to_string(),
            };
            assert!(refusal.contains("fetch it again") && !refusal.contains('\n'), "{refusal}");
        }
    }
}
