//! One matrix product for each expert that has rows: the products of `linear` and `block_linear`, run on
//! the experts' matrices and their parts of a list of rows.
//!
//! In: rows sorted by expert, where each expert's rows start ([`super::Dispatch`]), the experts' packed
//! matrices one behind the other. Out: rows of y, sorted alike.
//!
//! Invariants: an expert without rows is not touched; a row's result is that of the product alone, so it
//! depends on neither threads nor on which rows share the expert.

use super::{BlockLinear, F32, Linear};
use crate::kernel::{KernelBuilder, Param};

/// A product with a matrix in floats or in blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Product {
    Plain(Linear),
    Blocks(BlockLinear),
}

impl Product {
    fn symbol(&self) -> String {
        match self {
            Product::Plain(p) => p.symbol(),
            Product::Blocks(p) => p.symbol(),
        }
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        match self {
            Product::Plain(p) => p.scratch_bytes(),
            Product::Blocks(p) => p.scratch_bytes(),
        }
    }

    fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        match self {
            Product::Plain(p) => p.emit(b),
            Product::Blocks(p) => p.emit(b),
        }
    }

    /// 4-byte units of a row of x, stored outputs of the matrix, floats of a row of y.
    fn strides(&self) -> (i64, i64, i64) {
        match self {
            Product::Plain(p) => (p.x_stride, p.m, p.out.y_stride),
            Product::Blocks(p) => (p.x_stride, p.m, p.out.y_stride),
        }
    }
}

/// Emits `experts(thread, threads, starts: *i32, x: *u8, w: *u8, bias: *f32, y: *f32, scratch: *u8)`:
/// starts `[experts + 1]`, w and bias `[experts]` times those of the product, which adds no residual.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    pub product: Product,
    pub experts: i64,
    /// Bytes from one expert's matrix to the next.
    pub w_bytes: i64,
}

impl Experts {
    pub fn symbol(&self) -> String {
        format!("experts{}_{}", self.experts, self.product.symbol())
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let product = self.product.emit(b);
        let (x_stride, m, y_stride) = self.product.strides();
        let params = [
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, starts, x, w, bias, y, scratch] = *args else {
                unreachable!("eight parameters")
            };
            let (zero, experts) = (b.i64(0), b.i64(self.experts));
            b.for_each(zero, experts, 1, |b, e| {
                let p = b.at(starts, e, 4);
                let from = b.load_i32(p);
                let p = b.offset(p, 4);
                let to = b.load_i32(p);
                let count = b.sub(to, from);
                let some = b.gt(count, zero);
                b.when(some, |b| {
                    // Slices of small products differ by a unit: another thread has the larger one each time.
                    let turn = b.add(thread, e);
                    let thread = b.rem(turn, threads);
                    let x = b.at(x, from, x_stride * F32);
                    let w = b.at(w, e, self.w_bytes);
                    let bias = b.at(bias, e, m * F32);
                    let y = b.at(y, from, y_stride * F32);
                    b.call(
                        &product,
                        &[thread, threads, count, x, w, bias, y, y, scratch],
                        &[],
                    );
                });
            });
        })
    }
}
