//! Reads weights: the tensors of the checkpoint → one f32 tensor, as the weight's type rounds it
//! ([`crate::quant::rows`]).
//!
//! Parts are read whole, transposed where the checkpoint holds the transpose, cut to their rows and
//! put one after another. Deliberately not here: packing; the evaluator computes with plain rows.

use super::{EvalError, Tensor};
use crate::{
    Module, SourcePart, TensorSource, TensorType, WeightId,
    quant::rows::{round_rows, row_values},
    source::tensor_name,
};

/// Entry `slot` of a weight; slot 0 for a single tensor.
pub fn load(
    module: &Module,
    source: &dyn TensorSource,
    id: WeightId,
    slot: u32,
) -> Result<Tensor, EvalError> {
    let Some(weight) = module.weights.get(id.index()) else {
        return Err(EvalError::Input(format!("no weight {id}")));
    };
    let layer = match (weight.slots, module.class_of_weight(id)) {
        (Some(_), Some(class)) => module.layer_of(class, slot),
        _ => None,
    };
    let read = || {
        let want = weight.ty.fixed_dims().ok_or("its extents are not fixed")?;
        let mut data = Vec::new();
        for part in &weight.source.parts {
            data.extend(read_part(source, part, layer, &weight.ty)?);
        }
        let dims: Vec<usize> = want.iter().map(|&d| d as usize).collect();
        let rows = data.len() / dims.iter().skip(1).product::<usize>().max(1);
        Tensor::new(&dims, data)
            .ok_or_else(|| format!("the parts have {rows} rows, expected {}", weight.ty))
    };
    read().map_err(|message| EvalError::Weight {
        name: weight.name.clone(),
        message,
    })
}

/// The rows of one part of a weight of type `ty`.
fn read_part(
    source: &dyn TensorSource,
    part: &SourcePart,
    layer: Option<u32>,
    ty: &TensorType,
) -> Result<Vec<f32>, String> {
    let want = ty.fixed_dims().ok_or("its extents are not fixed")?;
    let name = tensor_name(&part.name, layer);
    let info = source
        .info(&name)
        .ok_or_else(|| format!("the checkpoint has no `{name}`"))?;
    let mut dims = info.dims.clone();
    if part.transposed {
        dims.reverse();
    }
    if dims.len() != want.len()
        || dims.get(1..) != want.get(1..)
        || (part.transposed && dims.len() != 2)
    {
        let transposed = if part.transposed { ", transposed" } else { "" };
        return Err(format!(
            "`{name}` is {:?}{transposed}, expected rows of {want:?}",
            info.dims
        ));
    }
    let numbers: u64 = dims.iter().map(|&d| u64::from(d)).product();
    let cols = info.dims.last().copied().unwrap_or(1).max(1);
    let size = numbers / u64::from(cols) * info.dtype.row_bytes(cols.into());
    let bytes = source.read(&name, 0..size)?;
    let mut data = row_values(info.dtype, cols as usize, &bytes);
    source.release(&name, 0..bytes.len() as u64);
    if data.len() as u64 != numbers {
        return Err(format!(
            "`{name}` has {} numbers, expected {numbers}",
            data.len()
        ));
    }
    let (rows, width) = (
        dims.first().copied().unwrap_or(1) as usize,
        dims.iter().skip(1).product::<u32>() as usize,
    );
    if part.transposed {
        data = (0..rows * width)
            .map(|i| data[i % width * rows + i / width])
            .collect();
    }
    if info.dtype != ty.dtype {
        let cols = want.last().map_or(1, |&d| d as usize);
        data = round_rows(ty.dtype, cols, data).map_err(|e| format!("`{name}`: {e}"))?;
    }
    match part.rows {
        None => Ok(data),
        Some((start, end)) if start < end && end as usize <= rows => {
            Ok(data[start as usize * width..end as usize * width].to_vec())
        }
        Some((start, end)) => Err(format!("`{name}` has {rows} rows, not {start}..{end}")),
    }
}
