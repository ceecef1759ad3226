//! The sum that every product with weights in block formats computes, in its one order.
//!
//! For each part of K (16 or 32 elements that share a weight scale `s`, offset `o`, minimum `m`),
//! with activation codes a of scale `t`: `acc = Σ (code − o) · a` in integers, then in f32
//! `sum = fma(f32(acc) · s, t, sum)`, then `sum = fma(−m, t · f32(Σ a), sum)`.
//!
//! Int8 weights have one scale `s` for each row, by which the sum is multiplied at its end:
//! - blocks of x: `sum = fma(f32(acc), t, sum)` for each part;
//! - rows of x: the whole of K is one part, `sum = f32(acc) · t`;
//! - pairs of codes: as rows, of which x has two, `sum = fma(f32(acc₁), t₁, f32(acc₀) · t₀)`.

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
    /// Which elements of x share a scale.
    pub group: Group,
    /// Elements of a row of x.
    pub k: i64,
}

/// Where sums are while they grow, by row and half.
pub(super) trait Sums {
    fn load(&self, b: &mut KernelBuilder<'_>, i: usize) -> Value;
    fn store(&mut self, b: &mut KernelBuilder<'_>, i: usize, sum: Value);
}

/// In registers.
impl Sums for Vec<Value> {
    fn load(&self, _: &mut KernelBuilder<'_>, i: usize) -> Value {
        self[i]
    }

    fn store(&mut self, _: &mut KernelBuilder<'_>, i: usize, sum: Value) {
        self[i] = sum;
    }
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
        RowForm::new(self.k as u32, self.group)
    }

    /// Whether a part is the whole row, so that sums are integers while they grow.
    pub fn by_row(&self) -> bool {
        self.group != Group::Block
    }

    /// Rows of codes that a row of x has.
    pub fn passes(&self) -> i64 {
        i64::from(self.group.codes())
    }

    /// Whether sums need [`Products::finish`].
    pub fn is_scaled_last(&self) -> bool {
        self.form.scales == Scales::Row
    }

    /// The row of codes at `row`, from block `block` on.
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

    /// Adds part `part` of a block, `block` blocks behind `xs`, to the sums of each row and half.
    #[allow(clippy::too_many_arguments, reason = "the operands of a product")]
    pub fn part(
        &self,
        b: &mut KernelBuilder<'_>,
        xs: &[QuantRow],
        block: i64,
        part: i64,
        halves: usize,
        sums: &mut dyn Sums,
        weights: &mut dyn Weights,
    ) {
        let form = self.row_form();
        let mut totals = Vec::new();
        let mut acc = Vec::new();
        if self.by_row() {
            acc.extend((0..xs.len() * halves).map(|i| sums.load(b, i)));
        } else {
            for x in xs {
                let (total, start) = self.totals(b, &form, x, block, part);
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
            for (i, acc) in acc.into_iter().enumerate() {
                sums.store(b, i, acc);
            }
            return;
        }
        let scales: Vec<_> = match self.is_scaled_last() {
            true => vec![None; halves],
            false => (0..halves).map(|h| Some(weights.scales(b, h))).collect(),
        };
        for (r, x) in xs.iter().enumerate() {
            let p = b.offset(x.groups, i64::from(form.scales) + block * F32);
            let t = b.load_broadcast(p);
            let shift = self.form.has_min().then(|| {
                let total = totals[r].expect("forms with minima are not bytes");
                let total = b.to_float(total, Elem::F32);
                b.mul(t, total)
            });
            for (h, scales) in scales.iter().enumerate() {
                let i = r * halves + h;
                let mut v = b.to_float(acc[i], Elem::F32);
                if let Some((s, _)) = scales {
                    v = b.mul(v, *s);
                }
                let old = sums.load(b, i);
                let mut sum = b.fma(v, t, old);
                if let (Some(shift), Some((_, Some(m)))) = (shift, scales) {
                    let m = b.neg(*m);
                    sum = b.fma(m, shift, sum);
                }
                sums.store(b, i, sum);
            }
        }
    }

    /// Σ a of a part of a block, where it is needed, and what the part's integer sums start at.
    fn totals(
        &self,
        b: &mut KernelBuilder<'_>,
        form: &RowForm,
        x: &QuantRow,
        block: i64,
        part: i64,
    ) -> (Option<Value>, Value) {
        if self.form.codes_are_bytes() {
            let p = b.offset(x.groups, i64::from(form.starts) + block * F32);
            return (None, b.load_start_wide(p));
        }
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
        (Some(total), b.start(total, self.form.offset))
    }

    /// What the sums of the row of codes at `row` start at.
    pub fn zero(&self, b: &mut KernelBuilder<'_>, row: Value) -> Value {
        if !self.by_row() {
            return b.splat(0.0);
        }
        let p = b.offset(row, i64::from(self.row_form().starts));
        b.load_start_wide(p)
    }

    /// The end of the sums of a row of x, which has [`Products::passes`] rows of codes at `rows`; `s`: the
    /// weights' scales.
    pub fn finish(
        &self,
        b: &mut KernelBuilder<'_>,
        rows: &[Value],
        sums: &[Value],
        s: Value,
    ) -> Value {
        let scales = i64::from(self.row_form().scales);
        let mut total = None;
        for (row, sum) in rows.iter().zip(sums) {
            if !self.by_row() {
                total = Some(*sum);
                continue;
            }
            let p = b.offset(*row, scales);
            let t = b.load_broadcast(p);
            let v = b.to_float(*sum, Elem::F32);
            total = Some(match total {
                Some(total) => b.fma(v, t, total),
                None => b.mul(v, t),
            });
        }
        let total = total.expect("a row of x has rows of codes");
        b.mul(total, s)
    }
}
