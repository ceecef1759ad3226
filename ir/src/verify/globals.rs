//! What stands outside of functions: names, bounds, weights, states (V1, V9, V11, V12).

use super::Found;
use crate::{DType, Dim, Dims, ENTRY, Format, SourcePart, State, Sym, TensorType, Weight};

/// Greatest bound of a symbolic extent.
const MAX_BOUND: u32 = 1 << 24;

pub(super) fn check(found: &mut Found<'_>) {
    let module = found.module;
    let weights = module.weights.iter().map(|w| w.name.as_str());
    let states = module.states.iter().map(|s| s.name.as_str());
    found.unique(None, "weights or states", weights.chain(states));
    found.unique(
        None,
        "functions",
        module.funcs.iter().map(|f| f.name.as_str()),
    );
    let kernels = module
        .funcs
        .iter()
        .flat_map(|f| &f.kernels)
        .map(|k| k.name.as_str());
    found.unique(None, "kernels", kernels);
    bounds(found, &module.dims);
    for (i, (entry, dims)) in module.entry_dims.iter().enumerate() {
        bounds(found, dims);
        let name = entry.name();
        if module.entry(*entry).is_none() {
            found.global("V9", format!("bounds of @{name}, which does not exist"));
        }
        if module.entry_dims[..i].iter().any(|(e, _)| e == entry) {
            found.global("V9", format!("two lists of bounds of @{name}"));
        }
    }
    for w in &module.weights {
        if let Err(message) = weight(w) {
            found.global("V11", format!("weight @{}: {message}", w.name));
        }
    }
    for s in &module.states {
        if let Err(message) = state(s) {
            found.global("V12", format!("state @{}: {message}", s.name));
        }
    }
    if module.entries().next().is_none() {
        found.global("V8", format!("there is no function @{ENTRY}"));
    }
}

/// V9.
fn bounds(found: &mut Found<'_>, dims: &Dims) {
    for sym in Sym::ALL {
        let (least, most) = (sym.lower_bound(), dims.bound(sym));
        if most < least || most > MAX_BOUND {
            found.global(
                "V9",
                format!("{} is {least}..={most}, at most {MAX_BOUND}", sym.name()),
            );
        }
    }
}

/// Extents of at least 1, four at most, fewer than 2^40 elements.
pub(super) fn extents(t: &TensorType) -> Result<(), String> {
    let elements = t.dims.iter().try_fold(1u64, |n, d| match d {
        Dim::Fixed(0) => None,
        Dim::Fixed(d) => n.checked_mul(u64::from(*d)).filter(|&n| n < 1 << 40),
        Dim::Sym(_) => Some(n),
    });
    if elements.is_some() && matches!(t.dims.len(), 1..=4) {
        Ok(())
    } else {
        Err(format!(
            "{t}: expected one to four extents of at least 1, below 2^40 elements"
        ))
    }
}

fn weight(w: &Weight) -> Result<(), String> {
    extents(&w.ty)?;
    let dims =
        w.ty.fixed_dims()
            .ok_or_else(|| format!("{} has an extent that is not fixed", w.ty))?;
    if !w.ty.dtype.is_weight() {
        return Err(format!("{}: weights are floats", w.ty));
    }
    let (cols, block) = (w.ty.last().unwrap_or(1), w.ty.dtype.block_len());
    if !cols.is_multiple_of(block) {
        return Err(format!("{}: rows are not whole blocks of {block}", w.ty));
    }
    if w.slots == Some(0) {
        return Err("a stack without slots".into());
    }
    for name in w.source.patterns() {
        if w.slots.is_none() && crate::source::names_layer(name) {
            return Err(format!(
                "`{name}` names a layer, but the weight has no slots"
            ));
        }
    }
    source_rows(&w.source.parts, dims.len(), dims.first().copied())?;
    let Some(through) = &w.source.projected else {
        return Ok(());
    };
    let [_, columns] = *dims.as_slice() else {
        return Err(format!("{} is computed, but no matrix", w.ty));
    };
    if w.ty.dtype != DType::F32 {
        return Err(format!("{} is computed, expected f32", w.ty));
    }
    if let Some(norm) = &through.norm
        && !(norm.eps.is_finite() && norm.eps >= 0.0)
    {
        return Err(format!("it is normed with eps = {}", norm.eps));
    }
    source_rows(&through.matrix, 2, Some(columns))?;
    if through.bias.is_empty() {
        return Ok(());
    }
    source_rows(&through.bias, 1, Some(columns))
}

/// The parts of a tensor of `rank` extents, which have `want` rows in all.
fn source_rows(parts: &[SourcePart], rank: usize, want: Option<u32>) -> Result<(), String> {
    if parts.is_empty() {
        return Err("it has no source".into());
    }
    let mut rows = Some(0u64);
    for part in parts {
        if part.transposed && rank != 2 {
            return Err(format!(
                "`{}` is transposed, but the weight is no matrix",
                part.name
            ));
        }
        let experts = part.name.contains("{expert}");
        if part.every == 0 || part.experts == Some(0) || part.experts.is_some() != experts {
            return Err(format!(
                "`{}`: every {} rows of {} experts",
                part.name,
                part.every,
                part.experts.unwrap_or(1)
            ));
        }
        rows = match (part.rows, part.count()) {
            (Some((start, end)), _) if start >= end => {
                return Err(format!("`{}` has rows {start}..{end}", part.name));
            }
            (_, Some(count)) => {
                rows.map(|n| n + u64::from(count) * u64::from(part.experts.unwrap_or(1)))
            }
            (_, None) => None,
        };
    }
    match (rows, want) {
        (Some(n), Some(want)) if n != u64::from(want) => {
            Err(format!("the source has {n} rows, expected {want}"))
        }
        _ => Ok(()),
    }
}

fn state(s: &State) -> Result<(), String> {
    match s.dtype {
        DType::F32 | DType::F16 | DType::BF16 => {}
        DType::Block(Format::Q8_0) => {
            let block = s.dtype.block_len();
            if !s.k_dim.is_multiple_of(block) || !s.v_dim.is_multiple_of(block) {
                return Err(format!(
                    "heads of {} and {} elements are not whole blocks of {block}",
                    s.k_dim, s.v_dim
                ));
            }
        }
        _ => return Err("states hold f32, f16, bf16 or q8_0".into()),
    }
    let elements = u64::from(s.heads) * u64::from(s.k_dim.max(s.v_dim));
    if s.heads == 0 || s.k_dim == 0 || s.v_dim == 0 || elements > 1 << 24 {
        return Err(format!(
            "{} heads of {} and {} elements",
            s.heads, s.k_dim, s.v_dim
        ));
    }
    if s.slots == Some(0) || s.window == Some(0) {
        return Err("slots and window hold at least one".into());
    }
    Ok(())
}
