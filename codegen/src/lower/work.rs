//! What a phase reads and computes, for measurements: weights, table rows, products, attention.
//!
//! In: an op and the kernels that it became. Out: [`Work`] of the phase that they are in.
//! Not here: activations, which stay in the caches, and elementwise arithmetic.

use llmc_abi::{Arithmetic, Per, Work};
use llmc_ir::{DType, Inst, Op, Operand, WeightId, ops::Experts};

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
        // Their products are in phases of their own.
        if matches!(inst.op, Op::Experts(_)) {
            return;
        }
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
                let x = self.x_dtype(inst);
                self.work.push(Work::Product {
                    per,
                    arithmetic: arithmetic(x),
                    operations: operations(x) * dims.iter().map(|d| u64::from(*d)).product::<u64>(),
                });
            }
            (Op::Attention(_), _) => {
                let work = self.calls.last().and_then(attention_work);
                self.work.extend(work);
            }
            _ => {}
        }
    }

    /// Adds one product of `experts`: a row of type `x` with the matrices of its own experts.
    pub(super) fn count_experts(&mut self, inst: &'a Inst, matrices: WeightId, x: DType) {
        let Some(per) = self.per(inst) else {
            return;
        };
        let ty = &self.module.weights[matrices.index()].ty;
        let dims = ty.fixed_dims().unwrap_or_default();
        let elements: u64 = dims.iter().map(|d| u64::from(*d)).product();
        let bytes = self.weights.weights[matrices.index()].form.bytes();
        let share = |all: u64| Experts::share(self.func, inst, all);
        let (bytes, operations) = (share(bytes), operations(x) * share(elements));
        self.work.push(Work::Rows { per, bytes });
        self.work.push(Work::Product {
            per,
            arithmetic: arithmetic(x),
            operations,
        });
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

    /// The type of a linear's x.
    fn x_dtype(&self, inst: &Inst) -> DType {
        let x = match inst.operands.first() {
            Some(Operand::Value(x)) => self.func.ty(*x).tensor(),
            _ => None,
        };
        x.map_or(DType::F32, |t| t.dtype)
    }
}

/// The numbers that are multiplied, by the type of x.
fn arithmetic(x: DType) -> Arithmetic {
    match x {
        DType::Q8(_) => Arithmetic::Int8,
        DType::BF16 => Arithmetic::Bf16,
        DType::F32 | DType::F16 | DType::I32 | DType::Block(_) | DType::Int8 => Arithmetic::F32,
    }
}

/// Operations for each element of a weight, by the type of x: each code of x is multiplied.
fn operations(x: DType) -> u64 {
    match x {
        DType::Q8(group) => 2 * u64::from(group.codes()),
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::Block(_) | DType::Int8 => 2,
    }
}

/// A pattern counts as the range that it lies in.
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
