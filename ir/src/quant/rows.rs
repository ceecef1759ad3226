//! What a weight of some element type holds of its source's rows: the one place that decides it, for
//! the evaluator and for the packer.
//!
//! In: whole rows as a checkpoint stores them. Out: the same rows as the weight's type stores them
//! ([`DType::row_bytes`]), or the values that these stand for. Rows of the weight's own type stay as
//! they are; others are rounded, or quantised by the format's quantiser.
//!
//! Errors say what cannot be stored; the caller knows the tensor's name. Not here: the order in which
//! kernels read the elements.

use std::borrow::Cow;

use super::activation;
use crate::{DType, Group, source::to_f32};

/// Greatest magnitude that is quantised: with it all scales and minima fit f16.
pub const MAX: f32 = 65504.0;

/// Whole rows of `cols` elements of type `from`, as type `to` stores them.
pub fn store_rows(
    from: DType,
    to: DType,
    cols: usize,
    bytes: Cow<'_, [u8]>,
) -> Result<Cow<'_, [u8]>, String> {
    if from == to {
        return Ok(bytes);
    }
    encode(to, cols, &row_values(from, cols, &bytes)).map(Cow::Owned)
}

/// The values of whole rows of `cols` elements that are stored as `dtype`.
pub fn row_values(dtype: DType, cols: usize, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::Int8 => {
            let rows = bytes.chunks_exact(cols + 4);
            rows.flat_map(|row| {
                let (codes, scale) = row.split_at(cols);
                let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
                codes.iter().map(move |&c| f32::from(c as i8) * scale)
            })
            .collect()
        }
        _ => to_f32(dtype, bytes),
    }
}

/// The values of rows of `cols` elements once they have been stored as `dtype`.
pub fn round_rows(dtype: DType, cols: usize, values: Vec<f32>) -> Result<Vec<f32>, String> {
    match dtype {
        DType::F32 => Ok(values),
        _ => Ok(row_values(dtype, cols, &encode(dtype, cols, &values)?)),
    }
}

/// Rows of `cols` values as `to` stores them.
fn encode(to: DType, cols: usize, values: &[f32]) -> Result<Vec<u8>, String> {
    match to {
        DType::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        DType::F16 => {
            let mut bytes = Vec::with_capacity(values.len() * 2);
            for v in values {
                let h = half::f16::from_f32(*v);
                if v.is_finite() && h.is_infinite() {
                    return Err(format!("found {v}, f16 holds magnitudes up to {MAX}"));
                }
                bytes.extend(h.to_le_bytes());
            }
            Ok(bytes)
        }
        DType::BF16 => {
            let bf16 = values.iter().map(|v| half::bf16::from_f32(*v));
            Ok(bf16.flat_map(|h| h.to_le_bytes()).collect())
        }
        DType::Block(format) => {
            if !cols.is_multiple_of(format.block_len()) {
                let (name, len) = (format.name(), format.block_len());
                return Err(format!(
                    "rows of {cols} are not whole blocks of {len} ({name})"
                ));
            }
            finite(to, values)?;
            Ok(format.quantize(values))
        }
        DType::Int8 => {
            finite(to, values)?;
            let mut bytes = Vec::with_capacity(values.len() + values.len() / cols.max(1) * 4);
            for row in values.chunks(cols.max(1)) {
                let (codes, scales) = activation::quantize(row, Group::Row);
                bytes.extend(codes.iter().map(|&c| c as u8));
                bytes.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
            }
            Ok(bytes)
        }
        DType::I32 | DType::Q8(_) => Err(format!("nothing is stored as {}", to.name())),
    }
}

/// Only numbers that have codes can be quantised.
fn finite(to: DType, values: &[f32]) -> Result<(), String> {
    match values.iter().find(|v| v.is_nan() || v.abs() > MAX) {
        None => Ok(()),
        Some(v) => Err(format!(
            "found {v}, {} takes numbers of magnitudes up to {MAX}",
            to.name()
        )),
    }
}
