//! Attention over the paged KV cache, with an online softmax.
//!
//! In: queries of a step, pages, positions. Out: one mixed value row per query and head.
//!
//! - A work unit is (sequence, KV head, up to 24 query rows); a query row is a (token, query head
//!   of the group) pair, so the heads of a group share every load of K and V.
//! - Blocks are pages: 64 keys, always the same cut. A row's result does not depend on which rows
//!   share its unit: a block that a row may not see leaves its state as it was, bit for bit.
//! - Masked keys have probability exactly 0; whatever finite values a recycled page holds there do
//!   not matter.
//!
//! Not here: splitting one row's keys over threads; a single row with few KV heads and a long
//! context keeps at most `kv.heads` threads busy.

use super::kv::PAGE;
use super::{F32, KvLayout, PANEL, Tile, Unpack, tag};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Ty, Value};

/// Query rows of a unit.
const ROWS: i64 = 24;
/// Rows from which on a 16-bit block is widened once.
const UNPACK_ROWS: i64 = 12;
/// Score of a masked key, and the running maximum before the first key.
const MASKED: f32 = -1e30;

/// Which keys a query sees, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Keys up to its own position; with a window, only the last `window` of them.
    Causal { window: Option<i64> },
    /// All keys of its sequence.
    Bidirectional,
}

/// An additive score by head and distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBias {
    /// Floats of a head's row; the score of key j for query i is `row[j - i + zero]`. Whole pages
    /// are read, so the row goes on for 63 floats behind the largest distance.
    pub stride: i64,
    /// Index of distance 0.
    pub zero: i64,
}

/// Emits `attend(thread, threads, b: i64, q: *f32, slot: *u8, table: *i32, table_stride: i64,
/// pos: *i32, q_start: *i32, kv_len: *i32, bias: *f32, sinks: *f32, out: *f32, scratch: *u8)`:
/// q `[n, q_stride]` with heads of `k_width`; out `[n, out_stride]` with heads of `v_width`;
/// `sinks` `[query heads]`; `bias` `[query heads][stride]`; both unread unless asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attend {
    pub kv: KvLayout,
    /// Query heads per KV head.
    pub group: i64,
    pub q_stride: i64,
    pub out_stride: i64,
    /// Factor of the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)`, before bias and mask.
    pub softcap: Option<f32>,
    pub mask: Mask,
    pub bias: Option<RelativeBias>,
    /// A logit per query head that takes part in the softmax and mixes nothing in.
    pub sinks: bool,
}

/// The parameters at run time, and the places in scratch.
#[derive(Clone, Copy)]
struct Args {
    q: Value,
    slot: Value,
    table: Value,
    table_stride: Value,
    pos: Value,
    bias: Value,
    sinks: Value,
    out: Value,
    /// `[ROWS][k_width]` scaled queries.
    queries: Value,
    /// `[ROWS][64]` scores, then probabilities.
    scores: Value,
    /// `[ROWS][v_width]` weighted sums of values.
    mixed: Value,
    /// `[ROWS][16]` sums of probabilities by lane.
    sums: Value,
    /// `[ROWS]` running maxima.
    maxima: Value,
    /// `[64][max width]` widened block.
    wide: Value,
}

/// One unit at run time.
#[derive(Clone, Copy)]
struct Unit {
    sequence: Value,
    /// First token of the sequence in the step.
    start: Value,
    /// Keys of the sequence.
    keys: Value,
    head: Value,
    /// First query row of the unit within the (sequence, head), and how many.
    row: Value,
    rows: Value,
}

impl Attend {
    pub fn symbol(&self) -> String {
        let mut name = format!(
            "attend_{}_g{}_q{}_o{}_s{}",
            self.kv.name(),
            self.group,
            self.q_stride,
            self.out_stride,
            tag(self.scale)
        );
        match self.mask {
            Mask::Bidirectional => name += "_all",
            Mask::Causal { window: None } => name += "_causal",
            Mask::Causal { window: Some(w) } => name += &format!("_causal_w{w}"),
        }
        if let Some(cap) = self.softcap {
            name += &format!("_c{}", tag(cap));
        }
        if let Some(bias) = self.bias {
            name += &format!("_b{}_{}", bias.stride, bias.zero);
        }
        if self.sinks {
            name += "_sinks";
        }
        name
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        let wide = if self.kv.elem == Elem::F32 {
            0
        } else {
            PAGE * self.kv.k_width.max(self.kv.v_width)
        };
        (ROWS * (self.kv.k_width + PAGE + self.kv.v_width + LANES) + 2 * LANES + wide) * F32
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
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [
                thread,
                threads,
                sequences,
                q,
                slot,
                table,
                table_stride,
                pos,
                q_start,
                kv_len,
                bias,
                sinks,
                out,
                scratch,
            ] = *args
            else {
                unreachable!("fourteen parameters")
            };
            let scores = b.offset(scratch, ROWS * self.kv.k_width * F32);
            let mixed = b.offset(scores, ROWS * PAGE * F32);
            let sums = b.offset(mixed, ROWS * self.kv.v_width * F32);
            let maxima = b.offset(sums, ROWS * LANES * F32);
            let wide = b.offset(maxima, 2 * LANES * F32);
            let a = Args {
                q,
                slot,
                table,
                table_stride,
                pos,
                bias,
                sinks,
                out,
                queries: scratch,
                scores,
                mixed,
                sums,
                maxima,
                wide,
            };
            let zero = b.i64(0);
            b.for_carried(zero, sequences, 1, &[zero], |b, sequence, base| {
                let p = b.at(q_start, sequence, 4);
                let start = b.load_i32(p);
                let p = b.offset(p, 4);
                let end = b.load_i32(p);
                let p = b.at(kv_len, sequence, 4);
                let keys = b.load_i32(p);
                let tokens = b.sub(end, start);
                let rows = b.mul_const(tokens, self.group);
                let tiles = b.ceil_div_const(rows, ROWS);
                let units = b.mul_const(tiles, self.kv.heads);
                // Units go round the threads, continuing from the sequence before.
                let used = b.rem(base[0], threads);
                let first = b.sub(thread, used);
                let first = b.add(first, threads);
                let first = b.rem(first, threads);
                let left = b.sub(units, first);
                let left = b.max(left, zero);
                let left = b.add(left, threads);
                let left = b.add_const(left, -1);
                let mine = b.div(left, threads);
                b.for_each(zero, mine, 1, |b, i| {
                    let unit = b.mul(i, threads);
                    let unit = b.add(unit, first);
                    let head = b.div(unit, tiles);
                    let tile = b.rem(unit, tiles);
                    let row = b.mul_const(tile, ROWS);
                    let left = b.sub(rows, row);
                    let most = b.i64(ROWS);
                    let rows = b.min(left, most);
                    let unit = Unit {
                        sequence,
                        start,
                        keys,
                        head,
                        row,
                        rows,
                    };
                    self.unit(b, a, unit);
                });
                vec![b.add(base[0], units)]
            });
        })
    }

    /// `(token, query head)` of row `i` of a unit.
    fn place(&self, b: &mut KernelBuilder<'_>, u: Unit, i: Value) -> (Value, Value) {
        let row = b.add(u.row, i);
        let token = b.div_const(row, self.group);
        let token = b.add(u.start, token);
        let member = b.rem_const(row, self.group);
        let head = b.mul_const(u.head, self.group);
        (token, b.add(head, member))
    }

    fn position(&self, b: &mut KernelBuilder<'_>, a: Args, token: Value) -> Value {
        let p = b.at(a.pos, token, 4);
        b.load_i32(p)
    }

    fn unit(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit) {
        let zero = b.i64(0);
        b.for_each(zero, u.rows, 1, |b, i| self.begin(b, a, u, i));
        let (first, last) = self.visible(b, a, u);
        let (low, high) = (b.div_const(first, PAGE), b.div_const(last, PAGE));
        let end = b.add_const(high, 1);
        b.for_each(low, end, 1, |b, block| self.block(b, a, u, block, last));
        b.for_each(zero, u.rows, 1, |b, i| self.finish(b, a, u, i));
    }

    /// First and last key that any row of the unit sees.
    fn visible(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit) -> (Value, Value) {
        let zero = b.i64(0);
        let last_key = b.add_const(u.keys, -1);
        let Mask::Causal { window } = self.mask else {
            return (zero, last_key);
        };
        let last_row = b.add_const(u.rows, -1);
        let (token, _) = self.place(b, u, last_row);
        let last = self.position(b, a, token);
        let last = b.min(last, last_key);
        let Some(window) = window else {
            return (zero, last);
        };
        let (token, _) = self.place(b, u, zero);
        let first = self.position(b, a, token);
        let first = b.add_const(first, 1 - window);
        (b.max(first, zero), last)
    }

    /// Scales a query into scratch and starts its state.
    fn begin(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit, i: Value) {
        let (token, head) = self.place(b, u, i);
        let from = b.at(a.q, token, self.q_stride * F32);
        let from = b.at(from, head, self.kv.k_width * F32);
        let to = b.at(a.queries, i, self.kv.k_width * F32);
        let scale = b.splat(self.scale);
        b.for_unrolled(self.kv.k_width / LANES, 4, |b, g| {
            let p = b.at(from, g, LANES * F32);
            let v = b.load_group(p);
            let v = b.mul(v, scale);
            let p = b.at(to, g, LANES * F32);
            b.store(v, p);
        });
        let zeros = b.splat(0.0);
        let mixed = b.at(a.mixed, i, self.kv.v_width * F32);
        b.for_unrolled(self.kv.v_width / LANES, 4, |b, g| {
            let p = b.at(mixed, g, LANES * F32);
            b.store(zeros, p);
        });
        let (maximum, sum) = if self.sinks {
            let p = b.at(a.sinks, head, F32);
            let one = b.f32(1.0);
            (b.load(Ty::F32, p), b.one_lane(one, 0, 0.0))
        } else {
            (b.f32(MASKED), zeros)
        };
        let p = b.at(a.maxima, i, F32);
        b.store(maximum, p);
        let p = b.at(a.sums, i, LANES * F32);
        b.store(sum, p);
    }

    /// One page: scores, softmax step, mix.
    fn block(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit, block: Value, last: Value) {
        let page = self
            .kv
            .page(b, a.slot, a.table, a.table_stride, u.sequence, block);
        let keys = self.kv.keys(b, page, u.head);
        let values = self.kv.values(b, page, u.head);
        let first = b.mul_const(block, PAGE);
        let (zero, zeros) = (b.i64(0), b.splat(0.0));
        b.for_each(zero, u.rows, 1, |b, i| {
            let p = b.at(a.scores, i, PAGE * F32);
            for group in 0..PAGE / LANES {
                let p = b.offset(p, group * LANES * F32);
                b.store(zeros, p);
            }
        });
        let k_width = self.kv.k_width;
        self.widened(b, a, u, keys, k_width, |b, elem, keys| {
            let tile = Tile {
                elem,
                groups: PAGE / LANES,
                w_stride: PAGE,
                acc_stride: PAGE,
            }
            .emit(b);
            let (stride, k) = (b.i64(k_width * F32), b.i64(k_width));
            b.call(&tile, &[u.rows, a.queries, stride, keys, a.scores, k], &[]);
        });
        b.for_each(zero, u.rows, 1, |b, i| self.softmax(b, a, u, i, first));

        // Keys behind the last visible one have probability 0 in every row.
        let seen = b.sub(last, first);
        let seen = b.div_const(seen, 4);
        let seen = b.add_const(seen, 1);
        let seen = b.mul_const(seen, 4);
        let most = b.i64(PAGE);
        let seen = b.min(seen, most);
        let v_width = self.kv.v_width;
        self.widened(b, a, u, values, v_width, |b, elem, values| {
            let mut column = 0;
            while column < v_width {
                let groups = ((v_width - column) / LANES).min(PANEL / LANES);
                let tile = Tile {
                    elem,
                    groups,
                    w_stride: v_width,
                    acc_stride: v_width,
                }
                .emit(b);
                let values = b.offset(values, column * elem.bytes());
                let mixed = b.offset(a.mixed, column * F32);
                let stride = b.i64(PAGE * F32);
                b.call(&tile, &[u.rows, a.scores, stride, values, mixed, seen], &[]);
                column += groups * LANES;
            }
        });
    }

    /// Runs `body` on a block `[64 · width]` in its own type for few rows, widened for many.
    fn widened(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        u: Unit,
        block: Value,
        width: i64,
        mut body: impl FnMut(&mut KernelBuilder<'_>, Elem, Value),
    ) {
        if self.kv.elem == Elem::F32 {
            return body(b, Elem::F32, block);
        }
        let limit = b.i64(UNPACK_ROWS);
        let many = b.ge(u.rows, limit);
        let body = &mut body;
        // Both arms are emitted one after the other, so each may borrow the body in turn.
        let body = std::cell::RefCell::new(body);
        b.choose(
            many,
            |b| {
                let unpack = Unpack { elem: self.kv.elem }.emit(b);
                let count = b.i64(PAGE * width);
                b.call(&unpack, &[count, block, a.wide], &[]);
                body.borrow_mut()(b, Elem::F32, a.wide);
                Vec::new()
            },
            |b| {
                body.borrow_mut()(b, self.kv.elem, block);
                Vec::new()
            },
        );
    }

    /// Scores of row `i` to probabilities; rescales the row's state if its maximum grew.
    fn softmax(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit, i: Value, first: Value) {
        let (token, head) = self.place(b, u, i);
        let scores = b.at(a.scores, i, PAGE * F32);
        let position = self.position(b, a, token);
        let bias = self.bias.map(|bias| {
            let p = b.at(a.bias, head, bias.stride * F32);
            let distance = b.sub(first, position);
            let p = b.at(p, distance, F32);
            b.offset(p, bias.zero * F32)
        });
        // Visible keys as a range of lanes: from - first <= lane <= to - first.
        let last_key = b.add_const(u.keys, -1);
        let to = match self.mask {
            Mask::Causal { .. } => b.min(position, last_key),
            Mask::Bidirectional => last_key,
        };
        let to = b.sub(to, first);
        let to = b.truncate(to, Elem::I32);
        let to = b.broadcast(to);
        let from = match self.mask {
            Mask::Causal { window: Some(w) } => {
                let from = b.add_const(position, 1 - w);
                let from = b.sub(from, first);
                let from = b.truncate(from, Elem::I32);
                Some(b.broadcast(from))
            }
            _ => None,
        };
        let masked = b.splat(MASKED);
        let lanes = b.lane_numbers();
        let mut visible = Vec::new();
        let mut values = Vec::new();
        for group in 0..PAGE / LANES {
            let p = b.offset(scores, group * LANES * F32);
            let mut v = b.load_group(p);
            if let Some(cap) = self.softcap {
                v = b.softcap(v, cap);
            }
            if let Some(bias) = bias {
                let p = b.offset(bias, group * LANES * F32);
                let bias = b.load_group(p);
                v = b.add(v, bias);
            }
            let key = b.add_const(lanes, group * LANES);
            let mut seen = b.le(key, to);
            if let Some(from) = from {
                let late = b.ge(key, from);
                seen = b.and(seen, late);
            }
            values.push(b.select(seen, v, masked));
            visible.push(seen);
        }
        let (x, y) = (b.max(values[0], values[1]), b.max(values[2], values[3]));
        let top = b.max(x, y);
        let top = b.max_lanes(top);
        let p = b.at(a.maxima, i, F32);
        let old = b.load(Ty::F32, p);
        let new = b.max(old, top);
        b.store(new, p);

        let sums = b.at(a.sums, i, LANES * F32);
        let grown = b.ne(new, old);
        b.when(grown, |b| {
            let change = b.sub(old, new);
            let change = b.broadcast(change);
            let factor = b.exp(change);
            let sum = b.load_group(sums);
            let sum = b.mul(sum, factor);
            b.store(sum, sums);
            let mixed = b.at(a.mixed, i, self.kv.v_width * F32);
            b.for_unrolled(self.kv.v_width / LANES, 4, |b, g| {
                let p = b.at(mixed, g, LANES * F32);
                let v = b.load_group(p);
                let v = b.mul(v, factor);
                b.store(v, p);
            });
        });

        let (new, zeros) = (b.broadcast(new), b.splat(0.0));
        let mut probabilities = Vec::new();
        for (group, (v, seen)) in values.into_iter().zip(visible).enumerate() {
            let v = b.sub(v, new);
            let v = b.exp(v);
            let v = b.select(seen, v, zeros);
            let p = b.offset(scores, group as i64 * LANES * F32);
            b.store(v, p);
            probabilities.push(v);
        }
        let x = b.add(probabilities[0], probabilities[1]);
        let y = b.add(probabilities[2], probabilities[3]);
        let sum = b.load_group(sums);
        let more = b.add(x, y);
        let sum = b.add(sum, more);
        b.store(sum, sums);
    }

    /// Divides by the sum of probabilities and writes the row out.
    fn finish(&self, b: &mut KernelBuilder<'_>, a: Args, u: Unit, i: Value) {
        let (token, head) = self.place(b, u, i);
        let p = b.at(a.sums, i, LANES * F32);
        let sum = b.load_group(p);
        let sum = b.sum_lanes(sum);
        let (zero, one) = (b.f32(0.0), b.f32(1.0));
        let some = b.gt(sum, zero);
        let inverse = b.div(one, sum);
        let inverse = b.select(some, inverse, zero);
        let inverse = b.broadcast(inverse);
        let from = b.at(a.mixed, i, self.kv.v_width * F32);
        let to = b.at(a.out, token, self.out_stride * F32);
        let to = b.at(to, head, self.kv.v_width * F32);
        b.for_unrolled(self.kv.v_width / LANES, 4, |b, g| {
            let p = b.at(from, g, LANES * F32);
            let v = b.load_group(p);
            let v = b.mul(v, inverse);
            let p = b.at(to, g, LANES * F32);
            b.store(v, p);
        });
    }
}
