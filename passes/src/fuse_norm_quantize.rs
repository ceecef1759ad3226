//! `fuse-norm-quantize`: a norm that `quantize` alone reads → `quantize {norm}`.
//!
//! ```text
//! %h = rms_norm %x, @n {eps = 1e-6}
//! %q = quantize %h {to = q8_block}     →    %q = quantize %x, @n {to = q8_block, norm = rms<eps = 1e-6>}
//! ```
//!
//! A norm that is returned, or that others read too, is computed once, on its own: a remark says so.

use llmc_ir::{Module, Op, Operand, ops::Norm};

use crate::{Pass, PassError, Remarks, Stats, edit};

/// Fuses norms into the quantisation of what they make.
pub struct FuseNormQuantize;

impl Pass for FuseNormQuantize {
    fn name(&self) -> &'static str {
        "fuse-norm-quantize"
    }

    fn run(&self, module: &mut Module, remarks: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                let inst = &func.body[i];
                i += 1;
                let (Op::Quantize(op), &[Operand::Value(h)]) = (&inst.op, inst.operands.as_slice())
                else {
                    continue;
                };
                let Some(def) = func.def(h) else {
                    continue;
                };
                let norm = match &func.body[def].op {
                    Op::RmsNorm(n) => Norm::Rms {
                        eps: n.eps,
                        offset: n.offset,
                    },
                    Op::LayerNorm(n) => Norm::Layer { eps: n.eps },
                    _ => continue,
                };
                if edit::only_user(func, h).is_none() {
                    let why = "the norm has other uses";
                    remarks.missed(&func.name, edit::name(func, h), why);
                    continue;
                }
                let mut op = op.clone();
                op.norm = Some(norm);
                func.body[i - 1].op = op.into();
                func.body[i - 1].operands = func.body[def].operands.clone();
                i -= 1;
                func.body.remove(def);
                rewrites += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}
