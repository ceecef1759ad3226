//! Nothing is overwritten while somebody needs it (V16). Kernels and places hold.
//!
//! A result of an instruction overwrites what lies at its place, unless the instruction is a view
//! (`kv_source`, `split`, `split_heads`, `merge_heads`), which writes nothing. What it overwrites must not be read
//! later, nor in the same kernel, whose threads do not wait for each other. Allowed are:
//!
//! - an op that works element by element or row by row writes exactly where the operand lies;
//! - within a kernel of row-wise ops, where one thread runs all ops of a row, rows of one buffer.
//!
//! Results of the function are read behind its end, and so are the parameters of a layer class, except
//! for the one that it carries. Across `repeat`, what the entry reads later is not the layers' to write.

use super::Found;
use crate::{Dim, Dims, Func, Inst, Op, Operand, Stage, ValueId};

/// A value's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slice {
    /// Bytes.
    at: u64,
    stride: u64,
    width: u64,
    rows: u64,
}

impl Slice {
    fn of(dims: &Dims, func: &Func, v: ValueId) -> Option<Slice> {
        let value = func.value(v);
        let (place, t) = (value.place.as_ref()?, value.ty.tensor()?);
        let rows = match t.dims.first()? {
            Dim::Fixed(n) => *n,
            Dim::Sym(s) => dims.bound(*s),
        };
        let width = value.row_units()?;
        Some(Slice {
            at: place.at,
            stride: u64::from(place.stride) * 4,
            width: u64::from(width) * 4,
            rows: u64::from(rows),
        })
    }

    fn end(self) -> u64 {
        self.at + self.rows.saturating_sub(1) * self.stride + self.width
    }

    fn overlaps(self, other: Slice) -> bool {
        let (a, b) = if self.at <= other.at {
            (self, other)
        } else {
            (other, self)
        };
        if a.end() <= b.at || b.rows == 0 || a.rows == 0 {
            return false;
        }
        if a.stride != b.stride || a.stride == 0 {
            return true;
        }
        // One grid of rows: b starts in row `row` of a, `column` bytes behind its start.
        let (row, column) = ((b.at - a.at) / a.stride, (b.at - a.at) % a.stride);
        (column < a.width && row < a.rows) || (column + b.width > a.stride && row + 1 < a.rows)
    }

    /// Both are columns of the same rows.
    fn same_rows(self, other: Slice) -> bool {
        let start = self.at.min(other.at);
        let end = (self.at + self.width).max(other.at + other.width);
        self.stride == other.stride && end - start <= self.stride
    }
}

fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::KvSource(_) | Op::Split(_) | Op::SplitHeads(_) | Op::MergeHeads(_)
    )
}

/// Ops of which one thread computes whole rows, from the same rows of the operands.
fn is_row_wise(op: &Op) -> bool {
    match op {
        Op::Activation(_)
        | Op::Add(_)
        | Op::Gather(_)
        | Op::Glu(_)
        | Op::KvAppend(_)
        | Op::L2Normalize(_)
        | Op::LayerNorm(_)
        | Op::Mul(_)
        | Op::Quantize(_)
        | Op::RmsNorm(_)
        | Op::Rope(_)
        | Op::RopeAngles(_)
        | Op::Route(_)
        | Op::Scale(_)
        | Op::Softcap(_)
        | Op::Substitute(_) => true,
        Op::Attention(_)
        | Op::Alibi(_)
        | Op::AttnBias(_)
        | Op::AttnDisentangled(_)
        | Op::AttnMix(_)
        | Op::AttnScores(_)
        | Op::Experts(_)
        | Op::KvRead(_)
        | Op::KvSource(_)
        | Op::Linear(_)
        | Op::MaskScores(_)
        | Op::MergeHeads(_)
        | Op::Pool(_)
        | Op::PositionIds(_)
        | Op::Repeat(_)
        | Op::Rows(_)
        | Op::Softmax(_)
        | Op::Split(_)
        | Op::SplitHeads(_)
        | Op::Unfold(_) => false,
    }
}

/// Whether the op may write where operand `i` lies.
fn in_place(inst: &Inst, i: usize) -> bool {
    match &inst.op {
        Op::Activation(_)
        | Op::L2Normalize(_)
        | Op::LayerNorm(_)
        | Op::Repeat(_)
        | Op::RmsNorm(_)
        | Op::Rope(_)
        | Op::Scale(_)
        | Op::Softcap(_)
        | Op::Substitute(_) => i == 0,
        Op::Add(_) | Op::Mul(_) => true,
        Op::Linear(l) => l.residual && i > 0 && i + 1 == inst.operands.len(),
        Op::Attention(_)
        | Op::Alibi(_)
        | Op::AttnBias(_)
        | Op::AttnDisentangled(_)
        | Op::AttnMix(_)
        | Op::AttnScores(_)
        | Op::Experts(_)
        | Op::Gather(_)
        | Op::Glu(_)
        | Op::KvAppend(_)
        | Op::KvRead(_)
        | Op::KvSource(_)
        | Op::MaskScores(_)
        | Op::MergeHeads(_)
        | Op::Pool(_)
        | Op::PositionIds(_)
        | Op::Quantize(_)
        | Op::RopeAngles(_)
        | Op::Route(_)
        | Op::Rows(_)
        | Op::Softmax(_)
        | Op::Split(_)
        | Op::SplitHeads(_)
        | Op::Unfold(_) => false,
    }
}

pub(super) fn check(found: &mut Found<'_>) {
    if found.module.stage != Stage::Planned {
        return;
    }
    for func in &found.module.funcs {
        within(found, func);
        for (i, inst) in func.body.iter().enumerate() {
            if let Op::Repeat(repeat) = &inst.op {
                let called = |f: &&Func| repeat.layers.iter().any(|(name, _)| *name == f.name);
                for class in found.module.funcs.iter().filter(called) {
                    across(found, func, i, class);
                }
            }
        }
    }
}

/// A function's values, in the order of their definition: index of the definition (None: parameter).
fn definitions(func: &Func) -> Vec<(ValueId, Option<usize>)> {
    let params = func.params.iter().map(|&p| (p, None));
    let results = func.body.iter().enumerate();
    params
        .chain(results.flat_map(|(i, inst)| inst.results.iter().map(move |&r| (r, Some(i)))))
        .collect()
}

/// Index of the last instruction that reads the value; the body's length where it is needed later.
fn last_use(func: &Func, v: ValueId) -> Option<usize> {
    let carried = func.params.first() == Some(&v);
    let outlives = func.params.contains(&v) && func.entry().is_none() && !carried;
    if outlives || func.returns(v) {
        return Some(func.body.len());
    }
    func.users(v).last().copied()
}

fn within(found: &mut Found<'_>, func: &Func) {
    let dims = found.module.dims_of(func);
    let mut kernel_of = Vec::with_capacity(func.body.len());
    for (k, kernel) in func.kernels.iter().enumerate() {
        kernel_of.extend((0..kernel.len).map(|_| k));
    }
    let values: Vec<_> = definitions(func)
        .into_iter()
        .filter_map(|(v, def)| Some((v, def, Slice::of(&dims, func, v)?, last_use(func, v))))
        .collect();
    for &(w, def, to, _) in &values {
        let Some(at) = def.filter(|&d| !is_view(&func.body[d].op)) else {
            continue;
        };
        let inst = &func.body[at];
        for &(u, u_def, from, last) in &values {
            if u == w || u_def.is_some_and(|d| d >= at) || !to.overlaps(from) {
                continue;
            }
            let name = &func.value(u).name;
            if last.is_some_and(|l| l > at) {
                found.inst(
                    "V16",
                    func,
                    inst,
                    format!("it overwrites %{name}, which is read later"),
                );
                continue;
            }
            let reads = |i: usize| inst.operands.get(i) == Some(&Operand::Value(u));
            let badly = |i: usize| reads(i) && !(in_place(inst, i) && to == from);
            if (0..inst.operands.len()).any(badly) {
                found.inst(
                    "V16",
                    func,
                    inst,
                    format!("it overwrites its operand %{name}"),
                );
            }
            let touches = |j: usize| {
                let other = &func.body[j];
                let touched =
                    other.results.contains(&u) || other.operands.contains(&Operand::Value(u));
                let apart = is_row_wise(&other.op) && is_row_wise(&inst.op) && to.same_rows(from);
                touched && !is_view(&other.op) && !apart && kernel_of[j] == kernel_of[at]
            };
            if (0..at).any(touches) {
                found.inst(
                    "V16",
                    func,
                    inst,
                    format!("it overwrites %{name}, which its kernel uses"),
                );
            }
        }
    }
}

/// The layers must not write what the entry reads behind `repeat`, nor what all of them read.
fn across(found: &mut Found<'_>, func: &Func, at: usize, class: &Func) {
    let dims = found.module.dims_of(func);
    let inst = &func.body[at];
    for (u, def) in definitions(func) {
        let shared = inst
            .operands
            .iter()
            .skip(1)
            .any(|o| *o == Operand::Value(u));
        let needed = shared || last_use(func, u).is_some_and(|l| l > at);
        let Some(kept) = Slice::of(&dims, func, u).filter(|_| needed) else {
            continue;
        };
        if def.is_some_and(|d| d >= at) {
            continue;
        }
        for writer in class.body.iter().filter(|i| !is_view(&i.op)) {
            let writes =
                |r: &ValueId| Slice::of(&dims, class, *r).is_some_and(|s| s.overlaps(kept));
            if writer.results.iter().any(writes) {
                let name = &func.value(u).name;
                let message = format!("it overwrites %{name} of @{}", func.name);
                found.inst("V16", class, writer, message);
            }
        }
    }
}
