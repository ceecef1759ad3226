//! Which experts a row goes to: its greatest logits, and a softmax.
//!
//! In: rows of logits. Out: rows of weights, zero for experts that were not chosen. x and y lie apart.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param, SUMS, Ty, Value};

/// Emits `route(thread, threads, n: i64, x: *f32, y: *f32, scratch: *u8)`: rows `[n, stride]`.
///
/// The greatest logits are taken one after another, of equals the first; NaN and negative infinity are
/// never taken, so that there may be fewer than `top_k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Logical lanes of a row.
    pub experts: i64,
    pub top_k: i64,
    /// The softmax is over the chosen logits, else over all.
    pub renormalize: bool,
    pub x_stride: i64,
    pub y_stride: i64,
}

/// The chosen logits and their places, in scratch.
#[derive(Clone, Copy)]
struct Chosen {
    values: Value,
    places: Value,
}

impl Chosen {
    fn value(self, b: &mut KernelBuilder<'_>, i: Value) -> Value {
        let p = b.at(self.values, i, F32);
        b.load(Ty::F32, p)
    }

    /// The place of choice `i`, negative where there is none.
    fn place(self, b: &mut KernelBuilder<'_>, i: Value) -> Value {
        let p = b.at(self.places, i, 4);
        b.load_i32(p)
    }
}

impl Route {
    pub fn symbol(&self) -> String {
        format!(
            "route_e{}_k{}_x{}_y{}{}",
            self.experts,
            self.top_k,
            self.x_stride,
            self.y_stride,
            if self.renormalize { "_chosen" } else { "" }
        )
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        2 * self.top_k * F32
    }

    fn groups(&self) -> i64 {
        (self.experts + LANES - 1) / LANES
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(
            (1..=self.experts).contains(&self.top_k) && self.experts <= self.y_stride,
            "some of the experts are chosen, and a row holds all"
        );
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, y, scratch] = *args else {
                unreachable!("six parameters")
            };
            let chosen = Chosen {
                values: scratch,
                places: b.offset(scratch, self.top_k * F32),
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let x = b.at(x, row, self.x_stride * F32);
                let y = b.at(y, row, self.y_stride * F32);
                self.choose(b, x, y, chosen);
                self.weigh(b, x, y, chosen);
            });
        })
    }

    /// The logits of group `group`, negative infinity where there is none that can be chosen.
    fn logits(&self, b: &mut KernelBuilder<'_>, x: Value, group: Value) -> Value {
        let p = b.at(x, group, LANES * F32);
        let v = b.load_group(p);
        let lowest = b.splat(f32::NEG_INFINITY);
        // NaN compares as false.
        let some = b.gt(v, lowest);
        let inside = self.inside(b, group);
        let some = b.and(some, inside);
        b.select(some, v, lowest)
    }

    /// The numbers of the lanes of a group.
    fn numbers(&self, b: &mut KernelBuilder<'_>, group: Value) -> Value {
        let lanes = b.lane_numbers();
        let first = b.mul_const(group, LANES);
        let first = b.truncate(first, Elem::I32);
        let first = b.broadcast(first);
        b.add(first, lanes)
    }

    fn inside(&self, b: &mut KernelBuilder<'_>, group: Value) -> Value {
        let numbers = self.numbers(b, group);
        let end = b.constant(SUMS, self.experts as f64);
        b.lt(numbers, end)
    }

    /// Fills `chosen`; y holds the logits that are left meanwhile.
    fn choose(&self, b: &mut KernelBuilder<'_>, x: Value, y: Value, chosen: Chosen) {
        let groups = self.groups();
        b.for_unrolled(groups, 4, |b, group| {
            let v = self.logits(b, x, group);
            let p = b.at(y, group, LANES * F32);
            b.store(v, p);
        });
        let (zero, rounds) = (b.i64(0), b.i64(self.top_k));
        b.for_each(zero, rounds, 1, |b, round| {
            let lowest = b.splat(f32::NEG_INFINITY);
            let none = b.constant(SUMS, -1.0);
            let best = b.for_unrolled_carried(groups, 4, &[lowest, none], |b, group, best| {
                let p = b.at(y, group, LANES * F32);
                let v = b.load_group(p);
                let numbers = self.numbers(b, group);
                let more = b.gt(v, best[0]);
                vec![b.select(more, v, best[0]), b.select(more, numbers, best[1])]
            });
            let top = b.max_lanes(best[0]);
            let all = b.broadcast(top);
            let here = b.eq(best[0], all);
            let far = b.constant(SUMS, f64::from(i32::MAX));
            let place = b.select(here, best[1], far);
            let place = b.min_lanes(place);
            let p = b.at(chosen.values, round, F32);
            b.store(top, p);
            let p = b.at(chosen.places, round, 4);
            b.store(place, p);
            let none = b.i32(0);
            let some = b.ge(place, none);
            b.when(some, |b| {
                let place = b.sign_extend(place, Elem::I64);
                let p = b.at(y, place, F32);
                let lowest = b.f32(f32::NEG_INFINITY);
                b.store(lowest, p);
            });
        });
    }

    /// Writes the weights of `chosen` to y.
    fn weigh(&self, b: &mut KernelBuilder<'_>, x: Value, y: Value, chosen: Chosen) {
        let (zero, rounds) = (b.i64(0), b.i64(self.top_k));
        let top = chosen.value(b, zero);
        let sum = if self.renormalize {
            let none = b.f32(0.0);
            b.for_carried(zero, rounds, 1, &[none], |b, i, sum| {
                let e = self.exp(b, chosen, i, top);
                vec![b.add(sum[0], e)]
            })[0]
        } else {
            let (zeros, top) = (b.splat(0.0), b.broadcast(top));
            let sums = b.for_unrolled_carried(self.groups(), 4, &[zeros], |b, group, sum| {
                let v = self.logits(b, x, group);
                let lowest = b.splat(f32::NEG_INFINITY);
                let some = b.gt(v, lowest);
                let v = b.select(some, v, top);
                let v = b.sub(v, top);
                let v = b.exp(v);
                let v = b.select(some, v, zeros);
                vec![b.add(sum[0], v)]
            });
            b.sum_lanes(sums[0])
        };
        let zeros = b.splat(0.0);
        b.for_unrolled(self.groups(), 4, |b, group| {
            let p = b.at(y, group, LANES * F32);
            b.store(zeros, p);
        });
        b.for_each(zero, rounds, 1, |b, i| {
            let place = chosen.place(b, i);
            let zero = b.i64(0);
            let some = b.ge(place, zero);
            b.when(some, |b| {
                let e = self.exp(b, chosen, i, top);
                let weight = b.div(e, sum);
                let p = b.at(y, place, F32);
                b.store(weight, p);
            });
        });
    }

    /// exp(logit − top) of choice `i`, 0 where there is none.
    fn exp(&self, b: &mut KernelBuilder<'_>, chosen: Chosen, i: Value, top: Value) -> Value {
        let (value, place, zero) = (chosen.value(b, i), chosen.place(b, i), b.i64(0));
        let some = b.ge(place, zero);
        let value = b.select(some, value, top);
        let v = b.sub(value, top);
        let v = b.broadcast(v);
        let v = b.exp(v);
        let v = b.extract(v, 0);
        let none = b.f32(0.0);
        b.select(some, v, none)
    }
}
