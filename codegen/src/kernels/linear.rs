//! `y = epilogue(x · Wᵀ)` over weights packed in panels of 64 output columns.
//!
//! In: rows of x, packed W, bias, residual. Out: rows of y.
//!
//! - The work units are (panel, tile of 6 rows), panel by panel; a thread owns a contiguous run,
//!   so a panel stays in its L2 while all its rows pass.
//! - Long K goes in chunks with the sums carried in scratch; the order of each sum stays k = 0, 1,
//!   2, …, so neither chunks nor threads nor the number of rows change a bit.
//! - While the first rows of a panel pass, they ask for the weights that come behind: those are in
//!   memory, and reading them would else wait until the panel begins.
//! - 16-bit weights are widened in the inner loop for few rows, once per chunk for many.
//!
//! Not here: block-quantised weights.

use super::{Epilogue, F32, PANEL, TILE_ROWS, Tile, Unpack, epilogue::Target};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Value};

/// Longest K that is done in one piece.
const WHOLE_K: i64 = 1536;
/// Longest chunk of a longer K.
const CHUNK_K: i64 = 1024;
/// Rows whose sums are in scratch at a time: for one piece, and for chunks.
const BLOCK_ROWS: i64 = 48;
const CHUNKED_ROWS: i64 = 192;
/// Rows of bf16 x that are widened at a time.
const WIDENED_ROWS: i64 = 48;
/// Rows from which on 16-bit weights are widened into scratch first.
const UNPACK_ROWS: i64 = 32;

/// A linear layer.
///
/// Emits `linear(thread, threads, n: i64, x: *x, w: *elem, bias: *f32, residual: *f32,
/// y: *f32, scratch: *u8)`:
/// x `[n, x_stride]`, w `[m/64][k][64]`, bias `[m]`, residual and y `[n, stride]`. Without bias
/// or residual their pointers are not read. `residual` may be `y` itself; x overlaps neither.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Physical inputs, a multiple of 16.
    pub k: i64,
    /// Physical rows of W, a multiple of 64 (gate and up rows both count under `glu`).
    pub m: i64,
    /// Of x: f32 or bf16, of which the products are exact in f32.
    pub x: Elem,
    /// 4-byte units from one row of x to the next.
    pub x_stride: i64,
    pub elem: Elem,
    pub out: Epilogue,
}

/// The parameters at run time.
#[derive(Clone, Copy)]
struct Args {
    n: Value,
    x: Value,
    w: Value,
    to: Target,
    /// `[rows][64]` sums.
    sums: Value,
    /// `[chunk][64]` widened weights.
    wide: Value,
    /// `[rows][chunk]` widened x.
    wide_x: Value,
}

impl Linear {
    pub fn symbol(&self) -> String {
        format!(
            "linear_k{}_m{}_x{}{}_{}_{}",
            self.k,
            self.m,
            self.x_stride,
            if self.x == Elem::F32 {
                ""
            } else {
                self.x.name()
            },
            self.elem.name(),
            self.out.name()
        )
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        let wide_x = match self.x {
            Elem::F32 => 0,
            _ => self.block_rows() * self.chunk() * F32,
        };
        self.block_rows() * PANEL * F32 + self.wide_bytes() + wide_x
    }

    fn wide_bytes(&self) -> i64 {
        match self.elem {
            Elem::F32 => 0,
            _ => self.chunk() * PANEL * F32,
        }
    }

    fn chunks(&self) -> i64 {
        if self.k <= WHOLE_K {
            1
        } else {
            (self.k + CHUNK_K - 1) / CHUNK_K
        }
    }

    /// Length of every chunk but the last, a multiple of 16.
    fn chunk(&self) -> i64 {
        let groups = self.k / LANES;
        (groups + self.chunks() - 1) / self.chunks() * LANES
    }

    fn block_rows(&self) -> i64 {
        match self.x {
            Elem::F32 if self.chunks() == 1 => BLOCK_ROWS,
            Elem::F32 => CHUNKED_ROWS,
            _ => WIDENED_ROWS,
        }
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(
            self.k % LANES == 0 && self.m % PANEL == 0,
            "physical sizes are padded"
        );
        let panels = self.m / PANEL;
        assert_eq!(
            self.out.panels(PANEL),
            panels,
            "the last panel holds the last output"
        );
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
            let wide = b.offset(scratch, self.block_rows() * PANEL * F32);
            let wide_x = b.offset(wide, self.wide_bytes());
            let a = Args {
                n,
                x,
                w,
                to: Target { bias, residual, y },
                sums: scratch,
                wide,
                wide_x,
            };
            let tiles = b.ceil_div_const(n, TILE_ROWS);
            let units = b.mul_const(tiles, panels);
            let slice = b.slice(thread, threads, units);
            b.for_runs(slice, tiles, |b, panel, from, to| {
                let from = b.mul_const(from, TILE_ROWS);
                let to = b.mul_const(to, TILE_ROWS);
                let to = b.min(to, a.n);
                self.panel(b, a, panel, from, to);
            });
        })
    }

    /// Rows `from..to` of one panel.
    fn panel(&self, b: &mut KernelBuilder<'_>, a: Args, panel: Value, from: Value, to: Value) {
        let size = self.elem.bytes();
        let w = b.at(a.w, panel, self.k * PANEL * size);
        if self.elem == Elem::F32 {
            self.blocks(b, a, panel, from, to, w, false);
            return;
        }
        let rows = b.sub(to, from);
        let limit = b.i64(UNPACK_ROWS);
        let many = b.ge(rows, limit);
        let choice = b.choose(
            many,
            |b| {
                if self.chunks() == 1 {
                    self.unpack(b, w, a.wide, self.k);
                }
                self.blocks(b, a, panel, from, to, w, true);
                Vec::new()
            },
            |b| {
                self.blocks(b, a, panel, from, to, w, false);
                Vec::new()
            },
        );
        debug_assert!(choice.is_empty());
    }

    fn unpack(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value, rows: i64) {
        let symbol = Unpack { elem: self.elem }.emit(b);
        let count = b.i64(rows * PANEL);
        b.call(&symbol, &[count, from, to], &[]);
    }

    /// The rows in blocks: zero the sums, add chunk after chunk, write y.
    #[allow(clippy::too_many_arguments, reason = "the state of one panel")]
    fn blocks(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        panel: Value,
        from: Value,
        to: Value,
        w: Value,
        unpacked: bool,
    ) {
        let elem = if unpacked { Elem::F32 } else { self.elem };
        let tile = Tile {
            elem,
            groups: PANEL / LANES,
            w_stride: PANEL,
            acc_stride: PANEL,
        }
        .emit_ahead(b, self.elem);
        b.for_each(from, to, self.block_rows(), |b, row| {
            let left = b.sub(to, row);
            let most = b.i64(self.block_rows());
            let rows = b.min(left, most);
            let (zero, zeros) = (b.i64(0), b.splat(0.0));
            b.for_each(zero, rows, 1, |b, i| {
                let p = b.at(a.sums, i, PANEL * F32);
                for group in 0..PANEL / LANES {
                    let p = b.offset(p, group * LANES * F32);
                    b.store(zeros, p);
                }
            });
            // The first block asks for the weights behind the chunk at hand: the next chunk or panel.
            let (is_first, one) = (b.eq(row, from), b.i64(1));
            let asks = b.select(is_first, one, zero);
            let x = b.at(a.x, row, self.x_stride * F32);
            let mut done = 0;
            while done < self.k {
                let length = self.chunk().min(self.k - done);
                let packed = b.offset(w, done * PANEL * self.elem.bytes());
                let source = match (unpacked, self.chunks()) {
                    (false, _) => packed,
                    (true, 1) => a.wide,
                    (true, _) => {
                        self.unpack(b, packed, a.wide, length);
                        a.wide
                    }
                };
                let x = b.offset(x, done * self.x.bytes());
                let (x, stride) = match self.x {
                    Elem::F32 => (x, self.x_stride),
                    _ => {
                        self.widen(b, x, a.wide_x, rows, length);
                        (a.wide_x, length)
                    }
                };
                let stride = b.i64(stride * F32);
                let k = b.i64(length);
                let next = b.offset(packed, length * PANEL * self.elem.bytes());
                let args = [rows, x, stride, source, a.sums, k, next, asks];
                b.call(&tile, &args, &[]);
                done += length;
            }
            self.out.write(b, a.to, a.sums, PANEL, panel, row, rows);
        });
    }

    /// `length` elements of `rows` rows of x, as f32 one row after another.
    fn widen(&self, b: &mut KernelBuilder<'_>, x: Value, to: Value, rows: Value, length: i64) {
        let zero = b.i64(0);
        b.for_each(zero, rows, 1, |b, row| {
            let x = b.at(x, row, self.x_stride * F32);
            let to = b.at(to, row, length * F32);
            b.for_unrolled(length / LANES, 4, |b, i| {
                let p = b.at(x, i, LANES * self.x.bytes());
                let v = b.load_float(self.x, p);
                let p = b.at(to, i, LANES * F32);
                b.store(v, p);
            });
        });
    }
}
