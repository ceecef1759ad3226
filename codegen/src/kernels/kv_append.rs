//! Writing a step's keys and values into the pages of the cache.
//!
//! In: rows of k and v, positions, the page table. Out: page columns (keys) and rows (values) in
//! the cache's element type, to nearest even; q8_0 as `llmc_ir::quant` quantises it. A barrier must
//! follow before `attend` reads them.
//!
//! Keys of 16 neighbours go by squares of 16 lanes, turned in registers; others, and codes of q8_0,
//! element by element.
//!
//! A thread writes the tokens whose rows it has in other kernels of rows: those may run before this
//! one with no barrier between. Where it is alone between two barriers, threads divide the heads
//! instead: two that write columns of one head's page pass its cache lines to and fro.

use super::kv::{BLOCK, KvElem, PAGE};
use super::{F32, KvLayout};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Ty, Value};

/// Emits `kv_append(thread, threads, n: i64, k: *f32, v: *f32, pos: *i32, seq: *i32, slot: *u8,
/// table: *i32, table_stride: i64)`: k `[n, k_stride]` with heads of `k_width`, v alike; `slot` is
/// `KvState::base + slot · slot_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvAppend {
    pub kv: KvLayout,
    pub k_stride: i64,
    pub v_stride: i64,
    /// Whether barriers are in front and behind, so that a thread may read rows that others wrote.
    pub by_heads: bool,
}

/// What is written.
#[derive(Clone, Copy)]
struct Rows {
    k: Value,
    v: Value,
    pos: Value,
    seq: Value,
}

/// Where it goes.
#[derive(Clone, Copy)]
struct Pages {
    slot: Value,
    table: Value,
    stride: Value,
}

impl Rows {
    /// Position and sequence of a token.
    fn place(&self, b: &mut KernelBuilder<'_>, token: Value) -> (Value, Value) {
        let p = b.at(self.pos, token, 4);
        let position = b.load_i32(p);
        let p = b.at(self.seq, token, 4);
        (position, b.load_i32(p))
    }

    /// Whether the 16 columns of a page among which `token`'s is, from a multiple of 16 on, are all of
    /// the thread's tokens `mine.0..mine.1`; those of a sequence follow each other.
    fn in_square(&self, b: &mut KernelBuilder<'_>, mine: (Value, Value), token: Value) -> Value {
        let (position, _) = self.place(b, token);
        let lane = b.rem_const(position, LANES);
        let first = b.sub(token, lane);
        let last = b.add_const(first, LANES - 1);
        let begun = b.ge(first, mine.0);
        let ended = b.lt(last, mine.1);
        let held = b.and(begun, ended);
        // Elsewhere, any token's place will do.
        let (first, last) = (b.select(held, first, token), b.select(held, last, token));
        let (low, of_first) = self.place(b, first);
        let (high, of_last) = self.place(b, last);
        let one = b.eq(of_first, of_last);
        let span = b.sub(high, low);
        let whole = b.i64(LANES - 1);
        let whole = b.eq(span, whole);
        let all = b.and(one, whole);
        b.and(held, all)
    }
}

impl KvAppend {
    pub fn symbol(&self) -> String {
        format!(
            "kv_append_{}_k{}_v{}{}",
            self.kv.name(),
            self.k_stride,
            self.v_stride,
            if self.by_heads { "_heads" } else { "" }
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
            Param::input(),
            Param::output(),
            Param::input(),
            Param::i64(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, k, v, pos, seq, slot, table, stride] = *args else {
                unreachable!("ten parameters")
            };
            let from = Rows { k, v, pos, seq };
            let to = Pages {
                slot,
                table,
                stride,
            };
            if self.by_heads {
                let squares = b.ceil_div_const(n, LANES);
                let units = b.mul_const(squares, self.kv.heads);
                let slice = b.slice(thread, threads, units);
                b.for_runs(slice, squares, |b, head, first, end| {
                    let first = b.mul_const(first, LANES);
                    let end = b.mul_const(end, LANES);
                    let end = b.min(end, n);
                    self.head(b, from, to, head, (first, end));
                });
            } else {
                let mine = b.slice(thread, threads, n);
                let (first, end) = (b.i64(0), b.i64(self.kv.heads));
                b.for_each(first, end, 1, |b, head| {
                    self.head(b, from, to, head, mine);
                });
            }
        })
    }

    /// One head of the tokens `mine.0..mine.1`: the columns of its page stay in the cache from token to token.
    fn head(
        &self,
        b: &mut KernelBuilder<'_>,
        rows: Rows,
        pages: Pages,
        head: Value,
        mine: (Value, Value),
    ) {
        b.for_each(mine.0, mine.1, 1, |b, token| {
            let (position, sequence) = rows.place(b, token);
            let index = b.div_const(position, PAGE);
            let column = b.rem_const(position, PAGE);
            let page = self
                .kv
                .page(b, pages.slot, pages.table, pages.stride, sequence, index);
            let from = b.at(rows.k, token, self.k_stride * F32);
            let from = b.at(from, head, self.kv.k_width * F32);
            let to = self.kv.keys(b, page, head);
            match self.kv.elem.plain() {
                None => self.key_blocks(b, from, to, column),
                Some(elem) => {
                    let to = b.at(to, column, elem.bytes());
                    let square = rows.in_square(b, mine, token);
                    b.choose(
                        square,
                        |b| {
                            let lane = b.rem_const(column, LANES);
                            let zero = b.i64(0);
                            let begins = b.eq(lane, zero);
                            b.when(begins, |b| self.keys(b, elem, from, to));
                            Vec::new()
                        },
                        |b| {
                            self.key(b, elem, from, to);
                            Vec::new()
                        },
                    );
                }
            }
            let from = b.at(rows.v, token, self.v_stride * F32);
            let from = b.at(from, head, self.kv.v_width * F32);
            let to = self.kv.values(b, page, head);
            self.value(b, from, to, column);
        });
    }

    /// Calls `body` for every 16 lanes of a key: where they are read, and where the first goes.
    fn lanes(
        &self,
        b: &mut KernelBuilder<'_>,
        elem: Elem,
        (from, to): (Value, Value),
        body: impl Fn(&mut KernelBuilder<'_>, Value, Value),
    ) {
        b.for_unrolled(self.kv.k_width / LANES, 1, |b, i| {
            let from = b.at(from, i, LANES * F32);
            let to = b.at(to, i, LANES * PAGE * elem.bytes());
            body(b, from, to);
        });
    }

    /// 16 keys into the columns from `to` on, by squares of 16 lanes.
    fn keys(&self, b: &mut KernelBuilder<'_>, elem: Elem, from: Value, to: Value) {
        self.lanes(b, elem, (from, to), |b, from, to| {
            let rows: Vec<Value> = (0..LANES)
                .map(|token| {
                    let p = b.offset(from, token * self.k_stride * F32);
                    b.load_group(p)
                })
                .collect();
            for (lane, v) in b.transpose(&rows).into_iter().enumerate() {
                let v = b.narrow(v, elem);
                let p = b.offset(to, lane as i64 * PAGE * elem.bytes());
                b.store(v, p);
            }
        });
    }

    /// One key into the column `to`: an element every 64.
    fn key(&self, b: &mut KernelBuilder<'_>, elem: Elem, from: Value, to: Value) {
        self.lanes(b, elem, (from, to), |b, from, to| {
            if elem == Elem::F32 {
                for lane in 0..LANES {
                    let p = b.offset(from, lane * F32);
                    let v = b.load(Ty::F32, p);
                    let p = b.offset(to, lane * PAGE * elem.bytes());
                    b.store(v, p);
                }
            } else {
                let v = b.load_group(from);
                let v = b.narrow(v, elem);
                scatter(b, v, to, elem.bytes());
            }
        });
    }

    fn key_blocks(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value, column: Value) {
        let scales = b.offset(to, PAGE * self.kv.k_width);
        let scales = b.at(scales, column, Elem::F16.bytes());
        let to = b.offset_by(to, column);
        b.for_unrolled(self.kv.k_width / BLOCK, 1, |b, i| {
            let from = b.at(from, i, BLOCK * F32);
            let (scale, codes) = quantize(b, from);
            let p = b.at(scales, i, PAGE * Elem::F16.bytes());
            b.store(scale, p);
            let to = b.at(to, i, BLOCK * PAGE);
            scatter(b, codes[0], to, 1);
            let to = b.offset(to, LANES * PAGE);
            scatter(b, codes[1], to, 1);
        });
    }

    /// One value into row `row` of `to`.
    fn value(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value, row: Value) {
        let width = self.kv.v_width;
        let Some(elem) = self.kv.elem.plain() else {
            return self.value_blocks(b, from, to, row);
        };
        let to = b.at(to, row, width * elem.bytes());
        b.for_unrolled(width / LANES, 4, |b, i| {
            let p = b.at(from, i, LANES * F32);
            let v = b.load_group(p);
            let v = b.narrow(v, elem);
            let p = b.at(to, i, LANES * elem.bytes());
            b.store(v, p);
        });
    }

    fn value_blocks(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value, row: Value) {
        let width = self.kv.v_width;
        let scales = b.offset(to, PAGE * width);
        let scales = b.at(scales, row, width / BLOCK * Elem::F16.bytes());
        let to = b.at(to, row, width);
        b.for_unrolled(width / BLOCK, 1, |b, i| {
            let from = b.at(from, i, BLOCK * F32);
            let (scale, codes) = quantize(b, from);
            let p = b.at(scales, i, Elem::F16.bytes());
            b.store(scale, p);
            let to = b.at(to, i, BLOCK);
            b.store(codes[0], to);
            let to = b.offset(to, LANES);
            b.store(codes[1], to);
        });
    }
}

/// The lanes of `v`, `size` bytes each, to an element every 64.
fn scatter(b: &mut KernelBuilder<'_>, v: Value, to: Value, size: i64) {
    for lane in 0..LANES {
        let x = b.extract(v, lane as u32);
        let p = b.offset(to, lane * PAGE * size);
        b.store(x, p);
    }
}

/// A block of q8_0: the f16 scale `max|x| / 127` and the codes by the scale as stored, nearest even.
fn quantize(b: &mut KernelBuilder<'_>, from: Value) -> (Value, [Value; 2]) {
    debug_assert_eq!(KvElem::Q8_0.row_bytes(BLOCK), BLOCK + 2);
    let p = b.offset(from, LANES * F32);
    let x = [b.load_group(from), b.load_group(p)];
    let size = x.map(|x| b.abs(x));
    let size = b.max(size[0], size[1]);
    let most = b.max_lanes(size);
    let (top, one, zero) = (b.f32(127.0), b.f32(1.0), b.f32(0.0));
    let scale = b.div(most, top);
    let scale = b.narrow(scale, Elem::F16);
    let d = b.widen(scale, Elem::F16);
    let none = b.eq(d, zero);
    let inverse = b.div(one, d);
    let inverse = b.select(none, zero, inverse);
    let inverse = b.broadcast(inverse);
    let (low, high) = (b.splat(-127.0), b.splat(127.0));
    let codes = x.map(|x| {
        let v = b.mul(x, inverse);
        let v = b.max(v, low);
        let v = b.min(v, high);
        let v = b.round_even(v);
        let v = b.to_int(v, Elem::I32);
        b.truncate(v, Elem::I8)
    });
    (scale, codes)
}
