//! Shortens ONNX Runtime's messages to the part that users understand.
//!
//! A message of its CUDA provider may contain paths of source files, signatures of C++ functions and the machine's name.
//! Clients and logs get the rest, on one line. Only this module knows the format of such messages.

use std::fmt::Display;

/// Why ONNX Runtime failed, in one line.
pub fn reason(error: &impl Display) -> String {
    plain(&error.to_string())
}

/// The messages of ONNX Runtime and the libraries under it when memory does not suffice.
const OUT_OF_MEMORY: [&str; 8] = [
    "Failed to allocate memory",
    "out of memory",
    // The number: older versions add the error's name, newer ones a sentence.
    "CUBLAS failure 3:",
    "CUBLAS_STATUS_ALLOC_FAILED",
    // Since cuDNN 9 there are two: `…_DEVICE_ALLOCATION_FAILED` and `…_HOST_ALLOCATION_FAILED`.
    "ALLOCATION_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
];

/// Whether a failure means that the device's memory did not suffice. A smaller request may then succeed.
pub fn is_out_of_memory(reason: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|sign| reason.contains(sign))
}

/// A message of ONNX Runtime in one line, without source locations.
pub(super) fn plain(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    // `CUDA failure 2: out of memory ; GPU=0 ; hostname=box ; file=/…/cuda_call.cc ; line=129 ; expr=cudaMalloc(…)`
    let line = line.split(" ; GPU=").next().unwrap_or_default();
    let mut words: Vec<&str> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = behind.trim_start();
        match Location::parse(word) {
            Some(location) => rest = rest[location.function_length(rest)..].trim_start(),
            None => words.push(word),
        }
    }
    without_codes(&words.join(" ")).trim_end_matches([' ', '.', ';']).to_owned()
}

/// A place in ONNX Runtime's source: a word such as `/src/conv.cc:129`. The function follows it.
enum Location {
    /// The word has the whole path, and the function's whole signature follows.
    Path,
    /// The word has only the file's name, and only the function's name follows.
    File,
}

impl Location {
    fn parse(word: &str) -> Option<Self> {
        let (file, line) = word.trim_start_matches('(').rsplit_once(':')?;
        let line = line.trim_end_matches([')', ',', ';']);
        let is_source = [".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp"].iter().any(|end| file.ends_with(end));
        let is_location = is_source && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        is_location.then(|| if file.contains('/') { Self::Path } else { Self::File })
    }

    /// The length of the function at the beginning of `rest`, in bytes.
    fn function_length(&self, rest: &str) -> usize {
        match self {
            Self::File => rest.find(' ').unwrap_or(rest.len()),
            Self::Path => signature_length(rest),
        }
    }
}

/// The length of a signature such as `void* ort::Arena::Alloc(size_t, bool) const [with T = int]`, or of
/// `ort::Driver::Driver()::<lambda(void*, const char*)>`. 0 if `text` does not begin with a signature.
fn signature_length(text: &str) -> usize {
    let Some(mut end) = text.find('(').and_then(|open| closed(text, open)) else { return 0 };
    loop {
        let behind = &text[end..];
        let group = [("(", 0), ("::<", 2), (" [with ", 1)]
            .into_iter()
            .find_map(|(sign, bracket)| behind.starts_with(sign).then_some(bracket));
        end = if let Some(bracket) = group {
            match closed(text, end + bracket) {
                Some(end) => end,
                None => return end,
            }
        } else if behind.starts_with(" const ") || behind == " const" {
            end + " const".len()
        } else {
            return end;
        };
    }
}

/// The position after the bracket that closes the one at `open`.
fn closed(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'<' => depth += 1,
            b')' | b']' | b'>' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// Removes `[ONNXRuntimeError] : 1 : FAIL : `, which has no information for users.
fn without_codes(text: &str) -> String {
    let mut parts = text.split("[ONNXRuntimeError] : ");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.splitn(3, " : ").last().unwrap_or_default());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_memory_is_recognised() {
        for reason in [
            "the model's unet failed: Non-zero status code returned while running MatMul node. Status Message: \
             bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 1073741824",
            "the model's unet failed: CUDA failure 2: out of memory ; GPU=0 ; hostname=box",
            "the model's vae_decoder failed: CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
            "the model's unet cannot be used: Exception during initialization: CUBLAS failure 3: the resource \
             allocation failed",
            "the model's unet failed: CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "the model's unet cannot be used: std::bad_alloc",
        ] {
            assert!(is_out_of_memory(reason), "{reason}");
        }
        assert!(!is_out_of_memory("the model's unet failed: Got invalid dimensions for input"));
    }

    /// Messages of ONNX Runtime 1.31, and what remains of them.
    const MESSAGES: [(&str, &str); 9] = [
        (
            "Non-zero status code returned while running Resize node. Name:'' Status Message: \
             /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* \
             onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate \
             memory for requested buffer of size 262144",
            "Non-zero status code returned while running Resize node. Name:'' Status Message: Failed to allocate \
             memory for requested buffer of size 262144",
        ),
        (
            "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, \
             onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const \
             char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; \
             std::conditional_t<THRW, void, common::Status> = void] \
             /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:146 std::conditional_t<THRW, void, \
             onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const \
             char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; \
             std::conditional_t<THRW, void, common::Status> = void] CUDA failure 2: out of memory ; GPU=0 ; \
             hostname=box ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=47 ; \
             expr=cudaMalloc((void**)&p, size);",
            "CUDA failure 2: out of memory",
        ),
        (
            "Status Message: /onnxruntime_src/onnxruntime/contrib_ops/cuda/bert/cudaDriverWrapper.cc:46 \
             onnxruntime::contrib::cuda::CUDADriverWrapper::CUDADriverWrapper()::<lambda(void*, const char*)> ret \
             != nullptr was false. \n",
            "Status Message: ret != nullptr was false",
        ),
        (
            "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static \
             onnxruntime::CUDAExecutionProviderInfo \
             onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const onnxruntime::ProviderOptions&) \
             [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider option \
             \"device_id\": cuda_execution_provider_info.cc:71 operator() Invalid device ID: 1, must be between 0 \
             (inclusive) and 1 (exclusive).",
            "Failed to parse provider option \"device_id\": Invalid device ID: 1, must be between 0 (inclusive) and \
             1 (exclusive)",
        ),
        (
            "/src/a.cc:12 bool onnxruntime::Kernel::operator()(int) const [with T = int] it is broken",
            "it is broken",
        ),
        ("/src/a.cc:12", ""),
        ("/src/a.cc:12 it is broken", "it is broken"),
        (
            "\n  Got invalid dimensions for input: sample\nPlease fix it",
            "Got invalid dimensions for input: sample",
        ),
        (
            "Load model from C:/x/model.onnx failed: see /x/model.onnx",
            "Load model from C:/x/model.onnx failed: see /x/model.onnx",
        ),
    ];

    #[test]
    fn source_locations_and_signatures_are_left_out() {
        for (message, expected) in MESSAGES {
            assert_eq!(plain(message), expected);
        }
    }

    #[test]
    fn any_text_gives_one_line() {
        for text in
            ["", " ", "(", "/a.cc:1 (", "/a.cc:1 f(x", "/a.cc:1 f)(x", "a.h:1", "/ä.cc:1 ü(é) ö", ": : :"]
        {
            assert!(!plain(text).contains(['\n', '\r']), "{text}");
        }
    }
}
