//! What a phase reads and computes, for measurements: weights, table rows, products, attention.
//!
//! In: an op and the kernels that it became. Out: [`Work`] of the phase that they are in.
//! Not here: activations, which stay in the caches, and elementwise arithmetic.

use llmc_abi::{Arithmetic, Per, Work};
use llmc_ir::{DType, Inst, Op, Operand, WeightId};

use super::Lower;
use crate::{
    kernels::Mask,
    step::{Arg, Call, Extent, Kernel},
};

impl<'a> Lower<'a> {
    /// Adds an op that has just been lowered.
    pub(super) fn count(&mut self, inst: &'a Inst) {
        let Some(per) = self.per(inst) else {
            return;
        };
        for operand in &inst.operands {
            if let Operand::Weight(w) = operand {
                let work = self.weight_work(inst, *w, per);
                self.work.push(work);
            }
        }
        match (&inst.op, inst.operands.get(1)) {
            (Op::Linear(_), Some(Operand::Weight(w))) => {
                let ty = &self.module.weights[w.index()].ty;
                let dims = ty.fixed_dims().unwrap_or_default();
                self.work.push(Work::Product {
                    per,
                    arithmetic: self.arithmetic(inst),
                    operations: 2 * dims.iter().map(|d| u64::from(*d)).product::<u64>(),
                });
            }
            (Op::Attention(_), _) => {
                let work = self.calls.last().and_then(attention_work);
                self.work.extend(work);
            }
            _ => {}
        }
    }

    /// What the op's rows stand for.
    fn per(&self, inst: &Inst) -> Option<Per> {
        Some(match self.extent(*inst.results.first()?).ok()? {
            Extent::Tokens => Per::Token,
            Extent::Rows => Per::Row,
            Extent::Sequences => Per::Sequence,
        })
    }

    fn weight_work(&self, inst: &Inst, weight: WeightId, per: Per) -> Work {
        let bytes = self.weights.weights[weight.index()].form.bytes();
        let dims = self.module.weights[weight.index()].ty.fixed_dims();
        match (&inst.op, dims.as_deref()) {
            (Op::Gather(_), Some([rows, ..])) => Work::Rows {
                per,
                bytes: bytes / u64::from(*rows).max(1),
            },
            _ => Work::Weights { per, bytes },
        }
    }

    /// The numbers that a linear multiplies, by the type of its x.
    fn arithmetic(&self, inst: &Inst) -> Arithmetic {
        let Some(Operand::Value(x)) = inst.operands.first() else {
            return Arithmetic::F32;
        };
        match self.func.ty(*x).tensor().map(|t| t.dtype) {
            Some(DType::Q8(_)) => Arithmetic::Int8,
            Some(DType::BF16) => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }
}

fn attention_work(call: &Call) -> Option<Work> {
    let Call::Kernel {
        kernel: Kernel::Attend(kernel),
        args,
    } = call
    else {
        return None;
    };
    let class = args.iter().find_map(|a| match a {
        Arg::KvPages(class) => Some(*class as u32),
        _ => None,
    })?;
    let (causal, window) = match kernel.mask {
        Mask::Causal { window } => (true, window.map(|w| w as u32)),
        Mask::Bidirectional => (false, None),
    };
    let kv = &kernel.kv;
    let lanes = kv.heads * kernel.group * (kv.k_width + kv.v_width);
    Some(Work::Attention {
        class,
        causal,
        window,
        operations: 2 * lanes as u64,
    })
}
