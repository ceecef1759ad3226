//! What a weight is for, read off its uses: what weights and activations are quantised to goes by
//! attention's values, by the matrix behind the activation, by the head. Names of weights play no part.

use llmc_ir::{Func, Module, Op, Operand, ValueId, WeightId};

use crate::{AttentionOperands, ExpertsOperands, Keys, LinearOperands};

/// What a weight is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The matrix that makes logits; with `table`, the token table too (tied).
    Output { table: bool },
    /// The token table alone.
    Table,
    /// Attention's values.
    AttnV,
    /// Queries, keys and values in one matrix.
    AttnQkv,
    /// A matrix in front of the activation.
    FfnUp,
    /// The matrix behind the activation.
    FfnDown,
    /// Another linear's matrix.
    Matrix,
    /// The matrix whose products choose the experts: small, and a little noise in it chooses others.
    Router,
    /// A table of positions or token types.
    OtherTable,
    /// Norms, biases, tables of attention biases.
    Vector,
}

/// A weight's role, and whether a linear reads it whose x has padding between its elements when it is
/// stored (heads that whole SIMD groups do not fill).
pub fn role(module: &Module, weight: WeightId) -> (Role, bool) {
    let mut found: Option<Role> = None;
    let mut padded = false;
    for func in &module.funcs {
        for inst in &func.body {
            for (i, o) in inst.operands.iter().enumerate() {
                if *o != Operand::Weight(weight) {
                    continue;
                }
                let here = match &inst.op {
                    Op::Linear(op) if i == 1 => {
                        let args = LinearOperands::read(op, &inst.operands);
                        padded |= args.is_some_and(|a| is_padded(func, a.x));
                        linear(func, inst.operands.first(), inst.results.first())
                    }
                    Op::Experts(op) => match ExpertsOperands::read(op, &inst.operands) {
                        Some(args) if args.w_in == weight => Role::Matrix,
                        Some(args) if args.w_out == weight => Role::FfnDown,
                        _ => Role::Vector,
                    },
                    Op::Gather(_) => table(func, inst.operands.first()),
                    _ => Role::Vector,
                };
                found = Some(found.map_or(here, |other| both(other, here)));
            }
        }
    }
    (found.unwrap_or(Role::Vector), padded)
}

/// The role of a weight that is used in two.
fn both(a: Role, b: Role) -> Role {
    match (a, b) {
        (a, b) if a == b => a,
        (Role::Output { .. }, Role::Table) | (Role::Table, Role::Output { .. }) => {
            Role::Output { table: true }
        }
        (Role::Output { table }, _) | (_, Role::Output { table }) => Role::Output { table },
        (Role::Vector, _) | (_, Role::Vector) => Role::Vector,
        (Role::Table | Role::OtherTable, b) | (b, Role::Table | Role::OtherTable) => b,
        _ => Role::Matrix,
    }
}

fn table(func: &Func, ids: Option<&Operand>) -> Role {
    match ids {
        Some(Operand::Value(v)) if func.value(*v).name == "ids" && func.params.contains(v) => {
            Role::Table
        }
        _ => Role::OtherTable,
    }
}

fn linear(func: &Func, x: Option<&Operand>, y: Option<&ValueId>) -> Role {
    let (Some(Operand::Value(x)), Some(&y)) = (x, y) else {
        return Role::Matrix;
    };
    let from = func.def(*x).map(|d| &func.body[d].op);
    if func.entry().is_some() && matches!(from, Some(Op::Rows(_))) {
        return Role::Output { table: false };
    }
    if becomes_values(func, y) {
        return Role::AttnV;
    }
    let routes = |u: &usize| matches!(func.body[*u].op, Op::Route(_));
    if func.users(y).iter().any(routes) {
        return Role::Router;
    }
    let is_split = |u: &usize| match &func.body[*u].op {
        Op::Split(_) => func.body[*u]
            .results
            .iter()
            .any(|&r| becomes_values(func, r)),
        _ => false,
    };
    if func.users(y).iter().any(is_split) {
        return Role::AttnQkv;
    }
    let activates = |op: &Op| match op {
        Op::Activation(_) | Op::Glu(_) => true,
        Op::Linear(l) => l.glu.is_some() || l.act.is_some(),
        _ => false,
    };
    let own = func.def(y).map(|d| &func.body[d].op);
    match from {
        Some(Op::Mul(_)) => Role::FfnDown,
        Some(op) if activates(op) => Role::FfnDown,
        _ if own.is_some_and(activates) => Role::FfnUp,
        _ if func.users(y).iter().any(|u| {
            let op = &func.body[*u].op;
            matches!(op, Op::Activation(_) | Op::Glu(_))
        }) =>
        {
            Role::FfnUp
        }
        _ => Role::Matrix,
    }
}

/// Whether attention reads the heads of `rows` as its values.
fn becomes_values(func: &Func, rows: ValueId) -> bool {
    let heads = func.users(rows).into_iter().filter_map(|u| {
        let inst = &func.body[u];
        matches!(inst.op, Op::SplitHeads(_)).then(|| inst.results.first().copied())?
    });
    let is_value = |v: ValueId, u: usize| {
        let inst = &func.body[u];
        let at = |i: usize| inst.operands.get(i) == Some(&Operand::Value(v));
        match &inst.op {
            Op::KvAppend(_) => at(2),
            Op::AttnMix(_) => at(1),
            Op::Attention(op) => match AttentionOperands::read(op, &inst.operands) {
                Some(args) => matches!(args.keys, Keys::Tensors(_, values) if values == v),
                None => false,
            },
            _ => false,
        }
    };
    heads
        .into_iter()
        .any(|v| func.users(v).into_iter().any(|u| is_value(v, u)))
}

/// Whether the rows of `x` are heads with padding behind each.
fn is_padded(func: &Func, x: ValueId) -> bool {
    let Some(inst) = func.def(x).map(|d| &func.body[d]) else {
        return false;
    };
    let (Op::MergeHeads(_), Some(Operand::Value(heads))) = (&inst.op, inst.operands.first()) else {
        return false;
    };
    let dim = func.ty(*heads).tensor().and_then(|t| t.last());
    dim.is_none_or(|d| !d.is_multiple_of(llmc_ir::layout::LANES))
}
