//! `dce`: removes what nobody reads: instructions, weights, states.
//!
//! ```text
//! weight @unused : f32[64] …
//! %a = rms_norm %x, @w {eps = 1e-6}    →    (nothing)
//! ```
//!
//! What writes a state stays, and `repeat`, whose layers may. Functions stay: which of them are
//! called is the verifier's affair.

use llmc_ir::{Module, Op, Operand, StateId, WeightId};

use crate::{Pass, PassError, Remarks, Stats, edit};

/// Dead code elimination.
pub struct Dce;

/// Whether an op does more than compute its results.
pub fn has_effect(op: &Op) -> bool {
    matches!(op, Op::KvAppend(_) | Op::Repeat(_))
}

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let mut rewrites = 0;
        for func in &mut module.funcs {
            let mut read = vec![false; func.values.len()];
            for (_, v) in &func.results {
                read[v.index()] = true;
            }
            let mut keep = vec![false; func.body.len()];
            for (i, inst) in func.body.iter().enumerate().rev() {
                keep[i] = has_effect(&inst.op) || inst.results.iter().any(|r| read[r.index()]);
                if keep[i] {
                    crate::operands::values(&inst.operands).for_each(|v| read[v.index()] = true);
                }
            }
            let before = func.body.len();
            let mut kept = keep.iter();
            func.body.retain(|_| *kept.next().unwrap_or(&true));
            rewrites += before - func.body.len();
            edit::renumber(func);
        }
        rewrites += drop_unused(module);
        Ok(Stats::of(rewrites))
    }
}

/// Drops weights and states that no instruction names; the others keep their order.
fn drop_unused(module: &mut Module) -> usize {
    let mut weights = vec![None; module.weights.len()];
    let mut states = vec![None; module.states.len()];
    for inst in module.funcs.iter().flat_map(|f| &f.body) {
        for o in &inst.operands {
            match o {
                Operand::Value(_) => {}
                Operand::Weight(w) => weights[w.index()] = Some(WeightId(0)),
                Operand::State(s) => states[s.index()] = Some(StateId(0)),
            }
        }
    }
    let before = module.weights.len() + module.states.len();
    let mut used = weights
        .iter()
        .map(Option::is_some)
        .collect::<Vec<_>>()
        .into_iter();
    module.weights.retain(|_| used.next().unwrap_or(true));
    let mut used = states
        .iter()
        .map(Option::is_some)
        .collect::<Vec<_>>()
        .into_iter();
    module.states.retain(|_| used.next().unwrap_or(true));
    for (n, w) in weights.iter_mut().flatten().enumerate() {
        *w = WeightId(n as u32);
    }
    for (n, s) in states.iter_mut().flatten().enumerate() {
        *s = StateId(n as u32);
    }
    for inst in module.funcs.iter_mut().flat_map(|f| &mut f.body) {
        for o in &mut inst.operands {
            match o {
                Operand::Value(_) => {}
                Operand::Weight(w) => *w = weights[w.index()].unwrap_or(*w),
                Operand::State(s) => *s = states[s.index()].unwrap_or(*s),
            }
        }
    }
    before - module.weights.len() - module.states.len()
}
