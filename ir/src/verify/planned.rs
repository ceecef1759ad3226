//! Kernels, places and packs (V14, V15, V17). The rest of the module holds.

use super::Found;
use crate::{
    DType, Dim, Dims, Func, Layout, Module, Op, Operand, Pack, Place, Stage, Value, Weight,
    WeightId,
};

pub(super) fn check(found: &mut Found<'_>) {
    let module = found.module;
    let planned = module.stage == Stage::Planned;
    for func in &module.funcs {
        kernels(found, func);
    }
    for (i, w) in module.weights.iter().enumerate() {
        let fits = match &w.pack {
            Some(pack) => pack_fits(w, pack),
            None if planned && used(module, WeightId(i as u32)) => Err("it is not packed".into()),
            None => Ok(()),
        };
        if let Err(message) = fits {
            found.global("V17", format!("weight @{}: {message}", w.name));
        }
    }
    if planned {
        for func in &module.funcs {
            places(found, func);
        }
    }
}

/// V14.
fn kernels(found: &mut Found<'_>, func: &Func) {
    if func.kernels.is_empty() {
        return;
    }
    let len: u64 = func.kernels.iter().map(|k| u64::from(k.len)).sum();
    if len != func.body.len() as u64 {
        let message = format!(
            "kernels of {len} instructions, there are {}",
            func.body.len()
        );
        found.func("V14", func, message);
    }
    for k in func.kernels.iter().filter(|k| k.len == 0) {
        found.func("V14", func, format!("kernel @{} is empty", k.name));
    }
}

fn used(module: &Module, id: WeightId) -> bool {
    let reads = |f: &Func| {
        f.body
            .iter()
            .any(|i| i.operands.contains(&Operand::Weight(id)))
    };
    module.funcs.iter().any(reads)
}

/// V17.
fn pack_fits(w: &Weight, pack: &Pack) -> Result<(), String> {
    let dims = w.ty.fixed_dims().unwrap_or_default();
    let covers = |l: &Layout, n: u32| l.checked_len() == Some(n) && l.checked_width().is_some();
    // Blocks follow one another, and vectors are stored as f32.
    let plain = |l: &Layout| w.ty.dtype.element_bytes().is_some() || l.is_plain();
    let fits = match (pack, dims.as_slice()) {
        (Pack::Panels { rows, cols, glu }, &[m, k]) => {
            covers(rows, m) && covers(cols, k) && plain(cols) && (!glu || m.is_multiple_of(2))
        }
        (
            Pack::Experts {
                count,
                rows,
                cols,
                glu,
            },
            &[m, k],
        ) => {
            let each = m
                .checked_div(*count)
                .filter(|each| each.checked_mul(*count) == Some(m));
            each.is_some_and(|m| covers(rows, m) && (!glu || m.is_multiple_of(2)))
                && covers(cols, k)
                && plain(cols)
        }
        (Pack::Rows { cols }, &[_, k]) => covers(cols, k) && plain(cols),
        (Pack::Vector { layout }, &[n] | &[_, n]) => {
            covers(layout, n) && w.ty.dtype.element_bytes().is_some()
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{pack} does not fit {}", w.ty))
    }
}

/// V15.
fn places(found: &mut Found<'_>, func: &Func) {
    let arena = found.module.arena_bytes.unwrap_or(0);
    for &p in &func.params {
        // An entry's ids lie in the caller's memory; rows are put into the arena.
        let value = func.value(p);
        let rows = value.ty.tensor().is_some_and(|t| t.dims.len() > 1);
        match &value.place {
            Some(_) if func.entry().is_some() && !rows => {
                found.func(
                    "V15",
                    func,
                    format!("%{}: an entry's ids have no place", value.name),
                );
            }
            None if func.entry().is_some() && rows => {
                found.func("V15", func, format!("%{} has no place", value.name));
            }
            Some(place) => place_fits(found, func, value, place, arena),
            None => {}
        }
    }
    for inst in &func.body {
        for &r in &inst.results {
            let value = func.value(r);
            match (&value.place, value.ty.tensor()) {
                (Some(place), Some(_)) => place_fits(found, func, value, place, arena),
                (None, None) => {}
                (None, Some(_)) => {
                    found.inst("V15", func, inst, format!("%{} has no place", value.name));
                }
                (Some(_), None) => {
                    let message = format!("%{} is {}, which needs no place", value.name, value.ty);
                    found.inst("V15", func, inst, message);
                }
            }
        }
        if let Op::Repeat(repeat) = &inst.op {
            let classes = found.module.funcs.iter();
            let called = |f: &&Func| repeat.layers.iter().any(|(name, _)| *name == f.name);
            for class in classes.filter(called) {
                handed_over(found, func, inst, class);
            }
        }
    }
}

/// A class's parameters lie where the caller's operands do, and its result where the carried value does.
fn handed_over(found: &mut Found<'_>, func: &Func, inst: &crate::Inst, class: &Func) {
    let at = |p: &Option<Place>| {
        p.as_ref()
            .map(|p| (p.at, p.stride, p.layout.checked_width()))
    };
    for (o, &p) in inst.operands.iter().zip(&class.params) {
        if let Operand::Value(v) = o
            && at(&func.value(*v).place) != at(&class.value(p).place)
        {
            let names = (&func.value(*v).name, &class.value(p).name);
            let message = format!("%{} and %{} of @{} lie apart", names.0, names.1, class.name);
            found.inst("V15", func, inst, message);
        }
    }
    let results = class
        .results
        .first()
        .map(|(_, v)| at(&class.value(*v).place));
    let carried = class.params.first().map(|&p| at(&class.value(p).place));
    let outer = inst.results.first().map(|&r| at(&func.value(r).place));
    if results != carried || outer != carried {
        let message = format!(
            "the value that @{} carries does not stay in place",
            class.name
        );
        found.inst("V15", func, inst, message);
    }
}

fn place_fits(found: &mut Found<'_>, func: &Func, value: &Value, place: &Place, arena: u64) {
    if let Err(message) = fits(&found.module.dims_of(func), value, place, arena) {
        found.func(
            "V15",
            func,
            format!("%{}: {} {place}: {message}", value.name, value.ty),
        );
    }
}

fn fits(dims: &Dims, value: &Value, place: &Place, arena: u64) -> Result<(), String> {
    let Some(t) = value.ty.tensor() else {
        return Err("it is no tensor".into());
    };
    let width = if t.dims.len() > 1 {
        let want = t.row_len().ok_or("its rows have no fixed length")?;
        if place.layout.checked_len() != Some(want) {
            return Err(format!("the layout does not cover rows of {want}"));
        }
        if !matches!(t.dtype, DType::F32 | DType::I32) && !place.layout.is_plain() {
            return Err(format!("rows of {} are stored plainly", t.dtype.name()));
        }
        if !place.at.is_multiple_of(64) {
            return Err("it does not start at a multiple of 64 bytes".into());
        }
        value.row_units().ok_or("the layout is too wide")?
    } else {
        1
    };
    if width > place.stride {
        return Err(format!("rows of {width} units are wider than the stride"));
    }
    match extent(dims, value, place, width).and_then(|n| place.at.checked_add(n)) {
        Some(end) if end <= arena => Ok(()),
        _ => Err(format!("it ends behind the arena of {arena} bytes")),
    }
}

/// Bytes from a value's first to its last element, for as many rows as there may be.
fn extent(dims: &Dims, value: &Value, place: &Place, width: u32) -> Option<u64> {
    let rows = match value.ty.tensor()?.dims.first()? {
        Dim::Fixed(n) => *n,
        Dim::Sym(s) => dims.bound(*s),
    };
    let before = u64::from(rows.saturating_sub(1)).checked_mul(u64::from(place.stride))?;
    before.checked_add(u64::from(width))?.checked_mul(4)
}
