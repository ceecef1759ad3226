//! Loops and branches as closures over the builder.
//!
//! In: bounds, carried values, bodies. Out: `scf.for` and `scf.if`.
//! Invariant: loop counters are i64 and compare as signed; steps are positive.

use super::{KernelBuilder, Ty, Value};

impl KernelBuilder<'_> {
    /// `for i in (lo..hi).step_by(step)` with carried values; returns their last values.
    pub fn for_carried(
        &mut self,
        lo: Value,
        hi: Value,
        step: i64,
        carried: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        assert!(
            lo.ty == Ty::I64 && hi.ty == Ty::I64 && step > 0,
            "loop bounds are i64"
        );
        let step = self.i64(step);
        let mut operands = vec![lo, hi, step];
        operands.extend_from_slice(carried);
        let types: Vec<Ty> = carried.iter().map(|v| v.ty).collect();
        let mut arguments = vec![Ty::I64];
        arguments.extend_from_slice(&types);
        let (open, args) = self.ops.open_region(&arguments);
        let next = body(self, args[0], &args[1..]);
        assert!(
            next.iter().map(|v| v.ty).eq(types.iter().copied()),
            "a loop carries the same types from one round to the next"
        );
        self.ops.op("scf.yield", &next, &[], &[], Vec::new());
        let region = self.ops.close_region(open);
        self.ops.op("scf.for", &operands, &types, &[], vec![region])
    }

    /// `for i in (lo..hi).step_by(step)` for its effects.
    pub fn for_each(
        &mut self,
        lo: Value,
        hi: Value,
        step: i64,
        body: impl FnOnce(&mut Self, Value),
    ) {
        self.for_carried(lo, hi, step, &[], |b, i, _| {
            body(b, i);
            Vec::new()
        });
    }

    /// A constant number of rounds, `unroll` of them per iteration, for its effects: `body` sees
    /// the index as a value. The remainder is emitted behind the loop.
    pub fn for_unrolled(
        &mut self,
        count: i64,
        unroll: i64,
        mut body: impl FnMut(&mut Self, Value),
    ) {
        self.for_unrolled_carried(count, unroll, &[], |b, i, _| {
            body(b, i);
            Vec::new()
        });
    }

    /// [`KernelBuilder::for_unrolled`] with carried values, passed from round to round in order.
    pub fn for_unrolled_carried(
        &mut self,
        count: i64,
        unroll: i64,
        carried: &[Value],
        mut body: impl FnMut(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let whole = count - count % unroll;
        let mut state = carried.to_vec();
        if whole > unroll {
            let (lo, hi) = (self.i64(0), self.i64(whole));
            state = self.for_carried(lo, hi, unroll, &state, |b, i, carried| {
                let mut state = carried.to_vec();
                for u in 0..unroll {
                    let at = b.add_const(i, u);
                    state = body(b, at, &state);
                }
                state
            });
        }
        let rest = if whole > unroll { whole } else { 0 };
        for u in rest..count {
            let at = self.i64(u);
            state = body(self, at, &state);
        }
        state
    }

    /// Runs `body` if `condition` (i1) holds.
    pub fn when(&mut self, condition: Value, body: impl FnOnce(&mut Self)) {
        self.choose(
            condition,
            |b| {
                body(b);
                Vec::new()
            },
            |_| Vec::new(),
        );
    }

    /// `if condition { then } else { otherwise }`; both arms give the same types.
    pub fn choose(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        assert_eq!(condition.ty, Ty::I1, "a condition is i1");
        let (open, _) = self.ops.open_region(&[]);
        let a = then(self);
        self.ops.op("scf.yield", &a, &[], &[], Vec::new());
        let first = self.ops.close_region(open);
        let (open, _) = self.ops.open_region(&[]);
        let b = otherwise(self);
        self.ops.op("scf.yield", &b, &[], &[], Vec::new());
        let second = self.ops.close_region(open);
        let types: Vec<Ty> = a.iter().map(|v| v.ty).collect();
        assert!(
            b.iter().map(|v| v.ty).eq(types.iter().copied()),
            "both arms give the same types"
        );
        self.ops
            .op("scf.if", &[condition], &types, &[], vec![first, second])
    }

    /// The slice `[lo, hi)` of `count` units that `thread` of `threads` owns: contiguous, in
    /// thread order, sizes differing by at most one.
    pub fn slice(&mut self, thread: Value, threads: Value, count: Value) -> (Value, Value) {
        let a = self.mul(thread, count);
        let lo = self.div(a, threads);
        let next = self.add_const(thread, 1);
        let b = self.mul(next, count);
        let hi = self.div(b, threads);
        (lo, hi)
    }

    /// Cuts the units `[lo, hi)` of a grid `[outer][inner]` into runs of one outer index:
    /// `body(outer, from, to)` gets the inner range. Nothing happens for an empty slice.
    pub fn for_runs(
        &mut self,
        (lo, hi): (Value, Value),
        inner: Value,
        body: impl FnOnce(&mut Self, Value, Value, Value),
    ) {
        let some = self.lt(lo, hi);
        self.when(some, |b| {
            let first = b.div(lo, inner);
            let last = b.add_const(hi, -1);
            let last = b.div(last, inner);
            let end = b.add_const(last, 1);
            b.for_each(first, end, 1, |b, outer| {
                let start = b.mul(outer, inner);
                let (from, to) = (b.sub(lo, start), b.sub(hi, start));
                let zero = b.i64(0);
                let (from, to) = (b.max(from, zero), b.min(to, inner));
                body(b, outer, from, to);
            });
        });
    }
}
