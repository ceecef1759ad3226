//! Reads weights: the tensors of the checkpoint → one f32 tensor, as the weight's type rounds it
//! ([`crate::quant::rows`]).
//!
//! Parts are read whole, transposed where the checkpoint holds the transpose (matrix by matrix, where it
//! holds several in one tensor), cut to their rows and put one after another. A weight that is computed
//! of weights ([`crate::Projected`]) is computed here as it is defined. Deliberately not here: packing; the
//! evaluator computes with plain rows.

use super::{EvalError, Tensor, dot};
use crate::{
    DType, Module, Projected, SourcePart, TensorSource, TensorType, WeightId,
    ops::layer_norm_row,
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
        let parts = &weight.source.parts;
        let data = match &weight.source.projected {
            None => read_parts(source, parts, layer, &weight.ty)?,
            Some(through) => project(source, parts, through, layer, &want)?,
        };
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

/// The rows of all parts of a weight of type `ty`, one part after another.
fn read_parts(
    source: &dyn TensorSource,
    parts: &[SourcePart],
    layer: Option<u32>,
    ty: &TensorType,
) -> Result<Vec<f32>, String> {
    let mut data = Vec::new();
    for part in parts {
        for name in part.tensors(layer) {
            data.extend(read_part(source, part, &name, ty)?);
        }
    }
    Ok(data)
}

/// `norm(row) · matrixᵀ + bias` of every row of the parts; `want` are the weight's extents.
fn project(
    source: &dyn TensorSource,
    parts: &[SourcePart],
    through: &Projected,
    layer: Option<u32>,
    want: &[u32],
) -> Result<Vec<f32>, String> {
    let &[rows, columns] = want else {
        return Err("a computed weight is a matrix".into());
    };
    let width = table_width(source, parts, layer)?;
    let read = |parts: &[SourcePart], dims: &[u32]| {
        read_parts(source, parts, layer, &TensorType::weight(DType::F32, dims))
    };
    let mut table = read(parts, &[rows, width])?;
    if let Some(norm) = &through.norm {
        let vector = |name: &str| read(&[SourcePart::tensor(name)], &[width]);
        let (weight, bias) = (vector(&norm.weight)?, vector(&norm.bias)?);
        let rows = table.chunks_exact(width.max(1) as usize);
        table = rows
            .flat_map(|row| layer_norm_row(row, &weight, &bias, norm.eps))
            .collect();
    }
    let matrix = read(&through.matrix, &[columns, width])?;
    let bias = match through.bias.as_slice() {
        [] => vec![0.0; columns as usize],
        parts => read(parts, &[columns])?,
    };
    let width = width.max(1) as usize;
    let mut out = Vec::with_capacity(rows as usize * columns as usize);
    for row in table.chunks_exact(width) {
        for (line, b) in matrix.chunks_exact(width).zip(&bias) {
            out.push((dot(row, line) + f64::from(*b)) as f32);
        }
    }
    Ok(out)
}

/// Columns of the tensor that a computed weight begins with.
fn table_width(
    source: &dyn TensorSource,
    parts: &[SourcePart],
    layer: Option<u32>,
) -> Result<u32, String> {
    let part = parts.first().ok_or("it has no source")?;
    let name = tensor_name(&part.name, layer);
    let info = source
        .info(&name)
        .ok_or_else(|| format!("the checkpoint has no `{name}`"))?;
    match (info.dims.as_slice(), part.transposed) {
        (&[_, width], false) | (&[width, _], true) => Ok(width),
        _ => Err(format!("`{name}` is {:?}, expected a matrix", info.dims)),
    }
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
    let flat = dims.iter().skip(1).try_fold(1u32, |n, d| n.checked_mul(*d));
    if dims.len() > want.len() && want.len() == 2 && !part.transposed && flat == Some(want[1]) {
        dims = vec![dims[0], want[1]];
    } else if dims.len() == want.len() + 1 {
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
