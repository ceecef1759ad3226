//! Reads weights: the tensors of the checkpoint → one f32 tensor, as the weight's type rounds it
//! ([`crate::quant::rows`]).
//!
//! Parts are read whole, transposed where the checkpoint holds the transpose (matrix by matrix, where it
//! holds several in one tensor), cut to their rows and put one after another. Deliberately not here: packing; the evaluator computes with plain rows.

use super::{EvalError, Tensor};
use crate::{
    Module, SourcePart, TensorSource, TensorType, WeightId,
    quant::rows::{round_rows, row_values},
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
            for name in part.tensors(layer) {
                data.extend(read_part(source, part, &name, &weight.ty)?);
            }
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
    name: &str,
    ty: &TensorType,
) -> Result<Vec<f32>, String> {
    let want = ty.fixed_dims().ok_or("its extents are not fixed")?;
    let info = source
        .info(name)
        .ok_or_else(|| format!("the checkpoint has no `{name}`"))?;
    let mut dims = info.dims.clone();
    let last = dims.len().saturating_sub(2);
    if part.transposed {
        dims[last..].reverse();
    }
    // Rows of one matrix of the tensor.
    let each = dims.get(last).copied().unwrap_or(1) as usize;
    if dims.len() == want.len() + 1 {
        let first = dims.remove(0);
        dims[0] = dims[0].saturating_mul(first);
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
    let bytes = source.read(name, 0..size)?;
    let mut data = row_values(info.dtype, cols as usize, &bytes);
    source.release(name, 0..bytes.len() as u64);
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
        let at = |i: usize| {
            let (row, col) = (i / width, i % width);
            row / each * each * width + col * each + row % each
        };
        data = (0..rows * width).map(|i| data[at(i)]).collect();
    }
    if info.dtype != ty.dtype {
        let cols = want.last().map_or(1, |&d| d as usize);
        data = round_rows(ty.dtype, cols, data).map_err(|e| format!("`{name}`: {e}"))?;
    }
    match part.rows {
        None => Ok(data),
        Some((start, end)) if start < end && end as usize <= rows => {
            let taken = (start as usize..end as usize).step_by(part.every.max(1) as usize);
            Ok(taken
                .flat_map(|r| &data[r * width..(r + 1) * width])
                .copied()
                .collect())
        }
        Some((start, end)) => Err(format!("`{name}` has {rows} rows, not {start}..{end}")),
    }
}
