//! Copying chosen rows together.
//!
//! In: rows, a list of row numbers. Out: `y[i] = x[rows[i]]`. Nothing overlaps.

use super::F32;
use crate::kernel::{KernelBuilder, LANES, Param};

/// Emits `select_rows(thread, threads, count: i64, rows: *i32, x: *f32, y: *f32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectRows {
    /// Lanes of a row, rounded up to whole groups.
    pub width: i64,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl SelectRows {
    pub fn symbol(&self) -> String {
        format!(
            "select_rows_d{}_x{}_y{}",
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
            let [thread, threads, count, rows, x, y] = *args else {
                unreachable!("six parameters")
            };
            let (lo, hi) = b.slice(thread, threads, count);
            b.for_each(lo, hi, 1, |b, i| {
                let p = b.at(rows, i, 4);
                let row = b.load_i32(p);
                let from = b.at(x, row, self.x_stride * F32);
                let to = b.at(y, i, self.y_stride * F32);
                b.for_unrolled((self.width + LANES - 1) / LANES, 4, |b, g| {
                    let p = b.at(from, g, LANES * F32);
                    let v = b.load_group(p);
                    let p = b.at(to, g, LANES * F32);
                    b.store(v, p);
                });
            });
        })
    }
}
