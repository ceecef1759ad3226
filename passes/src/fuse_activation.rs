//! `fuse-activation`: a linear and the activation of its result → `linear {act}`.
//!
//! ```text
//! %y = linear %x, @w, @b {bias = true}
//! %a = activation %y {kind = gelu}        →    %a = linear %x, @w, @b {bias = true, act = gelu}
//! ```
//!
//! The linear's result has no other use. A linear that ends in an activation, a gate or a residual
//! already cannot take another activation.

use llmc_ir::{Module, Op, Operand};

use crate::{Pass, PassError, Remarks, Stats, edit};

/// Fuses activations into linears.
pub struct FuseActivation;

impl Pass for FuseActivation {
    fn name(&self) -> &'static str {
        "fuse-activation"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                let (Op::Activation(act), Some(Operand::Value(y))) =
                    (&func.body[i].op, func.body[i].operands.first())
                else {
                    i += 1;
                    continue;
                };
                let (kind, y) = (act.kind, *y);
                let source = func.def(y).map(|d| (d, &func.body[d].op));
                let Some((at, Op::Linear(linear))) = source else {
                    i += 1;
                    continue;
                };
                let why = if edit::only_user(func, y).is_none() {
                    Some("the linear's result has other uses")
                } else if linear.act.is_some() || linear.glu.is_some() || linear.residual {
                    Some("the linear ends in an activation, a gate or a residual already")
                } else {
                    None
                };
                if let Some(why) = why {
                    remarks.missed(&func.name, edit::name(func, y), why);
                    i += 1;
                    continue;
                }
                let mut linear = linear.clone();
                linear.act = Some(kind);
                func.body[at].op = linear.into();
                func.body[at].results = func.body[i].results.clone();
                func.body.remove(i);
                rewrites += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}
