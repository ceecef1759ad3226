//! Rotary position embedding by halves.
//!
//! In: heads `[first half | second half | rest]`, cosines and sines. Out: rotated halves, the rest
//! copied. In place is fine.

use super::F32;
use crate::kernel::{KernelBuilder, LANES, Param, Value};

/// Emits `rope(thread, threads, n: i64, x: *f32, cos: *f32, sin: *f32, y: *f32)`:
/// x and y `[n, stride]` with heads at distance `2·half + rest`, cos and sin `[n][half]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rope {
    pub heads: i64,
    /// Physical lanes of each half, a multiple of 16.
    pub half: i64,
    /// Physical lanes that are not rotated, a multiple of 16.
    pub rest: i64,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl Rope {
    pub fn symbol(&self) -> String {
        format!(
            "rope_h{}_d{}_{}_x{}_y{}",
            self.heads, self.half, self.rest, self.x_stride, self.y_stride
        )
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(
            self.half % LANES == 0 && self.rest % LANES == 0,
            "physical sizes are padded"
        );
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::ptr(),
            Param::input(),
            Param::input(),
            Param::ptr(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, cos, sin, y] = *args else {
                unreachable!("seven parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            let (from, to) = (b.i64(0), b.i64(self.heads));
            b.for_each(lo, hi, 1, |b, row| {
                let x = b.at(x, row, self.x_stride * F32);
                let y = b.at(y, row, self.y_stride * F32);
                let cos = b.at(cos, row, self.half * F32);
                let sin = b.at(sin, row, self.half * F32);
                b.for_each(from, to, 1, |b, head| {
                    let distance = (2 * self.half + self.rest) * F32;
                    let x = b.at(x, head, distance);
                    let y = b.at(y, head, distance);
                    self.head(b, x, cos, sin, y);
                });
            });
        })
    }

    fn head(&self, b: &mut KernelBuilder<'_>, x: Value, cos: Value, sin: Value, y: Value) {
        let (x2, y2) = (b.offset(x, self.half * F32), b.offset(y, self.half * F32));
        b.for_unrolled(self.half / LANES, 2, |b, i| {
            let [pa, pz, pc, ps] = [x, x2, cos, sin].map(|p| b.at(p, i, LANES * F32));
            let (a, z) = (b.load_group(pa), b.load_group(pz));
            let (c, s) = (b.load_group(pc), b.load_group(ps));
            let minus = b.mul(z, s);
            let minus = b.neg(minus);
            let first = b.fma(a, c, minus);
            let plus = b.mul(a, s);
            let second = b.fma(z, c, plus);
            let (pa, pz) = (b.at(y, i, LANES * F32), b.at(y2, i, LANES * F32));
            b.store(first, pa);
            b.store(second, pz);
        });
        for group in 0..self.rest / LANES {
            let at = (2 * self.half + group * LANES) * F32;
            let p = b.offset(x, at);
            let v = b.load_group(p);
            let p = b.offset(y, at);
            b.store(v, p);
        }
    }
}
