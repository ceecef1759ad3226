//! Embedding rows by id from a table in block formats.
//!
//! In: ids, packed strips ([`Blocks`]), the ones that a linear layer reads. Out:
//! `y[i] = table[ids[i]] · scale`, dequantised with the bits of the reference.

use super::{
    F32,
    block_unpack::{BlockUnpack, Unpacked},
    tag,
};
use crate::{
    blocks::{Blocks, STRIP},
    kernel::{KernelBuilder, LANES, Param, Ty},
};

/// Emits `gather(thread, threads, n: i64, ids: *i32, table: *u8, y: *f32, scratch: *u8)`; ids are
/// valid rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockGather {
    pub form: Blocks,
    /// Logical lanes of a row.
    pub width: i64,
    pub y_stride: i64,
    pub scale: Option<f32>,
}

impl BlockGather {
    pub fn symbol(&self) -> String {
        format!(
            "gather_{}_d{}_y{}{}",
            self.form.name,
            self.width,
            self.y_stride,
            self.scale
                .map_or(String::new(), |v| format!("_s{}", tag(v))),
        )
    }

    fn unpack(&self) -> BlockUnpack {
        BlockUnpack {
            form: self.form,
            to: Unpacked::F32,
        }
    }

    /// Bytes of scratch that a call uses: a unit.
    pub fn scratch_bytes(&self) -> i64 {
        self.unpack().unit_bytes()
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
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, ids, table, y, scratch] = *args else {
                unreachable!("seven parameters")
            };
            let form = &self.form;
            let unpack = self.unpack().emit(b);
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let p = b.at(ids, row, 4);
                let id = b.load_i32(p);
                let y = b.at(y, row, self.y_stride * F32);
                let strip = b.div_const(id, STRIP);
                let lane = b.rem_const(id, STRIP);
                let strip = b.at(table, strip, form.strip_bytes(self.width));
                let scales = b.offset(strip, form.rows_at(self.width));
                let lane = b.at(scratch, lane, F32);
                let (zero, one) = (b.i64(0), b.i64(1));
                let width = b.i64(self.width);
                b.for_each(zero, width, form.unit, |b, first| {
                    let unit = b.div_const(first, form.unit);
                    let from = b.at(strip, unit, 2 * form.half_bytes());
                    b.call(&unpack, &[one, from, scales, scratch], &[]);
                    let left = b.sub(width, first);
                    let most = b.i64(form.unit);
                    let count = b.min(left, most);
                    let y = b.at(y, first, F32);
                    b.for_each(zero, count, 1, |b, i| {
                        let p = b.at(lane, i, STRIP * F32);
                        let mut v = b.load(Ty::F32, p);
                        if let Some(scale) = self.scale {
                            let scale = b.f32(scale);
                            v = b.mul(v, scale);
                        }
                        let p = b.at(y, i, F32);
                        b.store(v, p);
                    });
                });
                let pads = (self.width + LANES - 1) / LANES * LANES;
                let zero = b.f32(0.0);
                for pad in self.width..pads {
                    let p = b.offset(y, pad * F32);
                    b.store(zero, p);
                }
            });
        })
    }
}
