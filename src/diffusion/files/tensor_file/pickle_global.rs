//! The names that a pickle may ask for, and what calling each makes.
//!
//! Three kinds: those that tensors are made of; those that checkpoints carry beside their weights, which become things
//! that nothing looks into; and all others, which are refused before anything is made of them.

use super::super::quoted_name;
use super::element_type::ElementType;
use super::pickle::{Node, Value};
use super::pickle_machine::Machine;
use super::pickle_reader::Span;
use super::torch_value::{StorageType, TensorValue};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Global {
    Dict,
    Size,
    Rebuild(Rebuild),
    /// A function that returns its first argument: a parameter is its tensor.
    Parameter,
    /// A function that is given another one, and the arguments for it.
    RebuildFromType,
    Storage(StorageType),
    Element(ElementType),
    /// Left alone. The places of its module and name.
    Inert(Span, Span),
}

/// The result of a call.
pub(super) enum Made {
    Node(Node),
    Value(Value),
}

/// The versions of torch's function that makes a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuild {
    V1,
    V2,
    V3,
}

/// What torch calls its types, in the names of storages and of the types themselves.
const TYPES: [(&str, &str, &str); 15] = [
    ("Double", "float64", "F64"),
    ("Float", "float32", "F32"),
    ("Half", "float16", "F16"),
    ("BFloat16", "bfloat16", "BF16"),
    ("Float8_e4m3fn", "float8_e4m3fn", "F8_E4M3"),
    ("Float8_e5m2", "float8_e5m2", "F8_E5M2"),
    ("Long", "int64", "I64"),
    ("Int", "int32", "I32"),
    ("Short", "int16", "I16"),
    ("Char", "int8", "I8"),
    ("UInt64", "uint64", "U64"),
    ("UInt32", "uint32", "U32"),
    ("UInt16", "uint16", "U16"),
    ("Byte", "uint8", "U8"),
    ("Bool", "bool", "BOOL"),
];

/// Types that are known but not read, and named as torch names their storages.
const OTHER_TYPES: [(&str, &str); 10] = [
    ("ComplexDouble", "complex128"),
    ("ComplexFloat", "complex64"),
    ("Float8_e4m3fnuz", "float8_e4m3fnuz"),
    ("Float8_e5m2fnuz", "float8_e5m2fnuz"),
    ("Float8_e8m0fnu", "float8_e8m0fnu"),
    ("QUInt8", "quint8"),
    ("QInt8", "qint8"),
    ("QInt32", "qint32"),
    ("QUInt4x2", "quint4x2"),
    ("QUInt2x4", "quint2x4"),
];

/// What checkpoints carry beside their weights, by modules (with those inside them) or by names.
const INERT_MODULES: [&str; 7] = [
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "omegaconf",
    "pytorch_lightning",
    "torch.optim",
    "numpy.random",
];
const INERT_NAMES: [(&str, &[&str]); 18] = [
    ("__builtin__", BUILTINS),
    ("builtins", BUILTINS),
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("collections", &["Counter", "deque"]),
    ("copy_reg", &["_reconstructor"]),
    ("copyreg", &["_reconstructor"]),
    ("datetime", &["date", "datetime", "timedelta", "timezone"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    ("torch", &["device"]),
    ("torch.amp.grad_scaler", &["GradScaler"]),
    ("torch.cuda.amp.grad_scaler", &["GradScaler"]),
    ("torch.nn.modules.container", &["ParameterDict", "ParameterList"]),
    ("typing", &["Any"]),
];
const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
];
const PATHS: &[&str] = &["Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"];

/// Modules that run code or reach out, whatever is called in them: the sentence says so.
const DANGEROUS: [&str; 44] = [
    "__builtin__",
    "_io",
    "_pickle",
    "aiohttp",
    "asyncio",
    "bdb",
    "builtins",
    "cProfile",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "dill",
    "distutils",
    "functools",
    "httplib",
    "http",
    "importlib",
    "inspect",
    "io",
    "marshal",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "posix",
    "profile",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "timeit",
    "urllib",
    "venv",
    "webbrowser",
];

impl Global {
    /// The thing of that name, or why it is refused. The spans are the places of both names.
    pub fn find(module: &str, name: &str, of: Span, what: Span) -> Result<Self, String> {
        if let Some(known) = known(module, name) {
            return Ok(known);
        }
        let listed = || INERT_NAMES.iter().any(|(of, names)| *of == module && names.contains(&name));
        // A dotted name reaches through a module to what it imports.
        if !name.contains('.') && (INERT_MODULES.iter().any(|outer| is_within(module, outer)) || listed()) {
            return Ok(Self::Inert(of, what));
        }
        let shown = quoted_name(&format!("{module}.{name}"));
        Err(match DANGEROUS.iter().any(|outer| is_within(module, outer)) {
            true => format!(
                "it asks for {shown}, which can run code in Python; stablehand ran nothing of it, and no other program \
                 should"
            ),
            false => {
                format!("it asks for {shown}, which weights do not need; only state dicts of torch are read")
            }
        })
    }

    /// How many values a call of it copies. Each was made once, but calls may copy it again and again.
    pub fn copies(&self, machine: &Machine, arguments: &[Value]) -> usize {
        let length = |value: &Value| match machine.node(*value) {
            Some(Node::List(values) | Node::Tuple(values)) => values.len(),
            _ => 0,
        };
        match (self, arguments) {
            // A key and a value each.
            (Self::Dict, [items]) => 2 * length(items),
            // Sizes and strides, each of half as many bytes as a value.
            (Self::Rebuild(_), [_, _, shape, strides, ..]) => length(shape).max(length(strides)),
            (Self::RebuildFromType, [function, _, arguments, ..]) => {
                match (machine.node(*function), machine.node(*arguments)) {
                    (Some(Node::Global(function @ Self::Rebuild(_))), Some(Node::Tuple(arguments))) => {
                        function.copies(machine, arguments)
                    }
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// What a call of it makes. The error says why it makes nothing.
    pub fn call(&self, machine: &Machine, arguments: &[Value]) -> Result<Made, String> {
        let odd = || format!("it calls {} in a way that torch.save does not", self.called());
        match (self, arguments) {
            (Self::Inert(..), _) => Ok(Made::Node(Node::Object(self.clone(), None))),
            (Self::Dict, [items]) => {
                let pair = |pair: &Value| match machine.node(*pair) {
                    Some(Node::List(pair) | Node::Tuple(pair)) => match pair[..] {
                        [key, value] => Some((key, value)),
                        _ => None,
                    },
                    _ => None,
                };
                match machine.node(*items) {
                    Some(Node::List(pairs) | Node::Tuple(pairs)) => {
                        let pairs = pairs.iter().map(pair).collect::<Option<Vec<_>>>();
                        Ok(Made::Node(Node::Dict(pairs.ok_or_else(odd)?)))
                    }
                    // Of a defaultdict: what makes its missing values.
                    _ => Ok(Made::Node(Node::Dict(Vec::new()))),
                }
            }
            (Self::Dict, []) => Ok(Made::Node(Node::Dict(Vec::new()))),
            (Self::Size, [sizes @ Value::Node(_)]) => Ok(Made::Value(*sizes)),
            (Self::Rebuild(version), _) => TensorValue::from_arguments(machine, *version, arguments)
                .map(|tensor| Made::Node(Node::Tensor(Box::new(tensor)))),
            (Self::Parameter, [tensor, ..]) => match machine.node(*tensor) {
                Some(Node::Tensor(_)) => Ok(Made::Value(*tensor)),
                _ => Err(odd()),
            },
            (Self::RebuildFromType, [function, _, arguments, ..]) => {
                match (machine.node(*function), machine.node(*arguments)) {
                    (
                        Some(Node::Global(function @ (Self::Rebuild(_) | Self::Parameter))),
                        Some(Node::Tuple(arguments)),
                    ) => function.call(machine, arguments),
                    _ => Err(odd()),
                }
            }
            _ => Err(odd()),
        }
    }

    fn called(&self) -> &'static str {
        match self {
            Self::Dict => "a dict",
            Self::Size => "torch.Size",
            Self::Rebuild(_) | Self::RebuildFromType => "torch's function for a tensor",
            Self::Parameter => "torch's function for a parameter",
            Self::Storage(_) => "a storage",
            Self::Element(_) => "a type of values",
            Self::Inert(..) => "a thing",
        }
    }
}

fn known(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => Global::Dict,
        ("torch", "Size") => Global::Size,
        ("torch._utils", "_rebuild_tensor") => Global::Rebuild(Rebuild::V1),
        ("torch._utils", "_rebuild_tensor_v2") => Global::Rebuild(Rebuild::V2),
        ("torch._utils", "_rebuild_tensor_v3") => Global::Rebuild(Rebuild::V3),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch.nn.parameter", "Parameter") => Global::Parameter,
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("torch" | "torch.storage", "UntypedStorage" | "_UntypedStorage") => {
            Global::Storage(StorageType::Untyped)
        }
        ("torch" | "torch.cuda", _) => match name.strip_suffix("Storage") {
            Some(kind) => Global::Storage(StorageType::Of(storage_element(kind)?)),
            None => Global::Element(element(name)?),
        },
        _ => return None,
    })
}

fn storage_element(kind: &str) -> Option<ElementType> {
    if let Some((_, _, element)) = TYPES.iter().find(|(storage, ..)| *storage == kind) {
        return Some(ElementType::from_name(element));
    }
    let (other, _) = OTHER_TYPES.iter().find(|(storage, _)| *storage == kind)?;
    Some(ElementType::from_name(other))
}

fn element(name: &str) -> Option<ElementType> {
    if let Some((.., element)) = TYPES.iter().find(|(_, torch, _)| *torch == name) {
        return Some(ElementType::from_name(element));
    }
    let (other, _) = OTHER_TYPES.iter().find(|(_, torch)| *torch == name)?;
    Some(ElementType::from_name(other))
}

fn is_within(module: &str, outer: &str) -> bool {
    module.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
