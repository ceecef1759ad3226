//! `y = epilogue(x · Wᵀ)` over weights in block formats.
//!
//! In: rows of x, quantised or f32; packed strips ([`Blocks`]); bias, residual. Out: rows of y.
//!
//! - Few rows: the work units are strips, read once from memory as one stream and decoded in
//!   registers.
//! - Many rows: the work units are (strip, tile of rows), strip by strip; a piece of the strip is
//!   unpacked into scratch, where all its rows pass.
//! - Both compute the sums of [`Products`], so results do not depend on which of them runs.
//! - f32 rows: strips are dequantised into scratch, then it is a product in f32, k = 0, 1, 2, …
//!
//! Not here: quantisation of x.

use super::{
    Epilogue, F32, TILE_ROWS, Tile,
    block_products::{BLOCK, Packed, Products},
    block_tile::BlockTile,
    block_unpack::{BlockUnpack, Unpacked},
    epilogue::Target,
};
use crate::{
    blocks::{Blocks, STRIP},
    kernel::{Elem, GROUP, KernelBuilder, LANES, Param, Value},
};
use llmc_ir::Group;

/// Most rows of the path for few.
const FEW_ROWS: i64 = 8;
/// Rows whose sums are in scratch at a time.
const BLOCK_ROWS: i64 = 192;
/// Elements of K that are unpacked at a time: as codes, and as f32.
const CODES_K: i64 = 512;
const F32_K: i64 = 256;
/// How far ahead of its use a packed weight is asked for, in bytes: where there is much to compute, so few loads
/// are under way that the hardware's own prefetching, which ends with each page, comes late. A single row of bytes
/// computes little and needs none.
pub(super) const AHEAD: i64 = 8192;

/// The type of x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    F32,
    /// Codes and scales; block formats read blocks, int8 rows any.
    Q8(Group),
}

/// A linear layer.
///
/// Emits `linear(thread, threads, n: i64, x: *u8, w: *u8, bias: *f32, residual: *f32, y: *f32,
/// scratch: *u8)`: x `[n]` rows, w `[m/32]` strips, bias `[m]`, residual and y `[n, stride]`.
/// Without bias or residual their pointers are not read. `residual` may be `y` itself; x overlaps
/// neither.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockLinear {
    /// Logical inputs: a multiple of the format's block.
    pub k: i64,
    /// Stored rows of W, a multiple of 32 (gate and up rows both count under `glu`).
    pub m: i64,
    /// 4-byte units from one row of x to the next.
    pub x_stride: i64,
    pub form: Blocks,
    pub input: Input,
    pub out: Epilogue,
}

/// The parameters at run time.
#[derive(Clone, Copy)]
struct Args {
    n: Value,
    x: Value,
    w: Value,
    to: Target,
    /// `[rows][32]` sums.
    sums: Value,
    /// An unpacked piece of a strip.
    panel: Value,
}

impl BlockLinear {
    pub fn symbol(&self) -> String {
        let input = match self.input {
            Input::F32 => "f32",
            Input::Q8(Group::Block) => "q8",
            Input::Q8(Group::Row) => "q8row",
            Input::Q8(Group::Pair) => "q8pair",
        };
        format!(
            "block_linear_k{}_m{}_x{}_{input}_{}_{}",
            self.k,
            self.m,
            self.x_stride,
            self.form.name,
            self.out.name()
        )
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        let units = self.chunk_units().min(self.form.units(self.k));
        let unpacked = self.unpack().map_or(0, |u| units * u.unit_bytes());
        BLOCK_ROWS * STRIP * F32 + unpacked
    }

    /// What many rows pass through; None: through the strip as packed.
    fn unpack(&self) -> Option<BlockUnpack> {
        let to = match self.input {
            Input::F32 => Unpacked::F32,
            Input::Q8(_) if self.form.codes_are_bytes() => return None,
            Input::Q8(_) => Unpacked::Codes,
        };
        let form = self.form;
        Some(BlockUnpack { form, to })
    }

    /// The products of quantised rows; None: of rows in f32.
    fn products(&self) -> Option<Products> {
        match self.input {
            Input::F32 => None,
            Input::Q8(group) => Some(Products {
                form: self.form,
                group,
                k: self.k,
            }),
        }
    }

    /// Bytes from one row of codes to the next.
    fn codes_bytes(&self, products: &Products) -> i64 {
        match products.passes() {
            1 => self.x_stride * F32,
            _ => i64::from(products.row_form().each),
        }
    }

    /// Rows of a work unit of the path for many: a multiple of every level's tile.
    fn unit_rows(&self) -> i64 {
        match self.input {
            Input::F32 => TILE_ROWS,
            Input::Q8(_) => 8,
        }
    }

    fn chunk_units(&self) -> i64 {
        match self.input {
            Input::F32 => F32_K / self.form.unit,
            Input::Q8(_) => CODES_K / self.form.unit,
        }
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let by_row = self
            .products()
            .map_or(self.form == Blocks::INT8, |p| p.by_row());
        assert!(
            self.m % STRIP == 0 && (by_row || self.k % self.form.block == 0),
            "rows are whole strips, columns whole blocks"
        );
        if let Some(products) = self.products() {
            assert!(
                products.is_scaled_last() || !products.by_row(),
                "scales of blocks meet scales of blocks"
            );
            assert!(
                products.passes() == 1
                    || self.x_stride * F32 == self.codes_bytes(&products) * products.passes(),
                "the rows of codes of all rows are one behind the other"
            );
        }
        let strips = self.out.panels(STRIP);
        assert!(strips <= self.m / STRIP, "the strips hold the outputs");
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::ptr(),
            Param::ptr(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, x, w, bias, residual, y, scratch] = *args else {
                unreachable!("nine parameters")
            };
            let panel = b.offset(scratch, BLOCK_ROWS * STRIP * F32);
            let a = Args {
                n,
                x,
                w,
                to: Target { bias, residual, y },
                sums: scratch,
                panel,
            };
            let Some(products) = self.products() else {
                return self.many(b, a, thread, threads, strips);
            };
            let limit = b.i64(FEW_ROWS);
            let few = b.le(n, limit);
            b.choose(
                few,
                |b| {
                    self.few(b, a, products, thread, threads, strips);
                    Vec::new()
                },
                |b| {
                    self.many(b, a, thread, threads, strips);
                    Vec::new()
                },
            );
        })
    }

    /// A slice of the strips, all rows.
    fn few(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        products: Products,
        thread: Value,
        threads: Value,
        strips: i64,
    ) {
        let strips = b.i64(strips);
        let (lo, hi) = b.slice(thread, threads, strips);
        // Rows that are multiplied at once: as many rows of codes as registers hold.
        let passes = products.passes();
        let sizes: &[i64] = match (b.level().vector_registers == 32, passes) {
            (true, 1) => &[4, 2, 1],
            (true, _) => &[2, 1],
            (false, _) => &[1],
        };
        let kernels: Vec<String> = sizes
            .iter()
            .map(|r| self.emit_rows(b, products, *r))
            .collect();
        let zero = b.i64(0);
        b.for_each(lo, hi, 1, |b, strip| {
            let w = b.at(a.w, strip, self.form.strip_bytes(self.k));
            let mut done = zero;
            for (size, kernel) in sizes.iter().zip(&kernels) {
                let left = b.sub(a.n, done);
                let count = b.div_const(left, *size);
                let count = b.mul_const(count, *size);
                let end = b.add(done, count);
                b.for_each(done, end, *size, |b, row| {
                    let x = b.at(a.x, row, self.x_stride * F32);
                    let sums = b.at(a.sums, row, STRIP * F32);
                    b.call(kernel, &[x, w, sums], &[]);
                });
                done = end;
            }
            self.out.write(b, a.to, a.sums, STRIP, strip, zero, a.n);
        });
    }

    /// Emits `rows(x: *u8, w: *u8, sums: *f32)`: the sums of `rows` rows with one strip.
    fn emit_rows(&self, b: &mut KernelBuilder<'_>, products: Products, rows: i64) -> String {
        let name = format!(
            "block_rows{rows}_k{}_x{}_{}_{:?}",
            self.k, self.x_stride, self.form.name, products.group
        );
        let form = &self.form;
        let passes = products.passes();
        let params = [Param::input(), Param::input(), Param::output()];
        b.kernel(&name, &params, |b, args| {
            let [x, w, out] = *args else {
                unreachable!("three parameters")
            };
            let xs: Vec<Value> = (0..rows * passes)
                .map(|r| b.offset(x, r * self.codes_bytes(&products)))
                .collect();
            let start: Vec<Value> = xs.iter().map(|x| products.zero(b, *x)).collect();
            let start = start.repeat(2);
            // Halves go one by one, for what is of one loop turn is interleaved by the scheduler, and
            // memory likes one sequential stream. The sums of the half at hand come first.
            let (zero, halves) = (b.i64(0), b.i64(2 * form.units(self.k)));
            let sums = b.for_carried(zero, halves, 1, &start, |b, half, sums| {
                let (sums, others) = sums.split_at(xs.len());
                let mut sums = sums.to_vec();
                let unit = b.div_const(half, 2);
                let block = b.mul_const(unit, form.unit / BLOCK);
                let rows: Vec<_> = xs.iter().map(|x| products.at(b, *x, block)).collect();
                let at = b.at(w, half, form.half_bytes());
                if !form.codes_are_bytes() {
                    b.prefetch(at, AHEAD, form.half_bytes());
                }
                for part in 0..form.parts() {
                    let first = part * form.part;
                    let mut weights = Packed { form, at, part };
                    let (block, part) = (first / BLOCK, first % BLOCK / form.part);
                    products.part(b, &rows, block, part, 1, &mut sums, &mut weights);
                }
                [others, &sums].concat()
            });
            let passes = passes as usize;
            for (half, sums) in (0..).zip(sums.chunks(xs.len())) {
                let rows = xs.chunks(passes).zip(sums.chunks(passes));
                for (row, (codes, sums)) in (0..).zip(rows) {
                    let v = if products.is_scaled_last() {
                        let s = self.row_scales(b, w, half);
                        products.finish(b, codes, sums, s)
                    } else {
                        sums[0]
                    };
                    let p = b.offset(out, (row * STRIP + half * LANES) * F32);
                    b.store(v, p);
                }
            }
        })
    }

    /// The scales of half `half` of the rows of the strip at `w`.
    fn row_scales(&self, b: &mut KernelBuilder<'_>, w: Value, half: i64) -> Value {
        let s = b.offset(w, self.form.rows_at(self.k) + half * LANES * F32);
        b.load_group(s)
    }

    /// A slice of the grid of strips and tiles of rows.
    fn many(&self, b: &mut KernelBuilder<'_>, a: Args, thread: Value, threads: Value, strips: i64) {
        let tiles = b.ceil_div_const(a.n, self.unit_rows());
        let units = b.mul_const(tiles, strips);
        let slice = b.slice(thread, threads, units);
        b.for_runs(slice, tiles, |b, strip, from, to| {
            let from = b.mul_const(from, self.unit_rows());
            let to = b.mul_const(to, self.unit_rows());
            let to = b.min(to, a.n);
            let w = b.at(a.w, strip, self.form.strip_bytes(self.k));
            let block_rows = BLOCK_ROWS / self.products().map_or(1, |p| p.passes());
            b.for_each(from, to, block_rows, |b, row| {
                let left = b.sub(to, row);
                let most = b.i64(block_rows);
                let rows = b.min(left, most);
                let x = b.at(a.x, row, self.x_stride * F32);
                match self.products() {
                    None => self.exact(b, a, x, rows, w),
                    Some(products) => self.quantised(b, a, products, x, rows, w),
                }
                self.out.write(b, a.to, a.sums, STRIP, strip, row, rows);
            });
        });
    }

    /// Calls `body(first unit, units, where they are unpacked)` for each piece of K. Codes that are bytes stay
    /// where they are.
    fn chunks(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        w: Value,
        body: impl FnOnce(&mut KernelBuilder<'_>, Value, Value, Value),
    ) {
        let unpack = self.unpack().map(|unpack| unpack.emit(b));
        let (zero, units) = (b.i64(0), b.i64(self.form.units(self.k)));
        b.for_each(zero, units, self.chunk_units(), |b, unit| {
            let left = b.sub(units, unit);
            let most = b.i64(self.chunk_units());
            let count = b.min(left, most);
            let from = b.at(w, unit, 2 * self.form.half_bytes());
            let Some(unpack) = &unpack else {
                return body(b, unit, count, from);
            };
            let scales = b.offset(w, self.form.rows_at(self.k));
            b.call(unpack, &[count, from, scales, a.panel], &[]);
            body(b, unit, count, a.panel);
        });
    }

    /// Sums of quantised rows.
    fn quantised(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        products: Products,
        x: Value,
        rows: Value,
        w: Value,
    ) {
        let passes = products.passes();
        let x_bytes = self.codes_bytes(&products);
        let tile = BlockTile { products, x_bytes }.emit(b);
        self.chunks(b, a, w, |b, unit, count, panel| {
            let first = b.mul_const(unit, self.form.unit / BLOCK);
            let rows = b.mul_const(rows, passes);
            b.call(&tile, &[rows, x, first, panel, a.sums, count], &[]);
        });
        if !products.is_scaled_last() {
            return;
        }
        // Rows of x come after those of their codes, which are read by then.
        let zero = b.i64(0);
        let scales = [0, 1].map(|half| self.row_scales(b, w, half));
        b.for_each(zero, rows, 1, |b, row| {
            let x = b.at(x, row, self.x_stride * F32);
            let codes: Vec<Value> = (0..passes).map(|i| b.offset(x, i * x_bytes)).collect();
            let from = b.at(a.sums, row, passes * STRIP * F32);
            let to = b.at(a.sums, row, STRIP * F32);
            let halves = [0, 1].map(|half| {
                let load = |i| {
                    let p = b.offset(from, (i * STRIP + half * LANES) * F32);
                    b.load(products.sum_ty(), p)
                };
                let sums: Vec<Value> = (0..passes).map(load).collect();
                products.finish(b, &codes, &sums, scales[half as usize])
            });
            for (half, v) in (0..).zip(halves) {
                let p = b.offset(to, half * LANES * F32);
                b.store(v, p);
            }
        });
    }

    /// Sums of f32 rows.
    fn exact(&self, b: &mut KernelBuilder<'_>, a: Args, x: Value, rows: Value, w: Value) {
        let (zero, zeros) = (b.i64(0), b.constant(GROUP, 0.0));
        b.for_each(zero, rows, 1, |b, row| {
            let sums = b.at(a.sums, row, STRIP * F32);
            for half in 0..2 {
                let p = b.offset(sums, half * LANES * F32);
                b.store(zeros, p);
            }
        });
        let tile = Tile {
            elem: Elem::F32,
            groups: STRIP / LANES,
            w_stride: STRIP,
            acc_stride: STRIP,
        }
        .emit(b);
        // The pads of x hold zeros, those of a row's last unit are left out.
        let k = (self.k + LANES - 1) / LANES * LANES;
        self.chunks(b, a, w, |b, unit, count, panel| {
            let first = b.mul_const(unit, self.form.unit);
            let length = b.mul_const(count, self.form.unit);
            let all = b.i64(k);
            let left = b.sub(all, first);
            let length = b.min(length, left);
            let x = b.at(x, first, F32);
            let stride = b.i64(self.x_stride * F32);
            b.call(&tile, &[rows, x, stride, panel, a.sums, length], &[]);
        });
    }
}
