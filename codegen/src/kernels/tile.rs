//! The register tile: a small matrix product into memory accumulators.
//!
//! In: rows of x, a row-major block of w. Out: `acc += x · w`.
//! Invariant: each output is one chain of fused multiply-adds in the order of k, whatever the
//! number of rows, so results are bitwise the same alone and in company.
//! Not here: threads, chunks of k, epilogues; this is the inner part of `linear` and `attend`.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Value};

/// Rows of a full register tile.
pub const TILE_ROWS: i64 = 6;

/// Steps of k in one round of the inner loop.
const UNROLL: i64 = 4;

/// How a call divides what it asks for: among how many full register tiles, the first of these that it
/// has, and how many parts of [`AHEAD_PARTS`] each asks for. Few at a time leave the products their
/// loads; but all of it must be on its way by the end. What two tiles or one leave is for the rows
/// behind them.
const AHEAD: [(i64, i64); 4] = [(8, 2), (4, 4), (2, 6), (1, 12)];
const AHEAD_PARTS: i64 = 16;
/// Rows behind more full tiles than these do not ask: those have asked for all parts.
const AHEAD_REST_TILES: i64 = 2;
/// Fewer rows behind full tiles do not ask: they wait for memory anyway.
const AHEAD_REST_ROWS: i64 = 3;

/// What a function does beyond the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Adds to acc.
    Sum,
    /// Starts at zero.
    Product,
    /// Adds to acc; some tiles ask for what is read next, which has so many bytes for a round.
    Ahead(i64),
}

/// `acc[rows][groups·16] += x[rows][k] · w[k][groups·16]`, any number of rows.
///
/// Emits `tile(rows: i64, x: *f32, x_stride: i64, w: *elem, acc: *f32, k: i64)`: `x_stride` in
/// bytes; `k` is a multiple of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Type of w: f32, f16 or bf16.
    pub elem: Elem,
    /// Column groups of 16, 1..=4.
    pub groups: i64,
    /// Elements between two rows of w.
    pub w_stride: i64,
    /// Floats between two rows of acc.
    pub acc_stride: i64,
}

impl Tile {
    pub fn symbol(&self) -> String {
        format!(
            "tile_{}_g{}_w{}_a{}",
            self.elem.name(),
            self.groups,
            self.w_stride,
            self.acc_stride
        )
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        self.emit_kind(b, Kind::Sum)
    }

    /// As [`Tile::emit`] with `acc = x · w`: the sums start at zero, and acc is not read.
    pub fn emit_product(&self, b: &mut KernelBuilder<'_>) -> String {
        self.emit_kind(b, Kind::Product)
    }

    /// As [`Tile::emit`] with two more parameters, `next: *u8, asks: i64`: where `asks` is 1, not 0, some
    /// register tiles also ask for the k rows of `groups·16` elements of type `of` at `next`.
    pub fn emit_ahead(&self, b: &mut KernelBuilder<'_>, of: Elem) -> String {
        let bytes = self.groups * LANES * of.bytes() * UNROLL;
        self.emit_kind(b, Kind::Ahead(bytes))
    }

    fn emit_kind(&self, b: &mut KernelBuilder<'_>, kind: Kind) -> String {
        assert!((1..=4).contains(&self.groups), "a tile has 1 to 4 groups");
        let mut params = vec![
            Param::i64(),
            Param::input(),
            Param::i64(),
            Param::input(),
            Param::output(),
            Param::i64(),
        ];
        let symbol = match kind {
            Kind::Sum => self.symbol(),
            Kind::Product => self.symbol() + "_product",
            Kind::Ahead(bytes) => {
                params.extend([Param::ptr(), Param::i64()]);
                format!("{}_ahead{bytes}", self.symbol())
            }
        };
        b.kernel(&symbol, &params, |b, args| {
            let [rows, x, x_stride, w, acc, k, ref more @ ..] = *args else {
                unreachable!("six parameters or more")
            };
            let fresh = kind == Kind::Product;
            let full = b.div_const(rows, TILE_ROWS);
            let full = b.mul_const(full, TILE_ROWS);
            let zero = b.i64(0);
            let mut first = zero;
            if let (Kind::Ahead(bytes), &[next, asks]) = (kind, more) {
                for (tiles, parts) in AHEAD {
                    let bytes = bytes * parts / AHEAD_PARTS;
                    let asking = b.mul_const(asks, tiles * TILE_ROWS);
                    let (has, none) = (b.le(asking, full), b.eq(first, zero));
                    let here = b.and(has, none);
                    let end = b.select(here, asking, first);
                    b.for_each(first, end, TILE_ROWS, |b, row| {
                        let tile = b.div_const(row, TILE_ROWS);
                        let skip = b.mul(tile, k);
                        let next = b.at(next, skip, bytes / UNROLL);
                        let next = Some((next, bytes));
                        self.rows(b, fresh, next, TILE_ROWS, row, x, x_stride, w, acc, k);
                    });
                    first = end;
                }
            }
            b.for_each(first, full, TILE_ROWS, |b, row| {
                self.rows(b, fresh, None, TILE_ROWS, row, x, x_stride, w, acc, k);
            });
            let last = match (kind, more) {
                (Kind::Ahead(bytes), &[next, asks]) => {
                    let done = AHEAD[AHEAD.len() - 1].1;
                    let skip = b.mul_const(k, bytes / UNROLL * done / AHEAD_PARTS);
                    let next = b.offset_by(next, skip);
                    // To ask for what is being read costs next to nothing.
                    let most = b.mul_const(asks, AHEAD_REST_TILES * TILE_ROWS + 1);
                    let asks = b.lt(full, most);
                    let next = b.select(asks, next, w);
                    Some((next, bytes * (AHEAD_PARTS - done) / AHEAD_PARTS))
                }
                _ => None,
            };
            let rest = b.sub(rows, full);
            for count in 1..TILE_ROWS {
                let number = b.i64(count);
                let chosen = b.eq(rest, number);
                let next = last.filter(|_| count >= AHEAD_REST_ROWS);
                b.when(chosen, |b| {
                    self.rows(b, fresh, next, count, full, x, x_stride, w, acc, k);
                });
            }
        })
    }

    /// `count` rows from `row` on, from zero if `fresh`, asking for so many bytes of `next` in a
    /// round; all column groups, as many at a time as registers hold.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are the function's parameters"
    )]
    fn rows(
        &self,
        b: &mut KernelBuilder<'_>,
        fresh: bool,
        next: Option<(Value, i64)>,
        count: i64,
        row: Value,
        x: Value,
        x_stride: Value,
        w: Value,
        acc: Value,
        k: Value,
    ) {
        let bytes = b.mul(row, x_stride);
        let mut pointer = b.offset_by(x, bytes);
        let mut xs = vec![pointer];
        for _ in 1..count {
            pointer = b.offset_by(pointer, x_stride);
            xs.push(pointer);
        }
        let acc = b.at(acc, row, self.acc_stride * F32);
        let fit = i64::from(b.level().tile_groups(count as u32));
        let mut first = 0;
        while first < self.groups {
            let groups = fit.min(self.groups - first);
            let next = next.filter(|_| first == 0);
            self.block(b, fresh, next, &xs, first, groups, w, acc, k);
            first += groups;
        }
    }

    /// One register tile: `xs.len()` rows by `groups` groups from `first` on.
    #[allow(
        clippy::too_many_arguments,
        reason = "they are the function's parameters"
    )]
    fn block(
        &self,
        b: &mut KernelBuilder<'_>,
        fresh: bool,
        next: Option<(Value, i64)>,
        xs: &[Value],
        first: i64,
        groups: i64,
        w: Value,
        acc: Value,
        k: Value,
    ) {
        let size = self.elem.bytes();
        let at =
            |row: usize, group: i64| (row as i64 * self.acc_stride + (first + group) * LANES) * F32;
        let mut sums = Vec::new();
        for row in 0..xs.len() {
            for group in 0..groups {
                sums.push(if fresh {
                    b.splat(0.0)
                } else {
                    let p = b.offset(acc, at(row, group));
                    b.load_group(p)
                });
            }
        }
        let zero = b.i64(0);
        let w = b.offset(w, first * LANES * size);
        let sums = b.for_carried(zero, k, UNROLL, &sums, |b, step, sums| {
            let mut sums = sums.to_vec();
            if let Some((next, bytes)) = next {
                let next = b.at(next, step, bytes / UNROLL);
                b.prefetch(next, 0, bytes);
            }
            let w = b.at(w, step, self.w_stride * size);
            for u in 0..UNROLL {
                let columns: Vec<Value> = (0..groups)
                    .map(|g| {
                        let p = b.offset(w, (u * self.w_stride + g * LANES) * size);
                        b.load_float(self.elem, p)
                    })
                    .collect();
                for (row, x) in xs.iter().enumerate() {
                    let p = b.at(*x, step, F32);
                    let p = b.offset(p, u * F32);
                    let v = b.load_broadcast(p);
                    for (g, column) in columns.iter().enumerate() {
                        let i = row * groups as usize + g;
                        sums[i] = b.fma(v, *column, sums[i]);
                    }
                }
            }
            sums
        });
        for row in 0..xs.len() {
            for group in 0..groups {
                let p = b.offset(acc, at(row, group));
                b.store(sums[row * groups as usize + group as usize], p);
            }
        }
    }
}
