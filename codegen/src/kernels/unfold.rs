//! Every token's neighbourhood in one row, for a convolution along sequences.
//!
//! In: rows `[n][x_stride]` of whole sequences. Out: rows `[n][y_stride]`, element `c · width + t` being
//! element c of the token t − (width − 1) / 2 further on, 0 outside of the sequence. Nothing overlaps.

use super::F32;
use crate::kernel::{KernelBuilder, LANES, Param, Ty, Value};

/// Emits `unfold(thread, threads, n: i64, seq: *i32, q_start: *i32, x: *f32, y: *f32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfold {
    /// Tokens of a neighbourhood; odd.
    pub width: i64,
    /// Elements of a row of x.
    pub columns: i64,
    pub x_stride: i64,
    pub y_stride: i64,
}

impl Unfold {
    pub fn symbol(&self) -> String {
        format!(
            "unfold_w{}_d{}_x{}_y{}",
            self.width, self.columns, self.x_stride, self.y_stride
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
            Param::input(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, seq, q_start, x, y] = *args else {
                unreachable!("seven parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, token| {
                let p = b.at(seq, token, 4);
                let sequence = b.load_i32(p);
                let p = b.at(q_start, sequence, 4);
                let start = b.load_i32(p);
                let p = b.offset(p, 4);
                let end = b.load_i32(p);
                let row = b.at(y, token, self.y_stride * F32);
                self.clear_padding(b, row);
                for t in 0..self.width {
                    let from = b.add_const(token, t - (self.width - 1) / 2);
                    let behind = b.ge(from, start);
                    let before = b.lt(from, end);
                    let inside = b.and(behind, before);
                    let to = b.offset(row, t * F32);
                    b.choose(
                        inside,
                        |b| {
                            let from = b.at(x, from, self.x_stride * F32);
                            b.for_unrolled(self.columns, 4, |b, c| {
                                let p = b.at(from, c, F32);
                                let v = b.load(Ty::F32, p);
                                let p = b.at(to, c, self.width * F32);
                                b.store(v, p);
                            });
                            Vec::new()
                        },
                        |b| {
                            let zero = b.f32(0.0);
                            b.for_unrolled(self.columns, 4, |b, c| {
                                let p = b.at(to, c, self.width * F32);
                                b.store(zero, p);
                            });
                            Vec::new()
                        },
                    );
                }
            });
        })
    }

    /// Zeros behind the elements of a row, up to whole groups.
    fn clear_padding(&self, b: &mut KernelBuilder<'_>, row: Value) {
        let used = self.columns * self.width;
        if used % LANES != 0 {
            let zeros = b.splat(0.0);
            let p = b.offset(row, used / LANES * LANES * F32);
            b.store(zeros, p);
        }
    }
}
