//! Functions of one or two rows, lane by lane.
//!
//! In: rows a and b. Out: rows y; y may be a or b itself. Pad lanes stay zero.

use super::{Activation, F32, tag};
use crate::kernel::{KernelBuilder, LANES, Param, Value};

/// What is done to each lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowOp {
    /// `a + b`
    Add,
    /// `a · b`
    Mul,
    /// `a + b[0]`: one row b for all rows a.
    AddVector,
    /// `a · factor`
    Scale(f32),
    /// `activation(a)`
    Activate(Activation),
    /// `cap · tanh(a / cap)`
    Softcap(f32),
    /// `activation(a) · b`; give `b = a + half` for the two halves of one row.
    Gate(Activation),
}

/// Emits `elementwise(thread, threads, n: i64, a: *f32, b: *f32, y: *f32)`: rows
/// `[n, stride]`; `b` is not read by operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elementwise {
    pub op: RowOp,
    /// Logical lanes of a row.
    pub width: i64,
    pub a_stride: i64,
    pub b_stride: i64,
    pub y_stride: i64,
}

impl Elementwise {
    pub fn symbol(&self) -> String {
        let op = match self.op {
            RowOp::Add => "add".to_string(),
            RowOp::Mul => "mul".to_string(),
            RowOp::AddVector => "addvec".to_string(),
            RowOp::Scale(v) => format!("scale{}", tag(v)),
            RowOp::Activate(f) => f.name().to_string(),
            RowOp::Softcap(v) => format!("softcap{}", tag(v)),
            RowOp::Gate(f) => format!("gate_{}", f.name()),
        };
        format!(
            "row_{op}_d{}_a{}_b{}_y{}",
            self.width, self.a_stride, self.b_stride, self.y_stride
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
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, z, y] = *args else {
                unreachable!("six parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let x = b.at(x, row, self.a_stride * F32);
                let z = match self.op {
                    RowOp::AddVector => z,
                    _ => b.at(z, row, self.b_stride * F32),
                };
                let y = b.at(y, row, self.y_stride * F32);
                let whole = self.width / LANES;
                b.for_unrolled(whole, 4, |b, i| self.group(b, x, z, y, i, LANES));
                if self.width % LANES != 0 {
                    let last = b.i64(whole);
                    self.group(b, x, z, y, last, self.width % LANES);
                }
            });
        })
    }

    fn group(&self, b: &mut KernelBuilder<'_>, x: Value, z: Value, y: Value, i: Value, valid: i64) {
        let p = b.at(x, i, LANES * F32);
        let v = b.load_group(p);
        let other = |b: &mut KernelBuilder<'_>| {
            let p = b.at(z, i, LANES * F32);
            b.load_group(p)
        };
        let r = match self.op {
            RowOp::Add | RowOp::AddVector => {
                let o = other(b);
                b.add(v, o)
            }
            RowOp::Mul => {
                let o = other(b);
                b.mul(v, o)
            }
            RowOp::Scale(factor) => {
                let factor = b.splat(factor);
                b.mul(v, factor)
            }
            RowOp::Activate(f) => {
                let r = f.apply(b, v);
                if valid < LANES && !f.keeps_zero() {
                    let mask = b.lane_mask(valid);
                    b.mul(r, mask)
                } else {
                    r
                }
            }
            RowOp::Softcap(cap) => b.softcap(v, cap),
            RowOp::Gate(f) => {
                let o = other(b);
                let r = f.apply(b, v);
                b.mul(r, o)
            }
        };
        let p = b.at(y, i, LANES * F32);
        b.store(r, p);
    }
}
