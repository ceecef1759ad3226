//! The weighted sum of what a row's experts made of it.
//!
//! In: rows by pair, and the pairs of each row with their weights ([`super::Dispatch`]). Out: rows of y:
//! the sum by expert, one multiply-add after another. A share of 0 is left out.

use super::F32;
use crate::kernel::{KernelBuilder, LANES, Param, Ty};

/// Emits `combine(thread, threads, n: i64, pairs: *f32, places: *i32, shares: *f32, y: *f32)`: places
/// and shares `[n, top_k]`, rows of pairs and y `[stride]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combine {
    pub top_k: i64,
    /// Lanes of a row, rounded up to whole groups.
    pub width: i64,
    pub pair_stride: i64,
    pub y_stride: i64,
}

impl Combine {
    pub fn symbol(&self) -> String {
        format!(
            "combine_k{}_d{}_p{}_y{}",
            self.top_k, self.width, self.pair_stride, self.y_stride
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
            Param::input(),
            Param::output(),
        ];
        let groups = (self.width + LANES - 1) / LANES;
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, pairs, places, shares, y] = *args else {
                unreachable!("seven parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let y = b.at(y, row, self.y_stride * F32);
                let places = b.at(places, row, self.top_k * 4);
                let shares = b.at(shares, row, self.top_k * F32);
                let zeros = b.splat(0.0);
                b.for_unrolled(groups, 4, |b, g| {
                    let p = b.at(y, g, LANES * F32);
                    b.store(zeros, p);
                });
                let (zero, all) = (b.i64(0), b.i64(self.top_k));
                b.for_each(zero, all, 1, |b, i| {
                    let p = b.at(shares, i, F32);
                    let share = b.load(Ty::F32, p);
                    let none = b.f32(0.0);
                    let some = b.ne(share, none);
                    b.when(some, |b| {
                        let p = b.at(places, i, 4);
                        let pair = b.load_i32(p);
                        let from = b.at(pairs, pair, self.pair_stride * F32);
                        let share = b.broadcast(share);
                        b.for_unrolled(groups, 4, |b, g| {
                            let p = b.at(from, g, LANES * F32);
                            let v = b.load_group(p);
                            let p = b.at(y, g, LANES * F32);
                            let sum = b.load_group(p);
                            let sum = b.fma(share, v, sum);
                            b.store(sum, p);
                        });
                    });
                });
            });
        })
    }
}
