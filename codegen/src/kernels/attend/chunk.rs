//! The state of every row of an item after the keys of one chunk: page after page, scores, softmax
//! step, mix.

use super::disentangled::Reach;
use super::{Args, Attend, Bias, CHUNK_PAGES, Item, MASKED, Mask, ROWS, UNPACK_ROWS};
use crate::kernel::{Elem, KernelBuilder, LANES, Ty, Value};
use crate::kernels::kv::PAGE;
use crate::kernels::kv_unpack::{KvUnpack, Part};
use crate::kernels::{F32, PANEL, Tile};

/// Pages `low..end`, and the last key that is visible.
#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub low: Value,
    pub end: Value,
    pub last: Value,
}

impl Pages {
    /// Those of a chunk.
    pub fn of_chunk(self, b: &mut KernelBuilder<'_>, chunk: Value) -> Pages {
        let first = b.mul_const(chunk, CHUNK_PAGES);
        let end = b.add_const(first, CHUNK_PAGES);
        Pages {
            low: b.max(self.low, first),
            end: b.min(self.end, end),
            last: self.last,
        }
    }
}

impl Attend {
    /// The item's queries times the scale, into scratch.
    pub(super) fn scale_queries(&self, b: &mut KernelBuilder<'_>, a: Args, item: Item) {
        let zero = b.i64(0);
        b.for_each(zero, item.rows, 1, |b, i| {
            let (token, head) = self.place(b, item, i);
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
        });
    }

    /// The state of each row over `pages`, into `states`.
    pub(super) fn chunk(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        states: Value,
        pages: Pages,
    ) {
        let zero = b.i64(0);
        b.for_each(zero, item.rows, 1, |b, i| {
            let state = self.state(b, states, i);
            self.empty(b, state);
        });
        let queries = self.query_terms(b, a, item, pages);
        let at = (pages.last, queries);
        b.for_each(pages.low, pages.end, 1, |b, page| match &self.pattern {
            None => self.page(b, a, item, states, page, at),
            Some(pattern) => {
                let seen = self.sees(b, a, item, pattern, page, pages.last);
                b.when(seen, |b| self.page(b, a, item, states, page, at));
            }
        });
    }

    fn page(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        states: Value,
        index: Value,
        (last, queries): (Value, Option<Value>),
    ) {
        let page = self
            .kv
            .page(b, a.slot, a.table, a.table_stride, item.sequence, index);
        let keys = self.kv.keys(b, page, item.head);
        let values = self.kv.values(b, page, item.head);
        let first = b.mul_const(index, PAGE);
        let (zero, zeros) = (b.i64(0), b.splat(0.0));
        b.for_each(zero, item.rows, 1, |b, i| {
            let p = b.at(a.scores, i, PAGE * F32);
            for group in 0..PAGE / LANES {
                let p = b.offset(p, group * LANES * F32);
                b.store(zeros, p);
            }
        });
        let k_width = self.kv.k_width;
        let all = b.i64(PAGE);
        let near = self.key_reach(b, a, item, first);
        self.widened(b, a, item, (Part::Keys, keys, all), |b, elem, keys| {
            let tile = Tile {
                elem,
                groups: PAGE / LANES,
                w_stride: PAGE,
                acc_stride: PAGE,
            }
            .emit(b);
            let (stride, k) = (b.i64(k_width * F32), b.i64(k_width));
            b.call(
                &tile,
                &[item.rows, a.queries, stride, keys, a.scores, k],
                &[],
            );
            if let Some(near) = near {
                self.key_terms(b, a, item, near, (elem, keys));
            }
        });
        let reach = Reach {
            queries,
            keys: near.map(|near| near.0),
        };
        b.for_each(zero, item.rows, 1, |b, i| {
            self.add_terms(b, a, item, i, (first, reach));
            self.softmax(b, a, item, states, i, first);
        });

        // Keys behind the last visible one have probability 0 in every row.
        let seen = b.sub(last, first);
        let seen = b.div_const(seen, 4);
        let seen = b.add_const(seen, 1);
        let seen = b.mul_const(seen, 4);
        let seen = b.min(seen, all);
        let v_width = self.kv.v_width;
        self.widened(
            b,
            a,
            item,
            (Part::Values, values, seen),
            |b, elem, values| {
                let mut column = 0;
                while column < v_width {
                    let groups = ((v_width - column) / LANES).min(PANEL / LANES);
                    let tile = Tile {
                        elem,
                        groups,
                        w_stride: v_width,
                        acc_stride: self.state_floats(),
                    }
                    .emit(b);
                    let values = b.offset(values, column * elem.bytes());
                    let mixed = b.offset(states, column * F32);
                    let stride = b.i64(PAGE * F32);
                    b.call(
                        &tile,
                        &[item.rows, a.scores, stride, values, mixed, seen],
                        &[],
                    );
                    column += groups * LANES;
                }
            },
        );
    }

    /// Runs `body` on keys, or on the first `tokens` values, of a page: 16-bit ones in their own type
    /// for few rows, others widened.
    fn widened(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        (part, from, tokens): (Part, Value, Value),
        mut body: impl FnMut(&mut KernelBuilder<'_>, Elem, Value),
    ) {
        let width = match part {
            Part::Keys => self.kv.k_width,
            Part::Values => self.kv.v_width,
        };
        let elem = self.kv.elem;
        let unpack = KvUnpack { elem, part, width };
        let elem = match elem.plain() {
            Some(Elem::F32) => return body(b, Elem::F32, from),
            Some(elem) => elem,
            None => {
                unpack.call(b, tokens, from, a.wide);
                return body(b, Elem::F32, a.wide);
            }
        };
        let limit = b.i64(UNPACK_ROWS.min(ROWS));
        let many = b.ge(item.rows, limit);
        // Both arms are emitted one after the other, so each may borrow the body in turn.
        let body = std::cell::RefCell::new(&mut body);
        b.choose(
            many,
            |b| {
                unpack.call(b, tokens, from, a.wide);
                body.borrow_mut()(b, Elem::F32, a.wide);
                Vec::new()
            },
            |b| {
                body.borrow_mut()(b, elem, from);
                Vec::new()
            },
        );
    }

    /// Scores of row `i` to probabilities; rescales the row's state if its maximum grew.
    fn softmax(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        states: Value,
        i: Value,
        first: Value,
    ) {
        let (token, head) = self.place(b, item, i);
        let scores = b.at(a.scores, i, PAGE * F32);
        let position = self.position(b, a, token);
        let distance = b.sub(first, position);
        let (mut table, mut slope) = (None, None);
        match self.bias {
            Some(Bias::Relative(bias)) => {
                let p = b.at(a.bias, head, bias.stride * F32);
                let p = b.at(p, distance, F32);
                table = Some(b.offset(p, bias.zero * F32));
            }
            Some(Bias::Slopes) => {
                let p = b.at(a.bias, head, F32);
                let distance = b.truncate(distance, Elem::I32);
                slope = Some((b.load_broadcast(p), b.broadcast(distance)));
            }
            None => {}
        }
        // Visible keys as a range of lanes: from - first <= lane <= to - first.
        let last_key = b.add_const(item.keys, -1);
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
            let key = b.add_const(lanes, group * LANES);
            if let Some(table) = table {
                let p = b.offset(table, group * LANES * F32);
                let bias = b.load_group(p);
                v = b.add(v, bias);
            }
            if let Some((slope, distance)) = slope {
                let distance = b.add(distance, key);
                let distance = b.to_float(distance, Elem::F32);
                let bias = b.mul(slope, distance);
                v = b.add(v, bias);
            }
            let mut seen = b.le(key, to);
            if let Some(from) = from {
                let late = b.ge(key, from);
                seen = b.and(seen, late);
            }
            if let Some(pattern) = &self.pattern {
                let shown = self.shown(b, pattern, (first, group), position);
                seen = b.and(seen, shown);
            }
            values.push(b.select(seen, v, masked));
            visible.push(seen);
        }
        let (x, y) = (b.max(values[0], values[1]), b.max(values[2], values[3]));
        let top = b.max(x, y);
        let top = b.max_lanes(top);
        let state = self.state(b, states, i);
        let p = self.maximum(b, state);
        let old = b.load(Ty::F32, p);
        let new = b.max(old, top);
        b.store(new, p);

        let sums = self.sums(b, state);
        let grown = b.ne(new, old);
        b.when(grown, |b| {
            let change = b.sub(old, new);
            let change = b.broadcast(change);
            let factor = b.exp(change);
            // The sums lie behind the mixed values.
            b.for_unrolled(self.kv.v_width / LANES + 1, 4, |b, g| {
                let p = b.at(state, g, LANES * F32);
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
}
