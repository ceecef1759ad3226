//! Several weights over one another as one: their rows, one weight after the other.
//!
//! in: weights `[Mᵢ, K]` (or biases `[Mᵢ]`) → out: a new weight `[Σ Mᵢ, K]` whose source is the parts
//! of all. The joined ones lose their last use; `dce` removes them.

use llmc_ir::{Dim, Module, Source, TensorType, Weight, WeightId};

use crate::edit;

/// Why `weights` cannot be stored as one; None where they can.
pub fn obstacle(module: &Module, weights: &[WeightId]) -> Option<String> {
    let first = &module.weights[weights.first()?.index()];
    for id in weights {
        let w = &module.weights[id.index()];
        if w.ty.dtype != first.ty.dtype {
            let (a, b) = (first.ty.dtype.name(), w.ty.dtype.name());
            return Some(format!("@{} is {a}, @{} is {b}", first.name, w.name));
        }
        if w.slots != first.slots {
            return Some(format!("@{} and @{} differ in slots", first.name, w.name));
        }
        if w.ty.dims.len() != first.ty.dims.len() || w.ty.dims[1..] != first.ty.dims[1..] {
            return Some(format!(
                "@{} is {}, @{} is {}",
                first.name, first.ty, w.name, w.ty
            ));
        }
        if w.source.projected.is_some() {
            return Some(format!("@{} is computed of weights", w.name));
        }
        let transposed = |w: &Weight| w.source.parts.first().is_some_and(|p| p.transposed);
        if w.source
            .parts
            .iter()
            .any(|p| p.transposed != transposed(first))
        {
            return Some(format!(
                "@{} or @{} is stored transposed",
                first.name, w.name
            ));
        }
        if edit::weight_uses(module, *id) != 1 {
            return Some(format!("@{} has other uses", w.name));
        }
    }
    None
}

/// Joins weights without [`obstacle`].
pub fn join(module: &mut Module, weights: &[WeightId]) -> Option<WeightId> {
    let list: Vec<&Weight> = weights.iter().map(|w| &module.weights[w.index()]).collect();
    let first = *list.first()?;
    let rows = |w: &Weight| w.ty.dims.first().and_then(|d| d.fixed());
    let sum = list.iter().try_fold(0u32, |n, w| n.checked_add(rows(w)?))?;
    let mut dims = first.ty.dims.clone();
    *dims.first_mut()? = Dim::Fixed(sum);
    let parts = list.iter().flat_map(|w| w.source.parts.clone()).collect();
    let joined = Weight {
        name: joined_name(module, &list),
        slots: first.slots,
        ty: TensorType::new(first.ty.dtype, dims),
        source: Source::rows(parts),
        pack: None,
    };
    Some(module.add_weight(joined))
}

/// `layer.wq`, `layer.wk`, `layer.wv` → `layer.wq_wk_wv`.
fn joined_name(module: &Module, weights: &[&Weight]) -> String {
    let mut name = String::new();
    for w in weights {
        let last = w.name.rsplit('.').next().unwrap_or(&w.name);
        if name.is_empty() {
            name = w.name.clone();
        } else {
            name = format!("{name}_{last}");
        }
    }
    let mut unique = name.clone();
    let mut n = 1;
    while module.weights.iter().any(|w| w.name == unique) {
        unique = format!("{name}.{n}");
        n += 1;
    }
    unique
}
