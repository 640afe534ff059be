//! The inputs and outputs of a graph as it declares them.

use std::fmt;

use ort::value::{TensorElementType, ValueType};

/// A named input or output with its declared type.
#[derive(Debug, Clone)]
pub struct Port {
    pub name: String,
    pub element: TensorElementType,
    /// The declared sizes. -1 means any size.
    pub shape: Vec<i64>,
    /// The names that the exporter gave to sizes. A size without a name has an empty one.
    symbols: Vec<String>,
}

impl Port {
    pub(super) fn read(name: &str, value: &ValueType) -> Option<Self> {
        let ValueType::Tensor { ty, shape, dimension_symbols } = value else { return None };
        let symbols = dimension_symbols.iter().cloned().collect();
        Some(Self { name: name.to_owned(), element: *ty, shape: shape.to_vec(), symbols })
    }

    /// How often a side of the latents is halved along `axis`: 2 for `height.2`, and 0 for `height`.
    pub fn halvings(&self, axis: usize) -> u32 {
        let symbol = self.symbols.get(axis).map_or("", String::as_str);
        symbol.rsplit_once('.').and_then(|(_, level)| level.parse().ok()).unwrap_or(0)
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The declared size along `axis`, if the graph fixes one.
    pub fn fixed(&self, axis: usize) -> Option<i64> {
        self.shape.get(axis).copied().filter(|size| *size > 0)
    }

    pub fn is_integer(&self) -> bool {
        matches!(self.element, TensorElementType::Int32 | TensorElementType::Int64)
    }
}

impl fmt::Display for Port {
    /// The type and the sizes, such as `float32 [batch, 4, height, width]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.shape.iter().enumerate().map(|(axis, size)| match self.symbols.get(axis) {
            Some(symbol) if *size < 0 && !symbol.is_empty() => symbol.clone(),
            _ if *size < 0 => "any".to_owned(),
            _ => size.to_string(),
        });
        write!(f, "{} [{}]", element_name(self.element), sizes.collect::<Vec<_>>().join(", "))
    }
}

/// The usual names of ONNX Runtime's types.
pub(super) fn element_name(element: TensorElementType) -> String {
    match element {
        TensorElementType::Float16 => "float16".to_owned(),
        TensorElementType::Float32 => "float32".to_owned(),
        TensorElementType::Float64 => "float64".to_owned(),
        TensorElementType::Bfloat16 => "bfloat16".to_owned(),
        other => format!("{other:?}").to_ascii_lowercase(),
    }
}
