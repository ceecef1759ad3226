//! Where weights' values come from: the checkpoint's tensors by name.
//!
//! The IR names tensors; whoever packs or evaluates reads them through this trait. `frontend`
//! implements it for mapped files and for generated weights. Names are those of [`crate::Source`],
//! with `{layer}` already filled in ([`tensor_name`]).

use std::{borrow::Cow, ops::Range};

use crate::DType;

/// Type and extents of a tensor of the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    pub dtype: DType,
    pub dims: Vec<u32>,
}

/// Tensors by name, read piece by piece.
pub trait TensorSource: Sync {
    /// Type and extents; None where there is no such tensor.
    fn info(&self, name: &str) -> Option<TensorInfo>;

    /// Bytes `range` of the tensor, little endian, row-major.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, String>;

    /// These bytes will not be read again soon: their pages can go.
    fn release(&self, name: &str, range: Range<u64>);
}

/// A source pattern with the absolute layer filled in.
pub fn tensor_name(pattern: &str, layer: Option<u32>) -> Cow<'_, str> {
    match layer {
        Some(l) if pattern.contains("{layer}") => {
            Cow::Owned(pattern.replace("{layer}", &l.to_string()))
        }
        _ => Cow::Borrowed(pattern),
    }
}

/// Elements of `dtype`, as a checkpoint stores them, as f32, exactly. `bytes` are whole elements or
/// blocks; of `int8` and activations there is no stored form, and nothing comes out.
pub fn to_f32(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        DType::F16 => bytes
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        DType::BF16 => bytes
            .chunks_exact(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        DType::I32 => bytes
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32)
            .collect(),
        DType::Block(format) => format.dequantize(bytes),
        DType::Int8 | DType::Q8(_) => Vec::new(),
    }
}
