//! The operands of ops whose attributes decide which operands there are, by name.
//!
//! in: an instruction's operand list → out: a struct, and back. Lists that do not fit give None;
//! a verified module has none.

use llmc_ir::{
    Operand, ValueId, WeightId,
    ops::{Attention, Experts, Linear, Norm},
};

/// Operands of `linear`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinearOperands {
    pub x: ValueId,
    pub w: WeightId,
    pub bias: Option<WeightId>,
    /// Weight, and bias for a layer norm.
    pub norm: Vec<WeightId>,
    pub residual: Option<ValueId>,
}

/// Reads operands one after another.
struct Reader<'a>(std::slice::Iter<'a, Operand>);

impl Reader<'_> {
    fn value(&mut self) -> Option<ValueId> {
        match self.0.next()? {
            Operand::Value(v) => Some(*v),
            Operand::Weight(_) | Operand::State(_) => None,
        }
    }

    fn weight(&mut self) -> Option<WeightId> {
        match self.0.next()? {
            Operand::Weight(w) => Some(*w),
            Operand::Value(_) | Operand::State(_) => None,
        }
    }

    fn end<T>(mut self, t: T) -> Option<T> {
        self.0.next().is_none().then_some(t)
    }
}

impl LinearOperands {
    /// Reads the operands of `op`.
    pub fn read(op: &Linear, operands: &[Operand]) -> Option<LinearOperands> {
        let mut r = Reader(operands.iter());
        let (x, w) = (r.value()?, r.weight()?);
        let bias = if op.bias { Some(r.weight()?) } else { None };
        let norms = match op.norm {
            None => 0,
            Some(Norm::Rms { .. }) => 1,
            Some(Norm::Layer { .. }) => 2,
        };
        let norm = (0..norms).map(|_| r.weight()).collect::<Option<_>>()?;
        let residual = if op.residual { Some(r.value()?) } else { None };
        r.end(LinearOperands {
            x,
            w,
            bias,
            norm,
            residual,
        })
    }

    /// The operand list.
    pub fn write(&self) -> Vec<Operand> {
        let mut list = vec![self.x.into(), self.w.into()];
        list.extend(self.bias.map(Operand::from));
        list.extend(self.norm.iter().copied().map(Operand::from));
        list.extend(self.residual.map(Operand::from));
        list
    }
}

/// Operands of `experts`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpertsOperands {
    pub x: ValueId,
    /// Of each expert, by row.
    pub weights: ValueId,
    pub w_in: WeightId,
    pub b_in: Option<WeightId>,
    pub w_out: WeightId,
    pub b_out: Option<WeightId>,
}

impl ExpertsOperands {
    /// Reads the operands of `op`.
    pub fn read(op: &Experts, operands: &[Operand]) -> Option<ExpertsOperands> {
        let mut r = Reader(operands.iter());
        let (x, weights, w_in) = (r.value()?, r.value()?, r.weight()?);
        let b_in = if op.bias { Some(r.weight()?) } else { None };
        let w_out = r.weight()?;
        let b_out = if op.bias { Some(r.weight()?) } else { None };
        r.end(ExpertsOperands {
            x,
            weights,
            w_in,
            b_in,
            w_out,
            b_out,
        })
    }
}

/// What `attention` reads keys and values from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// A `kv_view`.
    View(ValueId),
    /// Keys and values as tensors.
    Tensors(ValueId, ValueId),
}

/// Operands of `attention`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttentionOperands {
    pub q: ValueId,
    pub keys: Keys,
    pub bias: Option<WeightId>,
    /// The tables of its position terms: of keys, and of queries.
    pub positions: [Option<WeightId>; 2],
    pub sinks: Option<WeightId>,
    pub step: ValueId,
}

impl AttentionOperands {
    /// Reads the operands of `op`.
    pub fn read(op: &Attention, operands: &[Operand]) -> Option<AttentionOperands> {
        let terms = op.disentangled.map_or([false; 2], |d| [d.c2p, d.p2c]);
        let there = [op.bias.is_some(), terms[0], terms[1], op.sinks];
        let weights = there.iter().filter(|there| **there).count();
        let tensors = match operands.len().checked_sub(weights)? {
            3 => false,
            4 => true,
            _ => return None,
        };
        let mut r = Reader(operands.iter());
        let (q, k) = (r.value()?, r.value()?);
        let keys = if tensors {
            Keys::Tensors(k, r.value()?)
        } else {
            Keys::View(k)
        };
        let mut weights = [None; 4];
        for (weight, there) in weights.iter_mut().zip(there) {
            if there {
                *weight = Some(r.weight()?);
            }
        }
        let [bias, pos_key, pos_query, sinks] = weights;
        let step = r.value()?;
        r.end(AttentionOperands {
            q,
            keys,
            bias,
            positions: [pos_key, pos_query],
            sinks,
            step,
        })
    }

    /// The operand list.
    pub fn write(&self) -> Vec<Operand> {
        let mut list = vec![self.q.into()];
        match self.keys {
            Keys::View(v) => list.push(v.into()),
            Keys::Tensors(k, v) => list.extend([Operand::from(k), v.into()]),
        }
        list.extend(self.bias.map(Operand::from));
        list.extend(self.positions.into_iter().flatten().map(Operand::from));
        list.extend(self.sinks.map(Operand::from));
        list.push(self.step.into());
        list
    }
}

/// The values among `operands`, in order.
pub fn values(operands: &[Operand]) -> impl Iterator<Item = ValueId> + '_ {
    operands.iter().filter_map(|o| match o {
        Operand::Value(v) => Some(*v),
        Operand::Weight(_) | Operand::State(_) => None,
    })
}
