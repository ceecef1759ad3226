//! Rows of one matrix, some of them replaced by another's.
//!
//! In: ids, rows x and z. Out: `y[i] = ids[i] == id ? z[i] : x[i]`; y may be x itself. A z stride of 0 puts
//! one row everywhere.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Ty};

/// Emits `substitute(thread, threads, n: i64, ids: *i32, x: *f32, z: *f32, y: *f32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Substitute {
    pub id: i64,
    /// Lanes of a row, rounded up to whole groups.
    pub width: i64,
    pub x_stride: i64,
    pub z_stride: i64,
    pub y_stride: i64,
}

impl Substitute {
    pub fn symbol(&self) -> String {
        format!(
            "substitute_i{}_d{}_x{}_z{}_y{}",
            self.id, self.width, self.x_stride, self.z_stride, self.y_stride
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
            Param::ptr(),
            Param::ptr(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, ids, x, z, y] = *args else {
                unreachable!("seven parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            let id = b.int(Elem::I32, self.id);
            b.for_each(lo, hi, 1, |b, row| {
                let p = b.at(ids, row, 4);
                let here = b.load(Ty::I32, p);
                let replaced = b.eq(here, id);
                let x = b.at(x, row, self.x_stride * F32);
                let z = match self.z_stride {
                    0 => z,
                    stride => b.at(z, row, stride * F32),
                };
                let from = b.select(replaced, z, x);
                let to = b.at(y, row, self.y_stride * F32);
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
