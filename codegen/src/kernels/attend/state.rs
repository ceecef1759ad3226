//! Folding the states of chunks, and a row's end.

use super::{Args, Attend, Item, MASKED};
use crate::kernel::{KernelBuilder, LANES, Ty, Value};
use crate::kernels::F32;

impl Attend {
    /// The place of state `i`.
    pub(super) fn state(&self, b: &mut KernelBuilder<'_>, states: Value, i: Value) -> Value {
        b.at(states, i, self.state_floats() * F32)
    }

    /// The sums of a state, by lane.
    pub(super) fn sums(&self, b: &mut KernelBuilder<'_>, state: Value) -> Value {
        b.offset(state, self.kv.v_width * F32)
    }

    /// The running maximum of a state.
    pub(super) fn maximum(&self, b: &mut KernelBuilder<'_>, state: Value) -> Value {
        b.offset(state, (self.kv.v_width + LANES) * F32)
    }

    /// A state before any key.
    pub(super) fn empty(&self, b: &mut KernelBuilder<'_>, state: Value) {
        let zeros = b.splat(0.0);
        b.for_unrolled(self.kv.v_width / LANES + 1, 4, |b, g| {
            let p = b.at(state, g, LANES * F32);
            b.store(zeros, p);
        });
        let p = self.maximum(b, state);
        let masked = b.f32(MASKED);
        b.store(masked, p);
    }

    /// Row `i` before any chunk: nothing, or the sink.
    pub(super) fn begin_total(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        i: Value,
        totals: Value,
    ) {
        let state = self.state(b, totals, i);
        self.empty(b, state);
        if self.sinks {
            let (_, head) = self.place(b, item, i);
            let p = b.at(a.sinks, head, F32);
            let sink = b.load(Ty::F32, p);
            let p = self.maximum(b, state);
            b.store(sink, p);
            let one = b.f32(1.0);
            let sum = b.one_lane(one, 0, 0.0);
            let p = self.sums(b, state);
            b.store(sum, p);
        }
    }

    /// `totals[to] = totals[to] + states[from]`; a state without keys is left out, the first one with
    /// keys is taken as it is.
    pub(super) fn fold(
        &self,
        b: &mut KernelBuilder<'_>,
        totals: Value,
        to: Value,
        states: Value,
        from: Value,
    ) {
        let (to, from) = (self.state(b, totals, to), self.state(b, states, from));
        let (p, masked) = (self.maximum(b, from), b.f32(MASKED));
        let more = b.load(Ty::F32, p);
        let some = b.ne(more, masked);
        b.when(some, |b| {
            let p = self.maximum(b, to);
            let old = b.load(Ty::F32, p);
            let new = b.max(old, more);
            b.store(new, p);
            let first = b.eq(old, masked);
            let groups = self.kv.v_width / LANES + 1;
            b.choose(
                first,
                |b| {
                    b.for_unrolled(groups, 4, |b, g| {
                        let [from, to] = [from, to].map(|p| b.at(p, g, LANES * F32));
                        let v = b.load_group(from);
                        b.store(v, to);
                    });
                    Vec::new()
                },
                |b| {
                    let factors = [old, more].map(|m| {
                        let change = b.sub(m, new);
                        let change = b.broadcast(change);
                        b.exp(change)
                    });
                    b.for_unrolled(groups, 4, |b, g| {
                        let [from, to] = [from, to].map(|p| b.at(p, g, LANES * F32));
                        let (x, y) = (b.load_group(to), b.load_group(from));
                        let x = b.mul(x, factors[0]);
                        let v = b.fma(y, factors[1], x);
                        b.store(v, to);
                    });
                    Vec::new()
                },
            );
        });
    }

    /// Divides row `i` by the sum of its probabilities and writes it out.
    pub(super) fn finish(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        i: Value,
        totals: Value,
    ) {
        let (token, head) = self.place(b, item, i);
        let from = self.state(b, totals, i);
        let p = self.sums(b, from);
        let sum = b.load_group(p);
        let sum = b.sum_lanes(sum);
        let (zero, one) = (b.f32(0.0), b.f32(1.0));
        let some = b.gt(sum, zero);
        let inverse = b.div(one, sum);
        let inverse = b.select(some, inverse, zero);
        let inverse = b.broadcast(inverse);
        let to = b.at(a.out, token, self.out_stride * F32);
        let to = b.at(to, head, self.kv.v_width * F32);
        b.for_unrolled(self.kv.v_width / LANES, 4, |b, g| {
            let p = b.at(from, g, LANES * F32);
            let v = b.load_group(p);
            let v = b.mul(v, inverse);
            let p = b.at(to, g, LANES * F32);
            b.store(v, p);
        });
    }
}
