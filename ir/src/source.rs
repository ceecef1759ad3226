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

/// A source pattern with the absolute layer filled in: `{layer}`, or where groups of layers are numbered
/// `{layer/2}` (the group) and `{layer%2}` (the layer within it), or where only every other one is there `{layer*2}`.
pub fn tensor_name(pattern: &str, layer: Option<u32>) -> Cow<'_, str> {
    let (Some(layer), true) = (layer, names_layer(pattern)) else {
        return Cow::Borrowed(pattern);
    };
    let mut name = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, place)) = rest.split_once("{layer") {
        name.push_str(before);
        let Some((how, behind)) = place.split_once('}') else {
            name.push_str("{layer");
            rest = place;
            continue;
        };
        let parted = |sign| {
            how.strip_prefix(sign)?
                .parse()
                .ok()
                .filter(|&n: &u32| n > 0)
        };
        match (parted('/'), parted('%'), parted('*')) {
            _ if how.is_empty() => name.push_str(&layer.to_string()),
            (Some(n), ..) => name.push_str(&(layer / n).to_string()),
            (_, Some(n), _) => name.push_str(&(layer % n).to_string()),
            (.., Some(n)) => name.push_str(&(u64::from(layer) * u64::from(n)).to_string()),
            (None, None, None) => name.push_str(&format!("{{layer{how}}}")),
        }
        rest = behind;
    }
    name.push_str(rest);
    Cow::Owned(name)
}

/// Whether a source pattern has a place for the layer.
pub fn names_layer(pattern: &str) -> bool {
    ["{layer}", "{layer/", "{layer%", "{layer*"]
        .iter()
        .any(|place| pattern.contains(place))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_numbered() {
        let of = |pattern| tensor_name(pattern, Some(5)).into_owned();
        assert_eq!(of("a.{layer}.b.{layer}"), "a.5.b.5");
        assert_eq!(of("a.{layer/2}.b.{layer%2}"), "a.2.b.1");
        assert_eq!(of("a.{layer*2}"), "a.10");
        assert_eq!(
            of("a.{layer/0}.{layer%x}.{layer"),
            "a.{layer/0}.{layer%x}.{layer"
        );
        assert_eq!(of("a"), "a");
        assert_eq!(tensor_name("a.{layer}", None), "a.{layer}");
    }
}
