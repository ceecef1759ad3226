//! The register tile of quantised rows and a strip.
//!
//! In: rows of x, some units of a strip as [`super::block_unpack`] leaves them or, where codes are
//! bytes, as packed. Out: `acc += x · w`, in the order of [`Products`].
//!
//! Registers hold the integer sums of a part. Those in f32, which only the end of a part reads, stay in
//! `acc`: so there is room for rows enough that their chains hide a product's latency.

use super::{
    F32,
    block_linear::AHEAD,
    block_products::{BLOCK, Packed, Products, QuantRow, Sums, Weights},
    block_unpack::part_bytes,
};
use crate::{
    blocks::{Blocks, STRIP},
    kernel::{GROUP, KernelBuilder, LANES, Param, Value},
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
            match (self.products.is_scaled_last(), self.products.by_row()) {
                (true, true) => "_row",
                (true, false) => "_last",
                (false, _) => "",
            },
        )
    }

    /// Rows and halves of a register tile.
    pub fn shape(b: &KernelBuilder<'_>) -> (i64, usize) {
        if b.level().vector_registers == 32 {
            (8, 2)
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
        let sums = InAcc { acc, halves, half };
        let number = count as usize * halves;
        let xs: Vec<Value> = (0..count).map(|r| b.offset(x, r * self.x_bytes)).collect();
        let rows: Vec<_> = xs.iter().map(|x| products.at(b, *x, first)).collect();
        let form = &products.form;
        let (from, bytes) = match form.codes_are_bytes() {
            true => (half * form.half_bytes(), 2 * form.half_bytes()),
            false => (half * VECTOR, form.parts() * part_bytes(form)),
        };
        let panel = b.offset(panel, from);
        let unit = |b: &mut KernelBuilder<'_>, unit: Value, sums: &mut dyn Sums| {
            let at = b.at(panel, unit, bytes);
            if ahead {
                b.prefetch(at, AHEAD, bytes);
            }
            self.unit(b, &rows, unit, at, halves, sums);
        };
        let zero = b.i64(0);
        let fresh = b.eq(first, zero);
        if !products.by_row() {
            b.when(fresh, |b| {
                let zeros = b.splat(0.0);
                (0..number).for_each(|i| sums.put(b, i, zeros));
            });
            b.for_each(zero, units, 1, |b, i| unit(b, i, &mut sums.clone()));
            return;
        }
        let start = b.choose(
            fresh,
            |b| {
                let rows = (0..number).map(|i| xs[i / halves]);
                rows.map(|x| products.zero(b, x)).collect()
            },
            |b| {
                let get = |i| {
                    let p = sums.at(b, i);
                    b.load(products.sum_ty(), p)
                };
                (0..number).map(get).collect()
            },
        );
        let end = b.for_carried(zero, units, 1, &start, |b, i, carried| {
            let mut carried = carried.to_vec();
            unit(b, i, &mut carried);
            carried
        });
        for (i, v) in end.into_iter().enumerate() {
            sums.put(b, i, v);
        }
    }

    /// Adds the products with the unit at `at`, number `unit`.
    fn unit(
        &self,
        b: &mut KernelBuilder<'_>,
        rows: &[QuantRow],
        unit: Value,
        at: Value,
        halves: usize,
        sums: &mut dyn Sums,
    ) {
        let form = &self.products.form;
        let block = b.mul_const(unit, form.unit / BLOCK);
        let rows: Vec<_> = rows.iter().map(|r| r.skip(b, block)).collect();
        for part in 0..form.parts() {
            let first = part * form.part;
            let (block, in_block) = (first / BLOCK, first % BLOCK / form.part);
            let weights: &mut dyn Weights = match form.codes_are_bytes() {
                true => &mut Packed { form, at, part },
                false => {
                    let at = b.offset(at, part * part_bytes(form));
                    &mut Panel { form, at }
                }
            };
            self.products
                .part(b, &rows, block, in_block, halves, sums, weights);
        }
    }
}

/// Sums of a tile in `[rows][32]`, from half `half` on.
#[derive(Clone, Copy)]
struct InAcc {
    acc: Value,
    halves: usize,
    half: i64,
}

impl InAcc {
    fn at(&self, b: &mut KernelBuilder<'_>, i: usize) -> Value {
        let (row, half) = ((i / self.halves) as i64, (i % self.halves) as i64);
        b.offset(self.acc, (row * STRIP + (self.half + half) * LANES) * F32)
    }

    fn put(&self, b: &mut KernelBuilder<'_>, i: usize, sum: Value) {
        let p = self.at(b, i);
        b.store(sum, p);
    }
}

impl Sums for InAcc {
    fn load(&self, b: &mut KernelBuilder<'_>, i: usize) -> Value {
        let p = self.at(b, i);
        b.load(GROUP, p)
    }

    fn store(&mut self, b: &mut KernelBuilder<'_>, i: usize, sum: Value) {
        self.put(b, i, sum);
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
