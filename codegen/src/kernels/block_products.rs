//! The sum that every product with weights in block formats computes, in its one order.
//!
//! For each part of K (16 or 32 elements that share a weight scale `s`, offset `o`, minimum `m`),
//! with activation codes a of scale `t`: `acc = Σ (code − o) · a` in integers, then in f32
//! `sum = fma(f32(acc) · s, t, sum)`, then `sum = fma(−m, t · f32(Σ a), sum)`.
//! Int8 rows have one part, the whole row.

use super::F32;
use crate::{
    blocks::{Blocks, Scales},
    kernel::{Elem, GROUP, KernelBuilder, SUMS, Ty, Value},
};
use llmc_ir::{Group, quant::activation::RowForm};

/// Elements of an activation block.
pub(super) const BLOCK: i64 = 32;

/// A product of quantised rows with weights of one form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Products {
    pub form: Blocks,
    /// Elements of a row of x.
    pub k: i64,
}

/// Where a part's weights come from.
pub(super) trait Weights {
    /// The codes of group `group` of half `half`.
    fn codes(&mut self, b: &mut KernelBuilder<'_>, group: i64, half: usize) -> Value;

    /// Scale and minimum of half `half`.
    fn scales(&mut self, b: &mut KernelBuilder<'_>, half: usize) -> (Value, Option<Value>);
}

/// A part of a unit as packed, from some half on.
pub(super) struct Packed<'a> {
    pub form: &'a Blocks,
    pub at: Value,
    pub part: i64,
}

impl Packed<'_> {
    fn half(&self, b: &mut KernelBuilder<'_>, half: usize) -> Value {
        b.offset(self.at, half as i64 * self.form.half_bytes())
    }
}

impl Weights for Packed<'_> {
    fn codes(&mut self, b: &mut KernelBuilder<'_>, group: i64, half: usize) -> Value {
        let group = self.part * self.form.part / 4 + group;
        let at = self.half(b, half);
        self.form.load_group(b, at, group)
    }

    fn scales(&mut self, b: &mut KernelBuilder<'_>, half: usize) -> (Value, Option<Value>) {
        let at = self.half(b, half);
        self.form.load_scales(b, at, self.part)
    }
}

/// A quantised row of x at some block: pointers that advance by 32, 4 and 8 bytes a block.
#[derive(Clone, Copy)]
pub(super) struct QuantRow {
    codes: Value,
    groups: Value,
    halves: Value,
}

impl QuantRow {
    /// The row `blocks` blocks on.
    pub fn skip(&self, b: &mut KernelBuilder<'_>, blocks: Value) -> QuantRow {
        QuantRow {
            codes: b.at(self.codes, blocks, BLOCK),
            groups: b.at(self.groups, blocks, F32),
            halves: b.at(self.halves, blocks, 2 * F32),
        }
    }
}

impl Products {
    /// How rows of x lie.
    pub fn row_form(&self) -> RowForm {
        let group = match self.form.scales {
            Scales::Row => Group::Row,
            _ => Group::Block,
        };
        RowForm::new(self.k as u32, group)
    }

    /// Whether parts are rows.
    pub fn by_row(&self) -> bool {
        self.form.scales == Scales::Row
    }

    /// The row at `row`, from block `block` on.
    pub fn at(&self, b: &mut KernelBuilder<'_>, row: Value, block: Value) -> QuantRow {
        let start = QuantRow {
            codes: row,
            groups: row,
            halves: row,
        };
        start.skip(b, block)
    }

    /// The type of a sum while it grows.
    pub fn sum_ty(&self) -> Ty {
        if self.by_row() { SUMS } else { GROUP }
    }

    /// Adds part `part` of a block, `block` blocks behind `xs`, to `sums[row][half]`.
    ///
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub fn part(
        &self,
        b: &mut KernelBuilder<'_>,
        xs: &[QuantRow],
        block: i64,
        part: i64,
        halves: usize,
        sums: &mut [Value],
        weights: &mut dyn Weights,
    ) {
        let form = self.row_form();
        let mut totals = Vec::new();
        let mut acc = Vec::new();
        if self.by_row() {
            acc.extend_from_slice(sums);
        } else {
            for x in xs {
                let p = if self.form.part == BLOCK {
                    b.offset(x.groups, i64::from(form.sums) + block * F32)
                } else {
                    b.offset(
                        x.halves,
                        i64::from(form.half_sums) + (2 * block + part) * F32,
                    )
                };
                let total = b.load(Ty::I32, p);
                let total = b.broadcast(total);
                let start = self.start(b, total);
                acc.extend(vec![start; halves]);
                totals.push(total);
            }
        }
        for group in 0..self.form.part / 4 {
            let codes: Vec<Value> = (0..halves).map(|h| weights.codes(b, group, h)).collect();
            for (r, x) in xs.iter().enumerate() {
                let at = block * BLOCK + part * self.form.part + group * 4;
                let p = b.offset(x.codes, at);
                let four = b.load_four(p);
                for (h, w) in codes.iter().enumerate() {
                    let i = r * halves + h;
                    acc[i] = if self.form.codes_are_bytes() {
                        b.dot_wide(acc[i], *w, four)
                    } else {
                        b.dot_u8_s8(acc[i], *w, four)
                    };
                }
            }
        }
        if self.by_row() {
            sums.copy_from_slice(&acc);
            return;
        }
        let scales: Vec<_> = (0..halves).map(|h| weights.scales(b, h)).collect();
        for (r, x) in xs.iter().enumerate() {
            let p = b.offset(x.groups, i64::from(form.scales) + block * F32);
            let t = b.load_broadcast(p);
            for (h, (s, _)) in scales.iter().enumerate() {
                let i = r * halves + h;
                let v = b.to_float(acc[i], Elem::F32);
                let v = b.mul(v, *s);
                sums[i] = b.fma(v, t, sums[i]);
            }
            if self.form.has_min() {
                let total = b.to_float(totals[r], Elem::F32);
                let shift = b.mul(t, total);
                for (h, (_, m)) in scales.iter().enumerate() {
                    let i = r * halves + h;
                    let m = m.expect("the form has minima");
                    let m = b.neg(m);
                    sums[i] = b.fma(m, shift, sums[i]);
                }
            }
        }
    }

    /// What an integer sum starts at; `total` is Σ a.
    pub fn start(&self, b: &mut KernelBuilder<'_>, total: Value) -> Value {
        if self.form.codes_are_bytes() {
            b.start_wide(total)
        } else {
            b.start(total, self.form.offset)
        }
    }

    /// What the sums of the row at `row` start at.
    pub fn zero(&self, b: &mut KernelBuilder<'_>, row: Value) -> Value {
        if !self.by_row() {
            return b.splat(0.0);
        }
        let p = b.offset(row, i64::from(self.row_form().sums));
        let total = b.load(Ty::I32, p);
        let total = b.broadcast(total);
        self.start(b, total)
    }

    /// The f32 sum of an integer sum over the whole of the row at `row`, with weight scales `s`.
    pub fn finish(&self, b: &mut KernelBuilder<'_>, row: Value, sum: Value, s: Value) -> Value {
        let p = b.offset(row, i64::from(self.row_form().scales));
        let t = b.load_broadcast(p);
        let v = b.to_float(sum, Elem::F32);
        let v = b.mul(v, s);
        b.mul(v, t)
    }
}
