//! From the weights of experts to lists of rows: which rows each expert computes.
//!
//! In: rows of weights, most of them zero. Out: the pairs (row, expert) whose weight is not zero, expert
//! by expert, and the other way round the pairs of each row. One thread does all of it.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, Param, Ty, Value};

/// Emits `dispatch(thread, threads, n: i64, weights: *f32, starts: *i32, cursors: *i32, rows: *i32,
/// places: *i32, shares: *f32)`.
///
/// Pairs are numbered by expert, then by row: those of expert e are `starts[e]..starts[e + 1]`
/// (`[experts + 1]`), pair p is of row `rows[p]` (`[n · top_k]`). The pairs of row i are `places[i]`, their
/// weights `shares[i]` (`[n, top_k]` both), by expert; shares of 0 stand for none. `cursors` `[experts]` is
/// the kernel's own. A row has at most `top_k` weights that are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatch {
    pub experts: i64,
    pub top_k: i64,
    pub w_stride: i64,
}

impl Dispatch {
    pub fn symbol(&self) -> String {
        format!(
            "dispatch_e{}_k{}_w{}",
            self.experts, self.top_k, self.w_stride
        )
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::output(),
            Param::output(),
            Param::output(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, _, n, weights, starts, cursors, rows, places, shares] = *args else {
                unreachable!("nine parameters")
            };
            let zero = b.i64(0);
            let mine = b.eq(thread, zero);
            b.when(mine, |b| {
                self.count(b, n, weights, cursors);
                self.start(b, starts, cursors);
                self.list(b, n, weights, (cursors, rows, places, shares));
            });
        })
    }

    /// How many pairs each expert has.
    fn count(&self, b: &mut KernelBuilder<'_>, n: Value, weights: Value, cursors: Value) {
        let (zero, experts) = (b.i64(0), b.i64(self.experts));
        b.for_each(zero, experts, 1, |b, e| {
            let p = b.at(cursors, e, 4);
            let none = b.i32(0);
            b.store(none, p);
        });
        b.for_each(zero, n, 1, |b, row| {
            let weights = b.at(weights, row, self.w_stride * F32);
            b.for_each(zero, experts, 1, |b, e| {
                let (_, chosen) = weight(b, weights, e);
                b.when(chosen, |b| {
                    let p = b.at(cursors, e, 4);
                    let count = b.load(Ty::I32, p);
                    let count = b.add_const(count, 1);
                    b.store(count, p);
                });
            });
        });
    }

    /// Counts to first pairs.
    fn start(&self, b: &mut KernelBuilder<'_>, starts: Value, cursors: Value) {
        let (zero, experts, none) = (b.i64(0), b.i64(self.experts), b.i32(0));
        let end = b.for_carried(zero, experts, 1, &[none], |b, e, next| {
            let p = b.at(cursors, e, 4);
            let count = b.load(Ty::I32, p);
            b.store(next[0], p);
            let p = b.at(starts, e, 4);
            b.store(next[0], p);
            vec![b.add(next[0], count)]
        });
        let p = b.at(starts, experts, 4);
        b.store(end[0], p);
    }

    /// Lists the pairs.
    fn list(
        &self,
        b: &mut KernelBuilder<'_>,
        n: Value,
        weights: Value,
        (cursors, rows, places, shares): (Value, Value, Value, Value),
    ) {
        let (zero, experts) = (b.i64(0), b.i64(self.experts));
        b.for_each(zero, n, 1, |b, row| {
            let weights = b.at(weights, row, self.w_stride * F32);
            let places = b.at(places, row, self.top_k * 4);
            let shares = b.at(shares, row, self.top_k * F32);
            let used = b.for_carried(zero, experts, 1, &[zero], |b, e, used| {
                let (weight, chosen) = weight(b, weights, e);
                b.choose(
                    chosen,
                    |b| {
                        let p = b.at(cursors, e, 4);
                        let pair = b.load(Ty::I32, p);
                        let next = b.add_const(pair, 1);
                        b.store(next, p);
                        let p = b.at(places, used[0], 4);
                        b.store(pair, p);
                        let p = b.at(shares, used[0], F32);
                        b.store(weight, p);
                        let pair = b.sign_extend(pair, Elem::I64);
                        let p = b.at(rows, pair, 4);
                        let row = b.truncate(row, Elem::I32);
                        b.store(row, p);
                        vec![b.add_const(used[0], 1)]
                    },
                    |_| vec![used[0]],
                )
            });
            let all = b.i64(self.top_k);
            b.for_each(used[0], all, 1, |b, i| {
                let (none, no_share) = (b.i32(0), b.f32(0.0));
                let p = b.at(places, i, 4);
                b.store(none, p);
                let p = b.at(shares, i, F32);
                b.store(no_share, p);
            });
        });
    }
}

/// The weight of expert `e`, and whether it is chosen.
fn weight(b: &mut KernelBuilder<'_>, weights: Value, e: Value) -> (Value, Value) {
    let p = b.at(weights, e, F32);
    let weight = b.load(Ty::F32, p);
    let zero = b.f32(0.0);
    let chosen = b.ne(weight, zero);
    (weight, chosen)
}
