//! `fuse-residual`: a linear's result added to an earlier value → `linear {residual}`.
//!
//! ```text
//! %y = linear %x, @w
//! %z = add %y, %r            →    %z = linear %x, @w, %r {residual = true}
//! ```
//!
//! The linear's result has no other use; `%r` is defined before the linear, which has no residual
//! yet. Where both operands are such linears the later one takes the earlier as its residual.

use llmc_ir::{Func, Module, Op, Operand, ValueId};

use crate::{LinearOperands, Pass, PassError, Remarks, Stats, edit};

/// Fuses additions into linears.
pub struct FuseResidual;

impl Pass for FuseResidual {
    fn name(&self) -> &'static str {
        "fuse-residual"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                let inst = &func.body[i];
                let (Op::Add(_), &[Operand::Value(a), Operand::Value(b)]) =
                    (&inst.op, inst.operands.as_slice())
                else {
                    i += 1;
                    continue;
                };
                // The operand that is defined later comes first.
                let pairs = match func.def(a) < func.def(b) {
                    true => [(b, a), (a, b)],
                    false => [(a, b), (b, a)],
                };
                let mut found = None;
                let mut missed = Vec::new();
                for (y, r) in pairs {
                    let Some(at) = func.def(y).filter(|&d| is_linear(func, d)) else {
                        continue;
                    };
                    match obstacle(func, at, y, r) {
                        None => {
                            found = Some((at, r));
                            break;
                        }
                        Some(why) => missed.push((y, why)),
                    }
                }
                let Some((at, r)) = found else {
                    for (y, why) in missed {
                        remarks.missed(&func.name, edit::name(func, y), why);
                    }
                    i += 1;
                    continue;
                };
                if let Op::Linear(op) = &func.body[at].op
                    && let Some(args) = LinearOperands::read(op, &func.body[at].operands)
                {
                    let mut op = op.clone();
                    op.residual = true;
                    let residual = Some(r);
                    func.body[at].operands = LinearOperands { residual, ..args }.write();
                    func.body[at].op = op.into();
                }
                func.body[at].results = func.body[i].results.clone();
                func.body.remove(i);
                rewrites += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}

fn is_linear(func: &Func, at: usize) -> bool {
    matches!(func.body[at].op, Op::Linear(_))
}

/// Why the linear at `at`, whose result is `y`, cannot add `r` itself.
fn obstacle(func: &Func, at: usize, y: ValueId, r: ValueId) -> Option<&'static str> {
    let Op::Linear(op) = &func.body[at].op else {
        return Some("not a linear");
    };
    if op.residual {
        Some("the linear has a residual already")
    } else if edit::only_user(func, y).is_none() {
        Some("the linear's result has other uses")
    } else if !edit::defined_before(func, r, at) {
        Some("the other operand is defined after the linear")
    } else if func.ty(r) != func.ty(y) {
        Some("the other operand has another type")
    } else {
        None
    }
}
