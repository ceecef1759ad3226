//! `fuse-gate-up`: a gated MLP's two projections → one linear that gates.
//!
//! ```text
//! %g = linear %h, @wg
//! %a = activation %g {kind = silu}
//! %u = linear %h, @wu
//! %m = mul %a, %u                      →    %m = linear %h, @wg_wu {glu = silu}
//! ```
//!
//! Also `glu` of a linear, and the product over the halves of one linear (a checkpoint that holds
//! gate and up in one tensor):
//!
//! ```text
//! %y = linear %h, @w
//! %m = glu %y {kind = silu}            →    %m = linear %h, @w {glu = silu}
//! ```
//!
//! Either order of the product, and `linear {act}` for the gate, will do. The joined weight is [gate; up].

use llmc_ir::{
    Func, Inst, Module, Op, Operand, ValueId,
    ops::{ActKind, Linear},
};

use crate::{LinearOperands, Pass, PassError, Remarks, Stats, edit, join_weights};

/// Joins gate and up projections.
pub struct FuseGateUp;

/// A gated product: what is activated, by what, and what it is multiplied with.
struct Gated {
    gate: ValueId,
    kind: ActKind,
    up: ValueId,
    /// The activation, where it is an instruction of its own.
    activation: Option<usize>,
}

impl Pass for FuseGateUp {
    fn name(&self) -> &'static str {
        "fuse-gate-up"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for f in 0..module.funcs.len() {
            let mut i = 0;
            while i < module.funcs[f].body.len() {
                let done = match &module.funcs[f].body[i].op {
                    Op::Mul(_) => fuse_product(module, f, i),
                    Op::Glu(glu) => {
                        let kind = glu.kind;
                        fuse_glu(&mut module.funcs[f], i, kind)
                    }
                    _ => None,
                };
                match done {
                    Some(Ok(removed)) => {
                        rewrites += 1;
                        i -= removed;
                    }
                    Some(Err(why)) => {
                        let func = &module.funcs[f];
                        if let Some(v) = func.body[i].results.first() {
                            remarks.missed(&func.name, edit::name(func, *v), why);
                        }
                    }
                    None => {}
                }
                i += 1;
            }
            edit::renumber(&mut module.funcs[f]);
        }
        Ok(Stats::of(rewrites))
    }
}

/// The linear that defines `v`, whose only use the pattern is, and that ends in nothing yet.
fn plain_linear(func: &Func, v: ValueId) -> Option<Result<(usize, &Linear), String>> {
    let at = func.def(v)?;
    let Op::Linear(op) = &func.body[at].op else {
        return None;
    };
    let name = edit::name(func, v);
    Some(if edit::only_user(func, v).is_none() {
        Err(format!("%{name} has other uses"))
    } else if op.act.is_some() || op.glu.is_some() || op.residual {
        Err(format!(
            "%{name} ends in an activation, a gate or a residual"
        ))
    } else {
        Ok((at, op))
    })
}

/// `glu` of a linear; tells how many instructions before `at` are gone.
fn fuse_glu(func: &mut Func, at: usize, kind: ActKind) -> Option<Result<usize, String>> {
    let &[Operand::Value(y)] = func.body[at].operands.as_slice() else {
        return None;
    };
    let (linear, op) = match plain_linear(func, y)? {
        Ok(found) => found,
        Err(why) => return Some(Err(why)),
    };
    let mut op = op.clone();
    op.glu = Some(kind);
    let operands = func.body[linear].operands.clone();
    Some(Ok(replace(func, at, op, operands, &[linear])))
}

/// Puts a linear in place of the instruction at `at`, and removes `gone` before it.
fn replace(
    func: &mut Func,
    at: usize,
    op: Linear,
    operands: Vec<Operand>,
    gone: &[usize],
) -> usize {
    func.body[at] = Inst {
        op: op.into(),
        operands,
        results: func.body[at].results.clone(),
    };
    edit::remove(func, gone);
    gone.len()
}

/// The readings of `mul %a, %b` as a gated product.
fn gated(func: &Func, at: usize) -> Vec<Gated> {
    let &[Operand::Value(a), Operand::Value(b)] = func.body[at].operands.as_slice() else {
        return vec![];
    };
    let read = |(act, up): (ValueId, ValueId)| {
        let def = func.def(act)?;
        let inst = &func.body[def];
        match (&inst.op, inst.operands.first()) {
            (Op::Activation(a), Some(Operand::Value(gate))) => Some(Gated {
                gate: *gate,
                kind: a.kind,
                up,
                activation: Some(def),
            }),
            (Op::Linear(l), _) => Some(Gated {
                gate: act,
                kind: l.act?,
                up,
                activation: None,
            }),
            _ => None,
        }
    };
    [(a, b), (b, a)].into_iter().filter_map(read).collect()
}

/// A product of an activation with something else.
fn fuse_product(module: &mut Module, f: usize, at: usize) -> Option<Result<usize, String>> {
    let mut missed = None;
    for g in gated(&module.funcs[f], at) {
        let func = &module.funcs[f];
        if let Some(def) = g.activation {
            let result = *func.body[def].results.first()?;
            if edit::only_user(func, result).is_none() {
                missed = Some(Err(format!("%{} has other uses", edit::name(func, result))));
                continue;
            }
        }
        let done = match halves(func, &g) {
            Some((split, y)) => fuse_halves(&mut module.funcs[f], at, &g, split, y),
            None => fuse_pair(module, f, at, &g),
        };
        match done {
            Some(Ok(n)) => return Some(Ok(n)),
            Some(Err(why)) => missed = Some(Err(why)),
            None => {}
        }
    }
    missed
}

/// The split of one linear in gate and up: its index, and what it splits.
fn halves(func: &Func, g: &Gated) -> Option<(usize, ValueId)> {
    let split = func.def(g.gate)?;
    let inst = &func.body[split];
    match (&inst.op, inst.operands.first()) {
        (Op::Split(_), Some(Operand::Value(y))) if inst.results == [g.gate, g.up] => {
            Some((split, *y))
        }
        _ => None,
    }
}

/// act(first half) · second half of one linear.
fn fuse_halves(
    func: &mut Func,
    at: usize,
    g: &Gated,
    split: usize,
    y: ValueId,
) -> Option<Result<usize, String>> {
    for v in [g.gate, g.up] {
        if edit::only_user(func, v).is_none() {
            return Some(Err(format!("%{} has other uses", edit::name(func, v))));
        }
    }
    if func.ty(g.gate) != func.ty(g.up) {
        return None;
    }
    let (linear, op) = match plain_linear(func, y)? {
        Ok(found) => found,
        Err(why) => return Some(Err(why)),
    };
    let mut op = op.clone();
    op.glu = Some(g.kind);
    let operands = func.body[linear].operands.clone();
    let gone = [linear, split, g.activation?];
    Some(Ok(replace(func, at, op, operands, &gone)))
}

/// act(linear of x) · linear of x, over two weights.
fn fuse_pair(module: &mut Module, f: usize, at: usize, g: &Gated) -> Option<Result<usize, String>> {
    let func = &module.funcs[f];
    let (up_at, up) = match plain_linear(func, g.up)? {
        Ok(found) => found,
        Err(why) => return Some(Err(why)),
    };
    let gate_at = func.def(g.gate)?;
    let Op::Linear(gate) = &func.body[gate_at].op else {
        return None;
    };
    if edit::only_user(func, g.gate).is_none() {
        return Some(Err(format!("%{} has other uses", edit::name(func, g.gate))));
    }
    let act_is_taken = gate.act.is_some() && g.activation.is_some();
    if act_is_taken || gate.glu.is_some() || gate.residual {
        let name = edit::name(func, g.gate);
        return Some(Err(format!(
            "%{name} ends in an activation, a gate or a residual"
        )));
    }
    let a = LinearOperands::read(gate, &func.body[gate_at].operands)?;
    let b = LinearOperands::read(up, &func.body[up_at].operands)?;
    if a.x != b.x {
        return None;
    }
    if gate.bias != up.bias {
        return Some(Err("of gate and up one has a bias".into()));
    }
    if gate.norm != up.norm || a.norm != b.norm {
        return Some(Err("gate and up read different norms".into()));
    }
    let op = Linear {
        bias: gate.bias,
        norm: gate.norm,
        act: None,
        glu: Some(g.kind),
        residual: false,
    };
    let biases: Vec<_> = a.bias.into_iter().chain(b.bias).collect();
    let obstacle = join_weights::obstacle(module, &[a.w, b.w])
        .or_else(|| join_weights::obstacle(module, &biases));
    if let Some(why) = obstacle {
        return Some(Err(why));
    }
    let w = join_weights::join(module, &[a.w, b.w])?;
    let bias = match biases.is_empty() {
        true => None,
        false => Some(join_weights::join(module, &biases)?),
    };
    let operands = LinearOperands {
        x: a.x,
        w,
        bias,
        norm: a.norm,
        residual: None,
    };
    let gone: Vec<usize> = [gate_at, up_at].into_iter().chain(g.activation).collect();
    Some(Ok(replace(
        &mut module.funcs[f],
        at,
        op,
        operands.write(),
        &gone,
    )))
}
