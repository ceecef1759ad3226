//! `kv_append` and `attention`: pages of keys and values, and what reads them.
//!
//! Encoders have no state: their keys and values go into pages that live for the step, in front of
//! the attention that reads them, so that one attention kernel serves all.

use llmc_ir::{DType, Inst, Op, Operand, Place, StateId, ops, quant::Format};

use super::{Lower, LowerError, kv_class, weight_arg};
use crate::{
    kernels::{self, Bias, KvElem, KvLayout, Mask},
    pack::Form,
    step::{Arg, BatchField, Extent, Kernel},
};

impl<'a> Lower<'a> {
    pub(super) fn kv_append(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        let Some(Operand::State(state)) = inst.operands.first() else {
            return Err(self.error("operand 0 is no state"));
        };
        let (k, v) = (self.operand(inst, 1)?, self.operand(inst, 2)?);
        let dtype = self.module.states[state.index()].dtype;
        self.append(state.index(), dtype, k, v)
    }

    fn append(
        &mut self,
        class: usize,
        dtype: DType,
        k: &Place,
        v: &Place,
    ) -> Result<(), LowerError> {
        let kv = self.kv_layout(class, dtype)?;
        if kv.elem == KvElem::Q8_0 && [k, v].iter().any(|p| !is_whole_blocks(p)) {
            return Err(self.error(format!(
                "a q8_0 cache of heads {} and {}: q8_0 takes heads of whole blocks of 32",
                k.layout, v.layout
            )));
        }
        let kernel = kernels::KvAppend {
            kv,
            k_stride: i64::from(k.stride),
            v_stride: i64::from(v.stride),
            by_heads: false,
        };
        let args = vec![
            Arg::Rows(Extent::Tokens),
            Arg::Arena(k.at),
            Arg::Arena(v.at),
            Arg::Batch(BatchField::Pos),
            Arg::Batch(BatchField::Seq),
            Arg::KvPages(class),
            Arg::KvTable(class),
            Arg::KvTableStride(class),
        ];
        self.push(Kernel::KvAppend(kernel), args);
        Ok(())
    }

    pub(super) fn attention(
        &mut self,
        inst: &'a Inst,
        op: &ops::Attention,
    ) -> Result<(), LowerError> {
        let (q, out) = (self.operand(inst, 0)?, self.result(inst)?);
        let keys = self.value(inst, 1)?;
        let (class, dtype, mut next) = match self.state_of(keys) {
            Some((state, _)) => (state.index(), self.module.states[state.index()].dtype, 2),
            None => {
                let (k, v) = (self.operand(inst, 1)?, self.operand(inst, 2)?);
                let class = self.step_pages(k, v)?;
                self.append(class, DType::F32, k, v)?;
                self.end_phase("pages");
                (class, DType::F32, 3)
            }
        };
        op.mask.check().map_err(|e| self.error(e))?;
        let hull = op.mask.hull();
        let (mask, whole) = match (hull.ahead, hull.behind) {
            (Some(0), behind) => {
                let window = behind.map(|b| i64::from(b) + 1);
                (Mask::Causal { window }, op.mask.range() == Some(hull))
            }
            (None, None) => (Mask::Bidirectional, op.mask.range() == Some(hull)),
            _ => (Mask::Bidirectional, false),
        };
        let pattern = (!whole).then(|| op.mask.clone());
        // The kernel caps scores before it adds the bias; the op adds the bias first.
        if op.softcap.is_some() && (op.bias.is_some() || op.alibi.is_some()) {
            return Err(self.error("a bias under a softcap"));
        }
        let bias = match op.bias {
            None => None,
            Some(_) => {
                let (_, table) = self.weight(inst, next)?;
                next += 1;
                let Form::Relative { origin, stride, .. } = &table.form else {
                    return Err(self.error("the bias is not packed by relative position"));
                };
                let (zero, stride) = (i64::from(*origin), i64::from(*stride));
                let kind = Bias::Relative(kernels::RelativeBias { stride, zero });
                Some((weight_arg(table), kind))
            }
        };
        let bias = match op.alibi {
            None => bias,
            Some(alibi) => {
                let heads = self.heads(q)?.0 as u32;
                Some((Arg::Table(self.table(alibi.slopes(heads))), Bias::Slopes))
            }
        };
        let mut terms = None;
        let mut tables = [None; 2];
        if let Some(d) = op.disentangled {
            if op.kv_group != 1 {
                return Err(self.error("position terms of heads that share keys"));
            }
            for (table, there) in tables.iter_mut().zip([d.c2p, d.p2c]) {
                if there {
                    let (_, stored) = self.weight(inst, next)?;
                    next += 1;
                    let Form::Positions(form) = &stored.form else {
                        return Err(self.error("the table is not packed by position"));
                    };
                    terms = Some(form.rows.kernel());
                    *table = Some(weight_arg(stored));
                }
            }
        }
        let mut sinks = None;
        if op.sinks {
            sinks = Some(weight_arg(self.weight(inst, next)?.1));
            next += 1;
        }
        debug_assert_eq!(next + 1, inst.operands.len(), "only the step is left");
        let (kv, group) = (self.kv_layout(class, dtype)?, i64::from(op.kv_group));
        let context = i64::from(self.dims.t);
        let split = match mask {
            Mask::Causal { window } => {
                let keys = window.map_or(context, |w| w.min(context));
                kernels::Attend::split_for(&kv, group, keys)
            }
            // The sequences of encoders are never alone with one token.
            Mask::Bidirectional => 0,
        };
        let kernel = kernels::Attend {
            kv,
            group,
            q_stride: i64::from(q.stride),
            out_stride: i64::from(out.stride),
            scale: op.scale,
            softcap: op.softcap,
            mask,
            pattern,
            bias: bias.map(|(_, kind)| kind),
            terms,
            sinks: op.sinks,
            split,
        };
        self.partials = self.partials.max(kernel.partial_bytes() as u64);
        self.scratch = self.scratch.max(kernel.scratch_bytes() as u64);
        let lengths = match self.state_of(keys) {
            Some((_, true)) => BatchField::SourceLen,
            _ => BatchField::KvLen,
        };
        // Pointers that are not read still want a value.
        let unread = Arg::Arena(q.at);
        let args = vec![
            Arg::Rows(Extent::Sequences),
            Arg::Arena(q.at),
            Arg::KvPages(class),
            Arg::KvTable(class),
            Arg::KvTableStride(class),
            Arg::Batch(BatchField::Pos),
            Arg::Batch(BatchField::QStart),
            Arg::Batch(lengths),
            bias.map_or(unread, |b| b.0),
            tables[0].unwrap_or(unread),
            tables[1].unwrap_or(unread),
            sinks.unwrap_or(unread),
            Arg::Arena(out.at),
            Arg::Scratch,
            Arg::Partials,
        ];
        self.push(Kernel::Attend(kernel), args);
        Ok(())
    }

    fn kv_layout(&self, class: usize, dtype: DType) -> Result<KvLayout, LowerError> {
        let of = &self.kv[class];
        let elem = match dtype {
            DType::F32 => KvElem::F32,
            DType::F16 => KvElem::F16,
            DType::BF16 => KvElem::BF16,
            DType::Block(Format::Q8_0) => KvElem::Q8_0,
            other => return Err(self.error(format!("a cache of {}", other.name()))),
        };
        Ok(KvLayout {
            heads: i64::from(of.kv_heads),
            k_width: i64::from(of.k_width),
            v_width: i64::from(of.v_width),
            elem,
        })
    }

    /// The state that a view shows, and whether it is that of a source.
    fn state_of(&self, view: llmc_ir::ValueId) -> Option<(StateId, bool)> {
        let inst = &self.func.body[self.func.def(view)?];
        match (&inst.op, inst.operands.first()) {
            (Op::KvAppend(_), Some(Operand::State(s))) => Some((*s, false)),
            (Op::KvSource(_), Some(Operand::State(s))) => Some((*s, true)),
            _ => None,
        }
    }

    /// The class of pages that live for one step, for keys and values of these shapes.
    fn step_pages(&mut self, k: &Place, v: &Place) -> Result<usize, LowerError> {
        let (heads, _) = self.heads(k)?;
        let widths = (k.layout.0[0].group_width(), v.layout.0[0].group_width());
        let mut class = kv_class("step", DType::F32, 1, heads as u32, widths, None);
        class.scratch = true;
        if let Some(i) = self.kv.iter().position(|c| *c == class) {
            return Ok(i);
        }
        self.kv.push(class);
        Ok(self.kv.len() - 1)
    }
}

/// Whether every head's stored lanes are its own, in whole blocks of 32.
fn is_whole_blocks(place: &Place) -> bool {
    let heads = &place.layout.0;
    heads.iter().all(|s| {
        let logical: u32 = s.parts.iter().sum();
        logical == s.group_width() && logical.is_multiple_of(32)
    })
}
