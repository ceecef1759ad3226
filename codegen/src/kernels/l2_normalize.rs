//! Rows scaled to length 1.
//!
//! In: rows x. Out: `y = x / max(‖x‖, eps)`; in place is fine.

use super::{F32, tag};
use crate::kernel::{KernelBuilder, LANES, Param};

/// Emits `l2_normalize(thread, threads, n: i64, x: *f32, y: *f32)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct L2Normalize {
    /// The least length to divide by.
    pub eps: f32,
    /// Lanes of a row, rounded up to whole groups; pads are zero.
    pub width: i64,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl L2Normalize {
    pub fn symbol(&self) -> String {
        format!(
            "l2_normalize_e{}_d{}_x{}_y{}",
            tag(self.eps),
            self.width,
            self.x_stride,
            self.y_stride
        )
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::ptr(),
            Param::ptr(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, y] = *args else {
                unreachable!("five parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let x = b.at(x, row, self.x_stride * F32);
                let y = b.at(y, row, self.y_stride * F32);
                let zeros = b.splat(0.0);
                let groups = (self.width + LANES - 1) / LANES;
                let squares = b.for_unrolled_carried(groups, 4, &[zeros], |b, i, sum| {
                    let p = b.at(x, i, LANES * F32);
                    let v = b.load_group(p);
                    vec![b.fma(v, v, sum[0])]
                })[0];
                let sum = b.sum_lanes(squares);
                let length = b.sqrt(sum);
                let least = b.f32(self.eps);
                let length = b.max(length, least);
                let length = b.broadcast(length);
                b.for_unrolled(groups, 4, |b, i| {
                    let p = b.at(x, i, LANES * F32);
                    let v = b.load_group(p);
                    let v = b.div(v, length);
                    let p = b.at(y, i, LANES * F32);
                    b.store(v, p);
                });
            });
        })
    }
}
