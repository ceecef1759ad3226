//! The register tile of quantised rows and a strip.
//!
//! In: rows of x, some units of a strip as [`super::block_unpack`] leaves them or, where codes are
//! bytes, as packed. Out: `acc += x · w`, in the order of [`Products`].

use super::{
    F32,
    block_linear::AHEAD,
    block_products::{BLOCK, Packed, Products, Weights},
    block_unpack::part_bytes,
};
use crate::{
    blocks::{Blocks, STRIP},
    kernel::{KernelBuilder, LANES, Param, Value},
};

/// Bytes of a vector.
const VECTOR: i64 = 64;

/// Emits `tile(rows: i64, x: *u8, first: i64, panel: *u8, acc: *u8, units: i64)`: rows of x from
/// their block `first` on, `acc` `[rows][32]`; where `first` is 0 the sums start here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockTile {
    pub products: Products,
    /// Bytes from one row of x to the next.
    pub x_bytes: i64,
}

impl BlockTile {
    fn symbol(&self) -> String {
        let form = &self.products.form;
        // What is unpacked alike is multiplied alike; codes that are bytes lie in one way for each of the two forms.
        format!(
            "block_tile_k{}_x{}_p{}_o{}{}{}{}",
            self.products.k,
            self.x_bytes,
            form.part,
            form.offset,
            if form.has_min() { "_min" } else { "" },
            if form.codes_are_bytes() { "_wide" } else { "" },
            if self.products.by_row() { "_row" } else { "" },
        )
    }

    /// Rows and halves of a register tile.
    pub fn shape(b: &KernelBuilder<'_>) -> (i64, usize) {
        if b.level().vector_registers == 32 {
            (6, 2)
        } else {
            (2, 1)
        }
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let params = [
            Param::i64(),
            Param::input(),
            Param::i64(),
            Param::input(),
            Param::output(),
            Param::i64(),
        ];
        let (most, halves) = BlockTile::shape(b);
        b.kernel(&self.symbol(), &params, |b, args| {
            let [rows, x, first, panel, acc, units] = *args else {
                unreachable!("six parameters")
            };
            let full = b.div_const(rows, most);
            let full = b.mul_const(full, most);
            let zero = b.i64(0);
            let piece = |b: &mut KernelBuilder<'_>, count: i64, row: Value, is_first: bool| {
                let x = b.at(x, row, self.x_bytes);
                let acc = b.at(acc, row, STRIP * F32);
                for half in (0..2).step_by(halves) {
                    let ahead = is_first && half == 0;
                    self.block(b, count, halves, x, first, panel, acc, units, half, ahead);
                }
            };
            let mut from = zero;
            if self.products.form.codes_are_bytes() {
                // The units are read from memory: the first rows also ask for what comes behind them.
                from = b.i64(most);
                let has_full = b.le(from, rows);
                b.when(has_full, |b| piece(b, most, zero, true));
            }
            b.for_each(from, full, most, |b, row| piece(b, most, row, false));
            let rest = b.sub(rows, full);
            for count in 1..most {
                let number = b.i64(count);
                let chosen = b.eq(rest, number);
                b.when(chosen, |b| piece(b, count, full, false));
            }
        })
    }

    /// `count` rows by `halves` halves from `half` on; `ahead`: also asks for later units.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are the function's parameters"
    )]
    fn block(
        &self,
        b: &mut KernelBuilder<'_>,
        count: i64,
        halves: usize,
        x: Value,
        first: Value,
        panel: Value,
        acc: Value,
        units: Value,
        half: i64,
        ahead: bool,
    ) {
        let products = &self.products;
        let form = &products.form;
        let at = |i: usize| {
            let (row, h) = ((i / halves) as i64, (i % halves) as i64);
            (row * STRIP + (half + h) * LANES) * F32
        };
        let sums = count as usize * halves;
        let xs: Vec<Value> = (0..count).map(|r| b.offset(x, r * self.x_bytes)).collect();
        let zero = b.i64(0);
        let fresh = b.eq(first, zero);
        let start = b.choose(
            fresh,
            |b| {
                (0..sums)
                    .map(|i| products.zero(b, xs[i / halves]))
                    .collect()
            },
            |b| {
                (0..sums)
                    .map(|i| {
                        let p = b.offset(acc, at(i));
                        b.load(products.sum_ty(), p)
                    })
                    .collect()
            },
        );
        let rows: Vec<_> = xs.iter().map(|x| products.at(b, *x, first)).collect();
        let packed = form.codes_are_bytes();
        let (from, bytes) = match packed {
            true => (half * form.half_bytes(), 2 * form.half_bytes()),
            false => (half * VECTOR, form.parts() * part_bytes(form)),
        };
        let panel = b.offset(panel, from);
        let end = b.for_carried(zero, units, 1, &start, |b, unit, sums| {
            let mut sums = sums.to_vec();
            let block = b.mul_const(unit, form.unit / BLOCK);
            let rows: Vec<_> = rows.iter().map(|r| r.skip(b, block)).collect();
            let at = b.at(panel, unit, bytes);
            if ahead {
                b.prefetch(at, AHEAD, bytes);
            }
            for part in 0..form.parts() {
                let first = part * form.part;
                let (block, in_block) = (first / BLOCK, first % BLOCK / form.part);
                let weights: &mut dyn Weights = match packed {
                    true => &mut Packed { form, at, part },
                    false => {
                        let at = b.offset(at, part * part_bytes(form));
                        &mut Panel { form, at }
                    }
                };
                products.part(b, &rows, block, in_block, halves, &mut sums, weights);
            }
            sums
        });
        for (i, v) in end.into_iter().enumerate() {
            let p = b.offset(acc, at(i));
            b.store(v, p);
        }
    }
}

/// A part of an unpacked panel, from some half on.
struct Panel<'a> {
    form: &'a Blocks,
    at: Value,
}

impl Panel<'_> {
    fn vector(&self, b: &mut KernelBuilder<'_>, i: i64, half: usize) -> Value {
        b.offset(self.at, (2 * i + half as i64) * VECTOR)
    }
}

impl Weights for Panel<'_> {
    fn codes(&mut self, b: &mut KernelBuilder<'_>, group: i64, half: usize) -> Value {
        let p = self.vector(b, group, half);
        b.load_bytes(p)
    }

    fn scales(&mut self, b: &mut KernelBuilder<'_>, half: usize) -> (Value, Option<Value>) {
        let groups = self.form.part / 4;
        let scale = self.vector(b, groups, half);
        let scale = b.load_group(scale);
        let min = self.form.has_min().then(|| {
            let min = self.vector(b, groups + 1, half);
            b.load_group(min)
        });
        (scale, min)
    }
}
