//! Lanes: broadcast, extract, shuffle, and reductions in a fixed order.
//!
//! In: vectors. Out: vectors or scalars. A reduction halves the vector again and again (lane `i`
//! with lane `i + n/2`), on every feature level alike. Reductions of many vectors at once are for
//! what gives the same in any order.

use super::{Elem, GROUP, KernelBuilder, LANES, Ty, Value};
use crate::mlir::Attr;

impl KernelBuilder<'_> {
    /// 16 lanes of one scalar.
    pub fn broadcast(&mut self, v: Value) -> Value {
        let elem = v.ty.elem().expect("pointers have no lanes");
        self.broadcast_to(v, Ty::Vector(elem, LANES as u32))
    }

    pub fn broadcast_to(&mut self, v: Value, ty: Ty) -> Value {
        self.one("vector.broadcast", &[v], ty, &[])
    }

    /// Lane `lane` as a scalar.
    pub fn extract(&mut self, v: Value, lane: u32) -> Value {
        let elem = v.ty.elem().expect("a vector has elements");
        let at = [i64::from(lane)];
        let attribute = ("static_position", Attr::I64s(&at));
        self.one("vector.extract", &[v], Ty::Scalar(elem), &[attribute])
    }

    /// Lanes picked from the concatenation of `a` and `b`.
    pub fn shuffle(&mut self, a: Value, b: Value, mask: &[i64]) -> Value {
        let elem = a.ty.elem().expect("a vector has elements");
        let ty = Ty::Vector(elem, mask.len() as u32);
        self.one("vector.shuffle", &[a, b], ty, &[("mask", Attr::I64s(mask))])
    }

    /// The columns of 16 rows of 16 lanes.
    pub fn transpose(&mut self, rows: &[Value]) -> Vec<Value> {
        assert!(rows.len() as i64 == LANES, "a square of lanes");
        // Interleaving row i with row i + 8 turns the number (row, lane) of every element by one bit.
        let half = LANES / 2;
        let [low, high] = [0, half].map(|first| -> Vec<i64> {
            (first..first + half)
                .flat_map(|lane| [lane, LANES + lane])
                .collect()
        });
        let mut rows = rows.to_vec();
        for _ in 0..LANES.ilog2() {
            let (upper, lower) = rows.split_at(half as usize);
            rows = upper
                .iter()
                .zip(lower)
                .flat_map(|(a, b)| [self.shuffle(*a, *b, &low), self.shuffle(*a, *b, &high)])
                .collect();
        }
        rows
    }

    fn halve(&mut self, v: Value, mut join: impl FnMut(&mut Self, Value, Value) -> Value) -> Value {
        let mut v = v;
        while v.ty.lanes() > 1 {
            let half = i64::from(v.ty.lanes() / 2);
            let low: Vec<i64> = (0..half).collect();
            let high: Vec<i64> = (half..2 * half).collect();
            let a = self.shuffle(v, v, &low);
            let b = self.shuffle(v, v, &high);
            v = join(self, a, b);
        }
        self.extract(v, 0)
    }

    /// Sum of all lanes.
    pub fn sum_lanes(&mut self, v: Value) -> Value {
        self.halve(v, |b, x, y| b.add(x, y))
    }

    /// Largest lane.
    pub fn max_lanes(&mut self, v: Value) -> Value {
        self.halve(v, |b, x, y| b.max(x, y))
    }

    /// Smallest lane.
    pub fn min_lanes(&mut self, v: Value) -> Value {
        self.halve(v, |b, x, y| b.min(x, y))
    }

    /// Lane `i` is the largest lane of the `i`-th of 1, 2, 4, 8 or 16 vectors of 16 lanes.
    pub fn max_of_each(&mut self, vectors: &[Value]) -> Value {
        let steps = [(2, 4), (1, 4), (8, LANES), (4, LANES)];
        let most = self.join_of_each(vectors, &steps, |b, x, y| b.max(x, y));
        let lanes: Vec<i64> = (0..vectors.len() as i64).collect();
        self.shuffle(most, most, &lanes)
    }

    /// Lane `i` is the sum of the `i`-th four lanes of 1, 2 or 4 vectors of 16 integers, one behind
    /// the other.
    pub fn sum_of_fours(&mut self, vectors: &[Value]) -> Value {
        assert!(
            vectors.iter().all(|v| !v.ty.is_float()),
            "float sums depend on the order"
        );
        let sums = self.join_of_each(vectors, &[(2, 4), (1, 4)], |b, x, y| b.add(x, y));
        // Four lanes are one of each vector.
        let lanes: Vec<i64> = (0..4 * vectors.len() as i64)
            .map(|four| four % 4 * 4 + four / 4)
            .collect();
        self.shuffle(sums, sums, &lanes)
    }

    /// Joins lanes of each vector in steps `(distance, run)` that halve the number of vectors rather
    /// than of lanes: of each two, lanes `i` and `i + distance` are joined, and within a run of lanes
    /// those of the first then lie before those of the second. A vector that is left alone is its own
    /// partner. Steps within runs of four lanes, and steps that move whole fours, take an instruction
    /// or two for each shuffle on any level.
    fn join_of_each(
        &mut self,
        vectors: &[Value],
        steps: &[(i64, i64)],
        mut join: impl FnMut(&mut Self, Value, Value) -> Value,
    ) -> Value {
        assert!(
            vectors.len().is_power_of_two() && vectors.len() <= 1 << steps.len(),
            "as many vectors as the steps bring down to one"
        );
        let mut vectors = vectors.to_vec();
        for &(distance, run) in steps {
            let near: Vec<i64> = (0..LANES)
                .step_by(run as usize)
                .flat_map(|first| [first, LANES + first])
                .flat_map(|first| first..first + run)
                .filter(|lane| lane & distance == 0)
                .collect();
            let far: Vec<i64> = near.iter().map(|lane| lane + distance).collect();
            vectors = vectors
                .chunks(2)
                .map(|pair| {
                    let (first, second) = (pair[0], pair[pair.len() - 1]);
                    let x = self.shuffle(first, second, &near);
                    let y = self.shuffle(first, second, &far);
                    join(self, x, y)
                })
                .collect();
        }
        vectors[0]
    }

    /// `[0, 1, … 15]` as i32.
    pub fn lane_numbers(&mut self) -> Value {
        let numbers: Vec<i32> = (0..LANES as i32).collect();
        self.lanes_i32(&numbers)
    }

    /// 1.0 in lanes below `valid`, 0.0 from there on.
    pub fn lane_mask(&mut self, valid: i64) -> Value {
        let lanes: Vec<f32> = (0..LANES)
            .map(|i| if i < valid { 1.0 } else { 0.0 })
            .collect();
        let v = self.lanes_f32(&lanes);
        debug_assert_eq!(v.ty, GROUP);
        v
    }

    /// Lane `lane` is `v`, the rest `rest`.
    pub fn one_lane(&mut self, v: Value, lane: u32, rest: f64) -> Value {
        let elem = v.ty.elem().expect("a scalar has an element type");
        let base = self.constant(Ty::Vector(elem, LANES as u32), rest);
        let at = [i64::from(lane)];
        let attribute = ("static_position", Attr::I64s(&at));
        self.one("vector.insert", &[v, base], base.ty, &[attribute])
    }

    /// Integer lanes of one scalar type, for masks.
    pub fn int_lanes(&mut self, v: Value) -> Value {
        let elem = v.ty.elem().expect("a scalar has an element type");
        assert!(
            matches!(elem, Elem::I32 | Elem::I64),
            "index lanes are i32 or i64"
        );
        self.broadcast(v)
    }
}
