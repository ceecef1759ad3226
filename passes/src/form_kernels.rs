//! `form-kernels`: partitions every function into kernels, which run one after another with a barrier
//! between them and none inside.
//!
//! ```text
//! %q  = split_heads %qkv.0                    kernel @layer.wq_wk_wv { linear, split, split_heads … }
//! %qn = rms_norm %q, @q_norm             →    kernel @layer.rows     { rms_norm, rms_norm, rope, rope, kv_append }
//! %qr = rope %qn, %angles                     kernel @layer.attend   { attention }
//! …
//! ```
//!
//! Each linear, attention, experts, repeat, rows, pool, position_ids and unfold is a kernel of its own. Ops that work
//! row by row gather in *rows* kernels: every op of one is executed by the same thread on the same
//! rows, so its ops see each other's results without a barrier. Views (kv_source, split,
//! split_heads, merge_heads) have no code and follow what they view.
//!
//! Instructions move only to form larger rows kernels: all that is ready and needs a kernel of its own
//! goes first, in order; then all that is ready and works on the same rows.

use llmc_ir::{Dim, Func, Inst, Kernel, Module, Op, Operand};

use crate::{Pass, PassError, Remarks, Stats, operands};

/// Forms kernels.
pub struct FormKernels;

/// How an op runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Alone: its threads share its work otherwise than by rows, or it waits for all rows.
    Own,
    /// Row by row.
    Rows,
    /// Not at all: its result is its operand, seen otherwise.
    View,
    /// It has no kernel: an earlier pass replaces it.
    None,
}

/// How `op` runs.
pub fn shape(op: &Op) -> Shape {
    match op {
        Op::Linear(_)
        | Op::Attention(_)
        | Op::Experts(_)
        | Op::Repeat(_)
        | Op::Rows(_)
        | Op::Pool(_)
        | Op::PositionIds(_)
        | Op::Unfold(_) => Shape::Own,
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
        | Op::Substitute(_) => Shape::Rows,
        Op::KvSource(_) | Op::MergeHeads(_) | Op::Split(_) | Op::SplitHeads(_) => Shape::View,
        Op::Alibi(_)
        | Op::AttnBias(_)
        | Op::AttnDisentangled(_)
        | Op::AttnMix(_)
        | Op::AttnScores(_)
        | Op::KvRead(_)
        | Op::MaskScores(_)
        | Op::Softmax(_) => Shape::None,
    }
}

impl Pass for FormKernels {
    fn name(&self) -> &'static str {
        "form-kernels"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        let mut taken = Vec::new();
        for f in 0..module.funcs.len() {
            let func = &module.funcs[f];
            if let Some(inst) = func.body.iter().find(|i| shape(&i.op) == Shape::None) {
                let what = format!(
                    "{} has no kernel: attention has to be one op",
                    inst.op.name()
                );
                return Err(PassError::unsupported(&func.name, what));
            }
            let groups = schedule(func);
            let mut kernels = Vec::with_capacity(groups.len());
            for group in &groups {
                kernels.push(Kernel {
                    name: unique(&mut taken, kernel_name(module, func, group)),
                    len: group.len() as u32,
                });
            }
            let func = &mut module.funcs[f];
            let mut old: Vec<Option<Inst>> = std::mem::take(&mut func.body)
                .into_iter()
                .map(Some)
                .collect();
            func.body = groups
                .iter()
                .flatten()
                .filter_map(|&i| old[i].take())
                .collect();
            func.kernels = kernels;
            crate::edit::renumber(func);
            rewrites += groups.len();
        }
        Ok(Stats::of(rewrites))
    }
}

/// The instructions' indices, kernel by kernel.
fn schedule(func: &Func) -> Vec<Vec<usize>> {
    let mut known = vec![false; func.values.len()];
    func.params.iter().for_each(|p| known[p.index()] = true);
    let mut left: Vec<usize> = (0..func.body.len()).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();

    // Takes every instruction that is ready and that `wanted` wants, views of it included.
    let take = |left: &mut Vec<usize>,
                known: &mut Vec<bool>,
                wanted: &dyn Fn(&Inst) -> bool,
                all: bool| {
        let mut group = Vec::new();
        let mut i = 0;
        while i < left.len() {
            let inst = &func.body[left[i]];
            let ready = operands::values(&inst.operands).all(|v| known[v.index()]);
            let mine =
                shape(&inst.op) == Shape::View || (wanted(inst) && (all || group.is_empty()));
            if ready && mine {
                inst.results.iter().for_each(|r| known[r.index()] = true);
                group.push(left.remove(i));
            } else {
                i += 1;
            }
        }
        group
    };

    // Views of parameters go with the first kernel.
    let mut views = take(&mut left, &mut known, &|_| false, true);
    while !left.is_empty() {
        let ready = |inst: &Inst, known: &[bool]| {
            operands::values(&inst.operands).all(|v| known[v.index()])
        };
        let own = |inst: &Inst| shape(&inst.op) == Shape::Own;
        let next_own = left
            .iter()
            .any(|&i| own(&func.body[i]) && ready(&func.body[i], &known));
        let group = if next_own {
            take(&mut left, &mut known, &own, false)
        } else {
            let first = left.iter().find(|&&i| ready(&func.body[i], &known));
            let Some(extent) = first.map(|&i| extent(func, &func.body[i])) else {
                // Only a function whose values depend on one another gets here.
                break;
            };
            let rows =
                |inst: &Inst| shape(&inst.op) == Shape::Rows && self::extent(func, inst) == extent;
            take(&mut left, &mut known, &rows, true)
        };
        groups.push(
            std::mem::take(&mut views)
                .into_iter()
                .chain(group)
                .collect(),
        );
    }
    if !views.is_empty() {
        groups.push(views);
    }
    if !left.is_empty() {
        groups.push(left);
    }
    groups
}

/// The rows over which a row-local op runs: the first extent of what it reads, or else makes.
fn extent(func: &Func, inst: &Inst) -> Option<Dim> {
    operands::values(&inst.operands)
        .chain(inst.results.iter().copied())
        .find_map(|v| func.ty(v).tensor()?.dims.first().copied())
}

/// What a kernel is called after: its only instruction with code, or its rows.
fn kernel_name(module: &Module, func: &Func, group: &[usize]) -> String {
    let insts = || group.iter().map(|&i| &func.body[i]);
    let main = insts().find(|i| shape(&i.op) == Shape::Own);
    let last = match main.map(|i| (&i.op, &i.operands)) {
        Some((Op::Linear(_), operands)) => match operands.get(1) {
            Some(Operand::Weight(w)) => {
                let name = &module.weights[w.index()].name;
                let prefix = format!("{}.", func.name);
                name.strip_prefix(&prefix).unwrap_or(name).to_string()
            }
            _ => "linear".into(),
        },
        Some((Op::Attention(_), _)) => "attend".into(),
        Some((Op::Repeat(_), _)) => "layers".into(),
        Some((Op::Rows(_), _)) => "select".into(),
        Some((op, _)) => op.name().into(),
        None => "rows".into(),
    };
    format!("{}.{last}", func.name)
}

/// `name`, or `name.1`, … where it is taken.
pub fn unique(taken: &mut Vec<String>, name: String) -> String {
    let mut unique = name.clone();
    let mut n = 1;
    while taken.contains(&unique) {
        unique = format!("{name}.{n}");
        n += 1;
    }
    taken.push(unique.clone());
    unique
}
