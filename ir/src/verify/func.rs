//! One function by itself: ids, definitions, types, attributes (V1–V5, V8, V10).

use super::{Found, globals::extents};
use crate::{
    DType, Dim, Func, Inst, Mask, Op, Operand, TensorType, Type, ValueId,
    attr::{AttrValue, Attrs},
    builder::operand_types,
};

/// Most elements of a value for each index of its symbolic extents.
const MAX_ROW: u64 = 1 << 24;

pub(super) fn check(found: &mut Found<'_>, func: &Func) {
    // Values that nobody defines any more are no part of the function.
    let defined = func
        .params
        .iter()
        .chain(func.body.iter().flat_map(|i| &i.results));
    let names: Vec<&str> = defined
        .filter_map(|v| func.values.get(v.index()))
        .map(|v| v.name.as_str())
        .collect();
    let results = func.results.iter().map(|(name, _)| name.as_str());
    found.unique(Some(func), "results", results);
    let mut known = vec![false; func.values.len()];
    let before = found.list.len();
    for p in &func.params {
        match known.get_mut(p.index()) {
            None => found.func(
                "V2",
                func,
                format!("parameter {p} of {} values", known.len()),
            ),
            Some(true) => found.func("V3", func, format!("parameter {p} comes twice")),
            Some(k) => *k = true,
        }
    }
    for inst in &func.body {
        if operands_known(found, func, inst, &known) {
            types(found, func, inst);
        }
        define(found, func, inst, &mut known);
        let attrs = attrs(&inst.op.attrs()).and_then(|()| tiles(&inst.op));
        if let Err(message) = attrs.and_then(|()| unordered(func, inst)) {
            found.inst("V5", func, inst, message);
        }
    }
    for (name, v) in &func.results {
        match known.get(v.index()) {
            None => found.func(
                "V2",
                func,
                format!("result `{name}` is {v}, which does not exist"),
            ),
            Some(false) => found.func("V3", func, format!("result `{name}` is defined nowhere")),
            Some(true) => {}
        }
    }
    if found.list.len() == before {
        found.unique(Some(func), "values", names.into_iter());
    }
    let defined = func.values.iter().zip(&known).filter(|(_, k)| **k);
    for (value, _) in defined {
        if let Some(t) = value.ty.tensor() {
            let message = match extents(t).and_then(|()| row(t)).and_then(|()| elements(t)) {
                Ok(()) => continue,
                Err(message) => format!("%{}: {message}", value.name),
            };
            found.func("V10", func, message);
        }
    }
    if func.entry().is_some() {
        entry(found, func);
    }
}

/// Few enough elements for each index of the symbolic extents.
fn row(t: &TensorType) -> Result<(), String> {
    let fixed = t.dims.iter().filter_map(|d| d.fixed());
    match fixed.map(u64::from).product::<u64>() {
        n if n <= MAX_ROW => Ok(()),
        n => Err(format!("{t}: {n} elements a row, at most {MAX_ROW}")),
    }
}

/// Element types of values; those that `quantize` makes have rows `[n, K]` of whole blocks.
fn elements(t: &TensorType) -> Result<(), String> {
    match t.dtype {
        DType::F32 | DType::I32 => Ok(()),
        DType::BF16 | DType::Q8(_) => match t.dims.as_slice() {
            [_, Dim::Fixed(k)] if k.is_multiple_of(t.dtype.block_len()) => Ok(()),
            _ => Err(format!(
                "{t}: expected [n, K] of whole blocks of {}",
                t.dtype.block_len()
            )),
        },
        DType::F16 | DType::Block(_) | DType::Int8 => Err(format!(
            "{t}: expected f32, i32, bf16, q8_block, q8_row or q8_pair"
        )),
    }
}

/// Notes operands that do not exist, or not yet.
fn operands_known(found: &mut Found<'_>, func: &Func, inst: &Inst, known: &[bool]) -> bool {
    let (weights, states) = (found.module.weights.len(), found.module.states.len());
    let mut ok = true;
    for &o in &inst.operands {
        let (code, message) = match o {
            Operand::Value(v) => match known.get(v.index()) {
                Some(true) => continue,
                Some(false) => {
                    let name = &func.values[v.index()].name;
                    ("V3", format!("%{name} is read before it is defined"))
                }
                None => ("V2", format!("operand {v} does not exist")),
            },
            Operand::Weight(w) if w.index() < weights => continue,
            Operand::State(s) if s.index() < states => continue,
            Operand::Weight(w) => ("V2", format!("operand {w} does not exist")),
            Operand::State(s) => ("V2", format!("operand {s} does not exist")),
        };
        found.inst(code, func, inst, message);
        ok = false;
    }
    ok
}

fn define(found: &mut Found<'_>, func: &Func, inst: &Inst, known: &mut [bool]) {
    for r in &inst.results {
        match known.get_mut(r.index()) {
            None => found.inst("V2", func, inst, format!("result {r} does not exist")),
            Some(true) => found.inst("V3", func, inst, format!("{r} is defined a second time")),
            Some(k) => *k = true,
        }
    }
}

fn types(found: &mut Found<'_>, func: &Func, inst: &Inst) {
    let operands = operand_types(found.module, func, &inst.operands);
    let inferred = match inst.op.infer(&operands) {
        Ok(types) => types,
        Err(message) => return found.inst("V4", func, inst, message),
    };
    let results: Vec<Option<&Type>> = inst
        .results
        .iter()
        .map(|r| func.values.get(r.index()).map(|v| &v.ty))
        .collect();
    // A result that does not exist is V2.
    if !results.contains(&None) && !results.iter().flatten().copied().eq(&inferred) {
        let list: Vec<String> = inferred.iter().map(Type::to_string).collect();
        found.inst(
            "V4",
            func,
            inst,
            format!("expected results of {}", list.join(", ")),
        );
    }
}

/// V5 for attributes in generic form.
fn attrs(list: &Attrs) -> Result<(), String> {
    list.0.iter().try_for_each(|(key, v)| attr(key, v))
}

fn attr(key: &str, v: &AttrValue) -> Result<(), String> {
    match v {
        AttrValue::Float(x) if !x.is_finite() => Err(format!("`{key}` is {x}")),
        AttrValue::List(l) => l.iter().try_for_each(|v| attr(key, v)),
        AttrValue::Struct(_, a) => attrs(a),
        AttrValue::Mask(m) => mask(m, 0),
        AttrValue::Int(_)
        | AttrValue::Float(_)
        | AttrValue::Bool(_)
        | AttrValue::Word(_)
        | AttrValue::Layer(..) => Ok(()),
    }
}

fn mask(m: &Mask, depth: u32) -> Result<(), String> {
    match m {
        _ if depth > 32 => Err("the mask nests deeper than 32".into()),
        Mask::Window(0) | Mask::Band(0) => Err("the window shows nothing".into()),
        Mask::And(l) | Mask::Or(l) if l.len() < 2 => {
            Err("`&` and `|` join two masks or more".into())
        }
        Mask::And(l) | Mask::Or(l) => l.iter().try_for_each(|m| mask(m, depth + 1)),
        Mask::Bidirectional
        | Mask::Causal
        | Mask::Window(_)
        | Mask::Band(_)
        | Mask::Stride { .. }
        | Mask::Fixed { .. } => m.check(),
    }
}

/// V5 for attributes that count something.
fn tiles(op: &Op) -> Result<(), String> {
    match op {
        Op::Attention(a) if a.kv_group == 0 => Err("`kv_group` is 0".into()),
        Op::Attention(a)
            if a.schedule
                .is_some_and(|s| s.block_q == 0 || s.block_kv == 0) =>
        {
            Err("a tile holds nothing".into())
        }
        Op::Softcap(s) if s.cap <= 0.0 => Err(format!("`cap` is {}", s.cap)),
        _ => Ok(()),
    }
}

/// V5: the keys of a source are a set.
fn unordered(func: &Func, inst: &Inst) -> Result<(), String> {
    let (at, what) = match &inst.op {
        Op::Attention(a) if a.bias.is_some() => (1, "a bias"),
        Op::Attention(a) if a.mask != Mask::Bidirectional => (1, "a mask"),
        Op::AttnBias(_) => (0, "a bias"),
        Op::MaskScores(m) if m.mask != Mask::Bidirectional => (0, "a mask"),
        _ => return Ok(()),
    };
    match inst.operands.get(at) {
        Some(Operand::Value(v)) if from_source(func, *v) => {
            Err(format!("{what} over a source's keys"))
        }
        _ => Ok(()),
    }
}

/// Whether scores, keys or a view are those of a source.
fn from_source(func: &Func, mut v: ValueId) -> bool {
    // Every step goes to an earlier instruction.
    for _ in 0..=func.body.len() {
        let Some(inst) = func.def(v).map(|d| &func.body[d]) else {
            return false;
        };
        let next = match &inst.op {
            Op::KvSource(_) => return true,
            Op::AttnScores(_) => 1,
            Op::AttnBias(_) | Op::KvRead(_) | Op::MaskScores(_) | Op::Softcap(_) => 0,
            _ => return false,
        };
        match inst.operands.get(next) {
            Some(Operand::Value(x)) => v = *x,
            _ => return false,
        }
    }
    false
}

/// Rows of floats, one a token.
fn rows_in(ty: &Type) -> bool {
    ty.tensor().is_some_and(|t| {
        let rows = matches!(t.dims.as_slice(), [Dim::Sym(crate::Sym::N), Dim::Fixed(_)]);
        t.dtype == DType::F32 && rows
    })
}

/// V8.
fn entry(found: &mut Found<'_>, func: &Func) {
    for v in func
        .params
        .iter()
        .filter_map(|p| func.values.get(p.index()))
    {
        let known = match v.name.as_str() {
            "ids" | "pos" | "types" => v.ty == Type::ids(),
            _ => v.ty == Type::Step || rows_in(&v.ty),
        };
        if !known {
            let message = format!(
                "parameter %{}: {}, expected ids, pos, types: i32[N], f32[N, D], or the step",
                v.name, v.ty
            );
            found.func("V8", func, message);
        }
    }
    if func.results.is_empty() {
        found.func("V8", func, "the entry returns nothing");
    }
    for (name, v) in &func.results {
        if let Some(v) = func.values.get(v.index())
            && v.ty
                .tensor()
                .is_none_or(|t| t.dtype != DType::F32 || t.dims.len() != 2)
        {
            found.func(
                "V8",
                func,
                format!("result `{name}` is {}, expected f32 rows", v.ty),
            );
        }
    }
}
