//! The state of every row of an item after the keys of one chunk: some pages at a time, scores,
//! softmax step, mix.

use super::disentangled::Reach;
use super::{Args, Attend, Bias, CHUNK_PAGES, Item, MASKED, Mask, ROWS, STEP_PAGES, UNPACK_ROWS};
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
        match &self.pattern {
            None => b.for_each(pages.low, pages.end, self.together(), |b, low| {
                let end = b.add_const(low, self.together());
                let end = b.min(end, pages.end);
                self.step(b, a, item, states, Pages { low, end, ..pages }, queries);
            }),
            Some(pattern) => b.for_each(pages.low, pages.end, 1, |b, low| {
                let seen = self.sees(b, a, item, pattern, low, pages.last);
                b.when(seen, |b| {
                    let end = b.add_const(low, 1);
                    self.step(b, a, item, states, Pages { low, end, ..pages }, queries);
                });
            }),
        }
    }

    /// Pages whose scores are computed before one softmax step. Position terms are a page's, and
    /// sparse masks leave pages out. A causal chunk is one step whatever pages of it an item sees.
    pub(super) fn together(&self) -> i64 {
        match self.mask {
            _ if self.pattern.is_some() || self.terms.is_some() => 1,
            Mask::Causal { .. } => CHUNK_PAGES,
            Mask::Bidirectional => STEP_PAGES,
        }
    }

    /// Whether a chunk has more than one softmax step, so that a maximum can grow.
    fn steps_follow(&self) -> bool {
        self.mask == Mask::Bidirectional || self.together() < CHUNK_PAGES
    }

    /// The scores of a row: those of a step's pages.
    fn row_scores(&self, b: &mut KernelBuilder<'_>, a: Args, i: Value) -> Value {
        b.at(a.scores, i, self.together() * PAGE * F32)
    }

    /// Runs `body` on every page of a step: its number, and the place of its columns in scores.
    fn each_page(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        pages: Pages,
        body: impl FnOnce(&mut KernelBuilder<'_>, Value, Value),
    ) {
        if self.together() == 1 {
            return body(b, pages.low, a.scores);
        }
        b.for_each(pages.low, pages.end, 1, |b, index| {
            let place = b.sub(index, pages.low);
            let scores = b.at(a.scores, place, PAGE * F32);
            body(b, index, scores);
        });
    }

    /// A value of a row over a step's pages: `page` makes the next of a page's number, its columns in the
    /// row's scores, and the value so far.
    fn over_pages(
        &self,
        b: &mut KernelBuilder<'_>,
        (scores, pages): (Value, Pages),
        start: Value,
        page: impl FnOnce(&mut KernelBuilder<'_>, Value, Value, Value) -> Value,
    ) -> Value {
        if self.together() == 1 {
            return page(b, pages.low, scores, start);
        }
        let end = b.for_carried(pages.low, pages.end, 1, &[start], |b, index, so_far| {
            let place = b.sub(index, pages.low);
            let scores = b.at(scores, place, PAGE * F32);
            vec![page(b, index, scores, so_far[0])]
        });
        end[0]
    }

    /// One softmax step: the scores of all its pages, then probabilities, then values.
    fn step(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        states: Value,
        pages: Pages,
        queries: Option<Value>,
    ) {
        let zero = b.i64(0);
        let stride = self.together() * PAGE;
        let first = b.mul_const(pages.low, PAGE);
        let near = self.key_reach(b, a, item, first);
        self.each_page(b, a, pages, |b, index, scores| {
            let page = self
                .kv
                .page(b, a.slot, a.table, a.table_stride, item.sequence, index);
            let keys = self.kv.keys(b, page, item.head);
            let all = b.i64(PAGE);
            self.widened(b, a, item, (Part::Keys, keys, all), |b, elem, keys| {
                let tile = Tile {
                    elem,
                    groups: PAGE / LANES,
                    w_stride: PAGE,
                    acc_stride: stride,
                }
                .emit_product(b);
                let k_width = self.kv.k_width;
                let (stride, k) = (b.i64(k_width * F32), b.i64(k_width));
                b.call(&tile, &[item.rows, a.queries, stride, keys, scores, k], &[]);
                if let Some(near) = near {
                    self.key_terms(b, a, item, near, (elem, keys));
                }
            });
        });
        let reach = Reach {
            queries,
            keys: near.map(|near| near.0),
        };
        b.for_each(zero, item.rows, 1, |b, i| {
            self.add_terms(b, a, item, i, (first, reach));
            self.maximum_of(b, a, item, states, i, pages);
        });
        // A loop of its own: its rows do not wait for the maxima one by one.
        b.for_each(zero, item.rows, 1, |b, i| {
            self.exponents(b, a, states, i, pages);
        });
        self.each_page(b, a, pages, |b, index, probabilities| {
            // Keys behind the last visible one have probability 0 in every row.
            let first = b.mul_const(index, PAGE);
            let seen = b.sub(pages.last, first);
            let seen = b.div_const(seen, 4);
            let seen = b.add_const(seen, 1);
            let seen = b.mul_const(seen, 4);
            let all = b.i64(PAGE);
            let seen = b.min(seen, all);
            let page = self
                .kv
                .page(b, a.slot, a.table, a.table_stride, item.sequence, index);
            let values = self.kv.values(b, page, item.head);
            let part = (Part::Values, values, seen);
            self.widened(b, a, item, part, |b, elem, values| {
                let v_width = self.kv.v_width;
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
                    let stride = b.i64(stride * F32);
                    b.call(
                        &tile,
                        &[item.rows, probabilities, stride, values, mixed, seen],
                        &[],
                    );
                    column += groups * LANES;
                }
            });
        });
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

    /// Bias, cap and mask on the scores of row `i`; rescales the row's state if its maximum grew.
    fn maximum_of(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        states: Value,
        i: Value,
        pages: Pages,
    ) {
        let (token, head) = self.place(b, item, i);
        let scores = self.row_scores(b, a, i);
        let position = self.position(b, a, token);
        let (mut table, mut slope) = (None, None);
        match self.bias {
            Some(Bias::Relative(bias)) => {
                let p = b.at(a.bias, head, bias.stride * F32);
                table = Some(b.offset(p, bias.zero * F32));
            }
            Some(Bias::Slopes) => {
                let p = b.at(a.bias, head, F32);
                slope = Some(b.load_broadcast(p));
            }
            None => {}
        }
        let last_key = b.add_const(item.keys, -1);
        let to = match self.mask {
            Mask::Causal { .. } => b.min(position, last_key),
            Mask::Bidirectional => last_key,
        };
        let from = match self.mask {
            Mask::Causal { window: Some(w) } => Some(b.add_const(position, 1 - w)),
            _ => None,
        };
        let masked = b.splat(MASKED);
        let top = self.over_pages(b, (scores, pages), masked, |b, index, scores, top| {
            let first = b.mul_const(index, PAGE);
            let distance = b.sub(first, position);
            let table = table.map(|p| b.at(p, distance, F32));
            let slope = slope.map(|slope| {
                let distance = b.truncate(distance, Elem::I32);
                (slope, b.broadcast(distance))
            });
            // Visible keys as a range of lanes: from - first <= lane <= to - first.
            let lane = |b: &mut KernelBuilder<'_>, key| {
                let lane = b.sub(key, first);
                let lane = b.truncate(lane, Elem::I32);
                b.broadcast(lane)
            };
            let to = lane(b, to);
            let from = from.map(|from| lane(b, from));
            let lanes = b.lane_numbers();
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
                let v = b.select(seen, v, masked);
                b.store(v, p);
                values.push(v);
            }
            let (x, y) = (b.max(values[0], values[1]), b.max(values[2], values[3]));
            let more = b.max(x, y);
            b.max(top, more)
        });
        let top = b.max_lanes(top);
        let state = self.state(b, states, i);
        let p = self.maximum(b, state);
        if !self.steps_follow() {
            b.store(top, p);
            return;
        }
        let old = b.load(Ty::F32, p);
        let new = b.max(old, top);
        b.store(new, p);
        // Before the first key there is nothing to rescale.
        let (grown, none) = (b.ne(new, old), b.f32(MASKED));
        let some = b.ne(old, none);
        let grown = b.and(grown, some);
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
    }

    /// Scores of row `i` to probabilities.
    fn exponents(&self, b: &mut KernelBuilder<'_>, a: Args, states: Value, i: Value, pages: Pages) {
        let scores = self.row_scores(b, a, i);
        let state = self.state(b, states, i);
        let p = self.maximum(b, state);
        let top = b.load_broadcast(p);
        let (masked, zeros) = (b.splat(MASKED), b.splat(0.0));
        let sums = self.sums(b, state);
        let sum = b.load_group(sums);
        let sum = self.over_pages(b, (scores, pages), sum, |b, _, scores, sum| {
            let mut probabilities = Vec::new();
            for group in 0..PAGE / LANES {
                let p = b.offset(scores, group * LANES * F32);
                let v = b.load_group(p);
                let seen = b.ne(v, masked);
                let v = b.sub(v, top);
                let v = b.exp(v);
                let v = b.select(seen, v, zeros);
                b.store(v, p);
                probabilities.push(v);
            }
            let x = b.add(probabilities[0], probabilities[1]);
            let y = b.add(probabilities[2], probabilities[3]);
            let more = b.add(x, y);
            b.add(sum, more)
        });
        b.store(sum, sums);
    }
}
