//! One vector per sequence out of its token rows.
//!
//! In: rows x, the first token of each sequence. Out: rows y, one per sequence. A sequence has at
//! least one token. Sums run from the first token to the last.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The first token.
    Cls,
    Last,
    Max,
    Mean,
}

/// Emits `pool(thread, threads, b: i64, q_start: *i32, x: *f32, y: *f32)`: x `[n, x_stride]`,
/// y `[b, y_stride]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kind: PoolKind,
    /// Lanes of a row, rounded up to whole groups; zero pads stay zero.
    pub width: i64,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl Pool {
    pub fn symbol(&self) -> String {
        let kind = match self.kind {
            PoolKind::Cls => "cls",
            PoolKind::Last => "last",
            PoolKind::Max => "max",
            PoolKind::Mean => "mean",
        };
        format!(
            "pool_{kind}_d{}_x{}_y{}",
            self.width, self.x_stride, self.y_stride
        )
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
            let [thread, threads, sequences, q_start, x, y] = *args else {
                unreachable!("six parameters")
            };
            let groups = b.i64((self.width + LANES - 1) / LANES);
            let units = b.mul(sequences, groups);
            let slice = b.slice(thread, threads, units);
            b.for_runs(slice, groups, |b, sequence, from, to| {
                let p = b.at(q_start, sequence, 4);
                let start = b.load_i32(p);
                let p = b.offset(p, 4);
                let end = b.load_i32(p);
                let y = b.at(y, sequence, self.y_stride * F32);
                b.for_each(from, to, 1, |b, group| {
                    let column = b.at(x, group, LANES * F32);
                    let v = self.column(b, column, start, end);
                    let p = b.at(y, group, LANES * F32);
                    b.store(v, p);
                });
            });
        })
    }

    /// One group of lanes over the tokens `start..end`.
    fn column(&self, b: &mut KernelBuilder<'_>, x: Value, start: Value, end: Value) -> Value {
        let row = |b: &mut KernelBuilder<'_>, i: Value| {
            let p = b.at(x, i, self.x_stride * F32);
            b.load_group(p)
        };
        let first = row(b, start);
        let next = b.add_const(start, 1);
        match self.kind {
            PoolKind::Cls => first,
            PoolKind::Last => {
                let last = b.add_const(end, -1);
                row(b, last)
            }
            PoolKind::Max => b.for_carried(next, end, 1, &[first], |b, i, v| {
                let more = row(b, i);
                vec![b.max(v[0], more)]
            })[0],
            PoolKind::Mean => {
                let sum = b.for_carried(next, end, 1, &[first], |b, i, v| {
                    let more = row(b, i);
                    vec![b.add(v[0], more)]
                })[0];
                let count = b.sub(end, start);
                let count = b.to_float(count, Elem::F32);
                let count = b.broadcast(count);
                b.div(sum, count)
            }
        }
    }
}
