//! The largest entry of each row, by threads' parts of the row: the greedy choice.
//!
//! In: rows of logits. Out: for each row the largest entry of the thread's part and where it is, the
//! first of equals; position -1 where the part holds nothing but NaN and negative infinity.
//! Not here: joining the threads' parts, which is a comparison for each thread.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param};

/// Groups that a thread looks at in one round: as many chains, so that latency hides.
const CHAINS: i64 = 4;

/// Emits `arg_max(thread, threads, n: i64, x: *f32, best: *(f32, i32))`: x `[n, stride]`, of which
/// the first `width` entries of a row count; best `[n]`, the thread's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgMax {
    pub width: i64,
    /// Floats between two rows, a multiple of 16.
    pub stride: i64,
}

impl ArgMax {
    pub fn symbol(&self) -> String {
        format!("arg_max_d{}_x{}", self.width, self.stride)
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(self.width <= self.stride, "a row holds its entries");
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, best] = *args else {
                unreachable!("five parameters")
            };
            let zero = b.i64(0);
            let groups = b.i64((self.width + LANES - 1) / LANES);
            let (from, to) = b.slice(thread, threads, groups);
            let length = b.sub(to, from);
            let whole = b.div_const(length, CHAINS);
            let whole = b.mul_const(whole, CHAINS);
            let middle = b.add(from, whole);
            b.for_each(zero, n, 1, |b, row| {
                let x = b.at(x, row, self.stride * F32);
                let lowest = b.splat(f32::NEG_INFINITY);
                let none = b.i32(-1);
                let none = b.broadcast(none);
                let lanes = b.lane_numbers();
                let limit = b.i32(self.width as i32);
                let limit = b.broadcast(limit);
                let step = |b: &mut KernelBuilder<'_>, at, most, place| {
                    let p = b.at(x, at, LANES * F32);
                    let v = b.load_group(p);
                    let first = b.mul_const(at, LANES);
                    let first = b.truncate(first, Elem::I32);
                    let first = b.broadcast(first);
                    let index = b.add(first, lanes);
                    // Later equals do not replace earlier ones, NaN compares as false.
                    let more = b.gt(v, most);
                    let inside = b.lt(index, limit);
                    let more = b.and(more, inside);
                    (b.select(more, v, most), b.select(more, index, place))
                };
                let start: Vec<_> = [lowest, none].repeat(CHAINS as usize);
                let chains = b.for_carried(from, middle, CHAINS, &start, |b, at, chains| {
                    let mut next = Vec::new();
                    for chain in 0..CHAINS {
                        let [most, place] = [0, 1].map(|i| chains[2 * chain as usize + i]);
                        let at = b.add_const(at, chain);
                        let (most, place) = step(b, at, most, place);
                        next.extend([most, place]);
                    }
                    next
                });
                let (mut most, mut place) = (chains[0], chains[1]);
                for chain in chains[2..].chunks(2) {
                    let larger = b.gt(chain[0], most);
                    let equal = b.eq(chain[0], most);
                    let earlier = b.lt(chain[1], place);
                    let earlier = b.and(equal, earlier);
                    let other = b.or(larger, earlier);
                    most = b.select(other, chain[0], most);
                    place = b.select(other, chain[1], place);
                }
                let rest = b.for_carried(middle, to, 1, &[most, place], |b, at, state| {
                    let (most, place) = step(b, at, state[0], state[1]);
                    vec![most, place]
                });
                let (most, place) = (rest[0], rest[1]);
                let top = b.max_lanes(most);
                let all = b.broadcast(top);
                let here = b.eq(most, all);
                let far = b.i32(i32::MAX);
                let far = b.broadcast(far);
                let place = b.select(here, place, far);
                let place = b.min_lanes(place);
                let p = b.at(best, row, 2 * F32);
                b.store(top, p);
                let p = b.offset(p, F32);
                b.store(place, p);
            });
        })
    }
}
