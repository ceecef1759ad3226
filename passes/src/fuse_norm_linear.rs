//! `fuse-norm-linear`: a norm that one linear alone reads → `linear {norm}`.
//!
//! ```text
//! %h = rms_norm %x, @n {eps = 1e-6}
//! %y = linear %h, @w                     →    %y = linear %x, @w, @n {norm = rms<eps = 1e-6>}
//! ```
//!
//! A norm that is returned, or that others read too, is computed once, on its own: a remark says so.

use llmc_ir::{Module, Op, Operand, ops::Norm};

use crate::{LinearOperands, Pass, PassError, Remarks, Stats, edit};

/// Fuses norms into the linears that read them.
pub struct FuseNormLinear;

impl Pass for FuseNormLinear {
    fn name(&self) -> &'static str {
        "fuse-norm-linear"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                let inst = &func.body[i];
                i += 1;
                let norm = match &inst.op {
                    Op::RmsNorm(n) => Norm::Rms {
                        eps: n.eps,
                        offset: n.offset,
                    },
                    Op::LayerNorm(n) => Norm::Layer { eps: n.eps },
                    _ => continue,
                };
                let (Some(Operand::Value(x)), &[h]) =
                    (inst.operands.first(), inst.results.as_slice())
                else {
                    continue;
                };
                let weights = inst.operands[1..].iter().filter_map(|o| match o {
                    Operand::Weight(w) => Some(*w),
                    Operand::Value(_) | Operand::State(_) => None,
                });
                let (x, weights) = (*x, weights.collect());
                let users = func.users(h);
                let linear = users.iter().find_map(|&u| match &func.body[u].op {
                    Op::Linear(l) => Some((u, l)),
                    _ => None,
                });
                let Some((at, linear)) = linear else {
                    continue;
                };
                let Some(args) = LinearOperands::read(linear, &func.body[at].operands) else {
                    continue;
                };
                let why = if func.returns(h) {
                    Some("the norm is returned".to_string())
                } else if users.len() > 1 {
                    Some(format!("the norm has {} users", users.len()))
                } else if args.residual == Some(h) {
                    Some("the norm is the linear's residual".to_string())
                } else if linear.norm.is_some() {
                    Some("the linear has a norm already".to_string())
                } else {
                    None
                };
                if let Some(why) = why {
                    remarks.missed(&func.name, edit::name(func, h), why);
                    continue;
                }
                let mut linear = linear.clone();
                linear.norm = Some(norm);
                let args = LinearOperands {
                    x,
                    norm: weights,
                    ..args
                };
                func.body[at].op = linear.into();
                func.body[at].operands = args.write();
                i -= 1;
                func.body.remove(i);
                rewrites += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}
