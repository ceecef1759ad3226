//! Who computes what.
//!
//! Items go round the threads; where they are few (decoding), the chunks of all items are one list,
//! of which each thread takes a run. The thread that finishes an item's last chunk folds them all:
//! an atomic counter tells, so that no barrier is needed.

use super::chunk::Pages;
use super::{Args, Attend, CHUNK_PAGES, ENOUGH_ITEMS, Item, Mask, ROWS, SPLIT_ITEMS, Sequence};
use crate::kernel::{Elem, KernelBuilder, Value};
use crate::kernels::F32;
use crate::kernels::kv::PAGE;

/// Keys of a chunk.
const CHUNK: i64 = CHUNK_PAGES * PAGE;

impl Attend {
    fn sequence(&self, b: &mut KernelBuilder<'_>, a: Args, index: Value) -> (Sequence, Value) {
        let p = b.at(a.q_start, index, 4);
        let start = b.load_i32(p);
        let p = b.offset(p, 4);
        let end = b.load_i32(p);
        let p = b.at(a.kv_len, index, 4);
        let keys = b.load_i32(p);
        let tokens = b.sub(end, start);
        let rows = b.mul_const(tokens, self.group);
        let sequence = Sequence {
            index,
            start,
            keys,
            rows,
            tiles: b.ceil_div_const(rows, ROWS),
        };
        (sequence, end)
    }

    /// The first chunk that a sequence's tokens see, and how many from there on.
    fn chunks(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        s: Sequence,
        end: Value,
    ) -> (Value, Value) {
        let to = b.add_const(end, -1);
        let (first, last) = self.visible(b, a, (s.start, to), s.keys);
        let (low, high) = (b.div_const(first, CHUNK), b.div_const(last, CHUNK));
        let count = b.sub(high, low);
        (low, b.add_const(count, 1))
    }

    fn item(&self, b: &mut KernelBuilder<'_>, s: Sequence, number: Value) -> Item {
        let head = b.div(number, s.tiles);
        let tile = b.rem(number, s.tiles);
        let row = b.mul_const(tile, ROWS);
        let left = b.sub(s.rows, row);
        let most = b.i64(ROWS);
        Item {
            sequence: s.index,
            start: s.start,
            keys: s.keys,
            head,
            row,
            rows: b.min(left, most),
        }
    }

    /// First and last key that an item sees.
    fn item_keys(&self, b: &mut KernelBuilder<'_>, a: Args, item: Item) -> (Value, Value) {
        let zero = b.i64(0);
        let last_row = b.add_const(item.rows, -1);
        let (from, _) = self.place(b, item, zero);
        let (to, _) = self.place(b, item, last_row);
        self.visible(b, a, (from, to), item.keys)
    }

    /// Whole items, round the threads.
    pub(super) fn whole(&self, b: &mut KernelBuilder<'_>, a: Args) {
        let zero = b.i64(0);
        b.for_carried(zero, a.sequences, 1, &[zero], |b, index, base| {
            let (s, _) = self.sequence(b, a, index);
            let items = b.mul_const(s.tiles, self.kv.heads);
            // They go on from where the sequence before ended.
            let used = b.rem(base[0], a.threads);
            let first = b.sub(a.thread, used);
            let first = b.add(first, a.threads);
            let first = b.rem(first, a.threads);
            let left = b.sub(items, first);
            let left = b.max(left, zero);
            let left = b.add(left, a.threads);
            let left = b.add_const(left, -1);
            let mine = b.div(left, a.threads);
            b.for_each(zero, mine, 1, |b, i| {
                let number = b.mul(i, a.threads);
                let number = b.add(number, first);
                let item = self.item(b, s, number);
                self.whole_item(b, a, item);
            });
            vec![b.add(base[0], items)]
        });
    }

    fn whole_item(&self, b: &mut KernelBuilder<'_>, a: Args, item: Item) {
        let (zero, one) = (b.i64(0), b.i64(1));
        self.scale_queries(b, a, item);
        let (first, last) = self.item_keys(b, a, item);
        let (low, high) = (b.div_const(first, PAGE), b.div_const(last, PAGE));
        let end = b.add_const(high, 1);
        let all = Pages { low, end, last };
        let (low, high) = match self.mask {
            Mask::Bidirectional => (zero, zero),
            Mask::Causal { .. } => (
                b.div_const(low, CHUNK_PAGES),
                b.div_const(high, CHUNK_PAGES),
            ),
        };
        // The state of an only chunk is the row's; a sink wants to be added.
        let several = if self.sinks {
            b.ge(high, low)
        } else {
            b.gt(high, low)
        };
        b.when(several, |b| {
            b.for_each(zero, item.rows, 1, |b, i| {
                self.begin_total(b, a, item, i, a.totals);
            });
        });
        let end = b.add(high, one);
        b.for_each(low, end, 1, |b, chunk| {
            let pages = match self.mask {
                Mask::Bidirectional => all,
                Mask::Causal { .. } => all.of_chunk(b, chunk),
            };
            self.chunk(b, a, item, a.states, pages);
            b.when(several, |b| {
                b.for_each(zero, item.rows, 1, |b, i| {
                    self.fold(b, a.totals, i, a.states, i);
                });
            });
        });
        let states = b.select(several, a.totals, a.states);
        b.for_each(zero, item.rows, 1, |b, i| {
            self.finish(b, a, item, i, states);
        });
    }

    /// Whether chunks are to be shared out: there are too few items to keep the threads busy, some
    /// have several chunks, and the partials hold them.
    pub(super) fn few_items(&self, b: &mut KernelBuilder<'_>, a: Args) -> Value {
        let zero = b.i64(0);
        let start = [zero; 3];
        let sums = b.for_carried(zero, a.sequences, 1, &start, |b, index, sums| {
            let (s, end) = self.sequence(b, a, index);
            let (_, chunks) = self.chunks(b, a, s, end);
            let units = b.mul(s.tiles, chunks);
            let states = b.mul(s.rows, chunks);
            vec![
                b.add(sums[0], s.tiles),
                b.add(sums[1], units),
                b.add(sums[2], states),
            ]
        });
        let items = b.mul_const(sums[0], self.kv.heads);
        let states = b.mul_const(sums[2], self.kv.heads);
        let enough = b.mul_const(a.threads, ENOUGH_ITEMS);
        let (most, room, one) = (b.i64(SPLIT_ITEMS), b.i64(self.split), b.i64(1));
        let several = b.gt(a.threads, one);
        let long = b.gt(sums[1], sums[0]);
        let few = b.lt(items, enough);
        let counted = b.le(items, most);
        let held = b.le(states, room);
        let all = b.and(several, long);
        let all = b.and(all, few);
        let all = b.and(all, counted);
        b.and(all, held)
    }

    /// The thread's run of the chunks of all items.
    pub(super) fn apart(&self, b: &mut KernelBuilder<'_>, a: Args) {
        let zero = b.i64(0);
        let units = b.for_carried(zero, a.sequences, 1, &[zero], |b, index, units| {
            let (s, end) = self.sequence(b, a, index);
            let (_, chunks) = self.chunks(b, a, s, end);
            let more = b.mul(s.tiles, chunks);
            let more = b.mul_const(more, self.kv.heads);
            vec![b.add(units[0], more)]
        });
        let (low, high) = b.slice(a.thread, a.threads, units[0]);
        // Units, items and states of the sequences before.
        let start = [zero; 3];
        b.for_carried(zero, a.sequences, 1, &start, |b, index, before| {
            let (s, end) = self.sequence(b, a, index);
            let (first, chunks) = self.chunks(b, a, s, end);
            let items = b.mul_const(s.tiles, self.kv.heads);
            let units = b.mul(items, chunks);
            let (from, to) = (b.sub(low, before[0]), b.sub(high, before[0]));
            let (from, to) = (b.max(from, zero), b.min(to, units));
            b.for_each(from, to, 1, |b, unit| {
                let number = b.div(unit, chunks);
                let place = b.rem(unit, chunks);
                let item = self.item(b, s, number);
                let counter = b.add(before[1], number);
                let counter = b.at(a.counters, counter, 4);
                // States lie [head][tile][chunk][row].
                let row = b.mul(item.head, s.rows);
                let row = b.add(row, item.row);
                let states = b.mul(row, chunks);
                let states = b.add(states, before[2]);
                let states = b.at(a.partials, states, self.state_floats() * F32);
                let chunk = b.add(first, place);
                self.part(b, a, item, (states, place), chunk);
                let one = b.i32(1);
                let done = b.atomic_add(counter, one);
                let done = b.sign_extend(done, Elem::I64);
                let done = b.add_const(done, 1);
                let last = b.eq(done, chunks);
                b.when(last, |b| {
                    let none = b.i32(0);
                    b.store(none, counter);
                    self.join(b, a, item, states, chunks);
                });
            });
            let states = b.mul(s.rows, chunks);
            let states = b.mul_const(states, self.kv.heads);
            vec![
                b.add(before[0], units),
                b.add(before[1], items),
                b.add(before[2], states),
            ]
        });
    }

    /// Chunk `chunk` of an item, the `place`th of its list, into the item's states.
    fn part(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        (states, place): (Value, Value),
        chunk: Value,
    ) {
        self.scale_queries(b, a, item);
        let (first, last) = self.item_keys(b, a, item);
        let (low, high) = (b.div_const(first, PAGE), b.div_const(last, PAGE));
        let end = b.add_const(high, 1);
        let pages = Pages { low, end, last }.of_chunk(b, chunk);
        let skip = b.mul(place, item.rows);
        let states = b.at(states, skip, self.state_floats() * F32);
        self.chunk(b, a, item, states, pages);
    }

    /// Folds the states of an item's chunks and writes its rows out.
    fn join(&self, b: &mut KernelBuilder<'_>, a: Args, item: Item, states: Value, chunks: Value) {
        let zero = b.i64(0);
        b.for_each(zero, item.rows, 1, |b, i| {
            self.begin_total(b, a, item, i, a.totals);
            b.for_each(zero, chunks, 1, |b, chunk| {
                let from = b.mul(chunk, item.rows);
                let from = b.add(from, i);
                self.fold(b, a.totals, i, states, from);
            });
            self.finish(b, a, item, i, a.totals);
        });
    }
}
