//! Learned positions that count from the pad id, as RoBERTa's do.
//!
//! In: token ids, the first token of each sequence. Out: per token `pad` for a pad token, else
//! `pad` plus the number of other tokens in its sequence up to and including it.

use crate::kernel::{Elem, KernelBuilder, Param, Ty};

/// Emits `position_ids(thread, threads, b: i64, q_start: *i32, ids: *i32, out: *i32)`; every
/// sequence of the step is whole (no past).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionIds {
    pub pad: i64,
}

impl PositionIds {
    pub fn symbol(&self) -> String {
        format!("position_ids_p{}", self.pad)
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, sequences, q_start, ids, out] = *args else {
                unreachable!("six parameters")
            };
            let (lo, hi) = b.slice(thread, threads, sequences);
            b.for_each(lo, hi, 1, |b, sequence| {
                let p = b.at(q_start, sequence, 4);
                let start = b.load_i32(p);
                let p = b.offset(p, 4);
                let end = b.load_i32(p);
                let pad = b.int(Elem::I32, self.pad);
                b.for_carried(start, end, 1, &[pad], |b, i, last| {
                    let p = b.at(ids, i, 4);
                    let id = b.load(Ty::I32, p);
                    let next = b.add_const(last[0], 1);
                    let is_pad = b.eq(id, pad);
                    let position = b.select(is_pad, pad, next);
                    let p = b.at(out, i, 4);
                    b.store(position, p);
                    vec![b.select(is_pad, last[0], next)]
                });
            });
        })
    }
}
