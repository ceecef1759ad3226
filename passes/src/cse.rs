//! `cse`: computes the same thing once.
//!
//! ```text
//! %a = rms_norm %x, @w {eps = 1e-6}         %a = rms_norm %x, @w {eps = 1e-6}
//! %b = rms_norm %x, @w {eps = 1e-6}    →
//! %c = mul %a, %b                           %c = mul %a, %a
//! ```
//!
//! Pure ops with equal attributes and operands; ops with an effect ([`crate::dce::has_effect`]) stay.

use llmc_ir::{Module, Op};

use crate::{Pass, PassError, Remarks, Stats, dce::has_effect, edit};

/// Common subexpression elimination, function by function.
pub struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut i = 0;
            while i < func.body.len() {
                let inst = &func.body[i];
                let same = |op: &Op| !has_effect(op) && *op == inst.op;
                let first = func.body[..i]
                    .iter()
                    .find(|e| same(&e.op) && e.operands == inst.operands);
                let Some(first) = first else {
                    i += 1;
                    continue;
                };
                let pairs: Vec<_> = inst
                    .results
                    .iter()
                    .copied()
                    .zip(first.results.clone())
                    .collect();
                for (from, to) in pairs {
                    func.replace_uses(from, to);
                }
                func.body.remove(i);
                rewrites += 1;
            }
            edit::renumber(func);
        }
        Ok(Stats::of(rewrites))
    }
}
