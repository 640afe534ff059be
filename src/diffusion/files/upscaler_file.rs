//! A file with an upscaler model: which architecture it is, by the names and shapes of its tensors, and its graph.
//!
//! The architectures are `RRDBNet` (ESRGAN, Real-ESRGAN; Wang et al., arXiv 1809.00219 and 2107.10833) and
//! `SRVGGNetCompact` (Real-ESRGAN's small models). A graph is written when the file is loaded, with the weights in it.

mod compact;
mod graph_writer;
mod rrdb;

use std::path::Path;

use self::compact::Compact;
use self::graph_writer::GraphWriter;
use self::rrdb::Rrdb;
use super::FileError;
use super::quoted_name;
use super::tensor_file::TensorFile;

/// The largest file, in bytes. `RealESRGAN_x4plus` has 64 MiB.
const LARGEST: u64 = 512 << 20;
/// What trainers put around the weights, the best first: averaged weights draw better.
const WRAPPERS: [&str; 4] = ["params_ema.", "params-ema.", "params.", "model_state_dict."];
/// Names that other architectures have, and what those are called.
const FOREIGN: [(&str, &str); 9] = [
    ("overlap_attn", "HAT"),
    ("before_RG", "DAT"),
    ("residual_group.blocks", "SwinIR"),
    ("c1_r.sk", "SPAN"),
    ("omni_blocks", "OmniSR"),
    ("m_head.0", "SCUNet"),
    ("to_feat", "MoSR or SAFMN"),
    ("feats.0", "PLKSR"),
    ("conv1x1", "ESRGAN+"),
];

/// Opened, its header read. The weights are read when the graph is written.
pub struct UpscalerFile {
    file: TensorFile,
    wrapper: String,
    architecture: Architecture,
}

enum Architecture {
    Rrdb(Rrdb),
    Compact(Compact),
}

/// What a graph looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpscalerShape {
    /// How many times as wide and as high a picture becomes.
    pub scale: usize,
    /// The pixels along a side that are channels of one value of the graph's input (torch's `pixel_unshuffle`).
    pub unshuffle: usize,
    /// Channels of the widest layer at the input's size, and of the layers at the output's size.
    pub features: usize,
}

impl UpscalerFile {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let file = TensorFile::open(path)?;
        let refuse = |reason: String| FileError::Unreadable { file: file.name().to_owned(), reason };
        if file.length() > LARGEST {
            return Err(refuse(format!("it has {} bytes; an upscaler has at most {LARGEST}", file.length())));
        }
        let names = file.tensor_names();
        let wrapper = WRAPPERS.into_iter().find(|wrapper| names.iter().any(|name| name.starts_with(wrapper)));
        let wrapper = wrapper.unwrap_or_default().to_owned();
        let names: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix(wrapper.as_str())).collect();
        if let Some((_, other)) =
            FOREIGN.iter().find(|(part, _)| names.iter().any(|name| name.contains(part)))
        {
            return Err(refuse(format!(
                "it is a {other} upscaler; ESRGAN's architectures are supported (RRDBNet and SRVGGNetCompact)"
            )));
        }
        let weights = Weights { file: &file, wrapper: &wrapper };
        let architecture = if let Some(rrdb) = Rrdb::find(&names, &weights)? {
            Architecture::Rrdb(rrdb)
        } else if let Some(compact) = Compact::find(&names, &weights)? {
            Architecture::Compact(compact)
        } else {
            let first = names.first().map(|name| quoted_name(name)).unwrap_or_default();
            return Err(refuse(format!(
                "it is no upscaler of a supported architecture (RRDBNet and SRVGGNetCompact): its first tensor is {first}"
            )));
        };
        Ok(Self { file, wrapper, architecture })
    }

    pub fn shape(&self) -> UpscalerShape {
        match &self.architecture {
            Architecture::Rrdb(rrdb) => rrdb.shape(),
            Architecture::Compact(compact) => compact.shape(),
        }
    }

    /// The bytes of its weights in memory, in values of `width` bytes.
    pub fn weight_bytes(&self, width: u64) -> u64 {
        let count = |name: &String| self.file.shape(name).map_or(0, |shape| shape.iter().product::<usize>());
        let tensors = self.file.tensor_names();
        tensors
            .iter()
            .filter(|name| name.starts_with(&self.wrapper))
            .map(|name| count(name) as u64 * width)
            .sum()
    }

    /// The graph with its weights, an ONNX file: `x`, `[1, 3 · unshuffle², h, w]` of 0…1, to `y`, `[1, 3, H, W]`. It
    /// computes in half precision if `half`; both ends are float32.
    pub fn graph(&self, half: bool) -> Result<Vec<u8>, FileError> {
        let weights = Weights { file: &self.file, wrapper: &self.wrapper };
        let channels = 3 * self.shape().unshuffle.pow(2);
        let mut graph = GraphWriter::new(half);
        let x = graph.input("x", channels);
        let y = match &self.architecture {
            Architecture::Rrdb(rrdb) => rrdb.write(&mut graph, &x, &weights)?,
            Architecture::Compact(compact) => compact.write(&mut graph, &x, &weights)?,
        };
        self.file.check_unchanged()?;
        Ok(graph.finish(&y, "y"))
    }
}

/// The file's tensors without their wrapper.
struct Weights<'a> {
    file: &'a TensorFile,
    wrapper: &'a str,
}

impl Weights<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file.shape(&format!("{}{name}", self.wrapper))
    }

    /// The output and input channels of a convolution of 3 × 3.
    fn convolution(&self, name: &str) -> Result<(usize, usize), FileError> {
        match self.shape(&format!("{name}.weight")) {
            Some(&[outputs, inputs, 3, 3]) if outputs > 0 && inputs > 0 => Ok((outputs, inputs)),
            Some(shape) => {
                Err(self.wrong(name, &format!("its weight is {shape:?}; a convolution of 3 × 3 is expected")))
            }
            None => Err(self.wrong(name, "its weight is missing")),
        }
    }

    /// The values of a tensor that must have this shape.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, FileError> {
        match self.shape(name) {
            Some(found) if found == shape => self.file.values(&format!("{}{name}", self.wrapper)),
            Some(found) => Err(self.wrong(name, &format!("it is {found:?}; {shape:?} is expected"))),
            None => Err(self.wrong(name, "it is missing")),
        }
    }

    fn wrong(&self, name: &str, reason: &str) -> FileError {
        FileError::Tensor {
            tensor: quoted_name(name),
            file: self.file.name().to_owned(),
            reason: reason.to_owned(),
        }
    }
}
