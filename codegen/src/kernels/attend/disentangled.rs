//! Position terms of disentangled attention: products of queries and keys with tables, picked by
//! the distance of query and key.
//!
//! For an item and the pages of a chunk, the scaled queries are multiplied once with the rows of
//! `pos_key` that their distances reach: `[ROWS][rows]`. For a page, the rows of `pos_query` that its
//! distances reach are multiplied with its keys: `[near][64]`. Then each score picks one of each.
//!
//! Both tables begin with the row of every distance, i32, and go on with f32:
//! `pos_key [heads][k_width][rows]`, `pos_query [heads][rows][k_width]`.

use super::chunk::Pages;
use super::{Args, Attend, Item, ROWS};
use crate::kernel::{Elem, KernelBuilder, LANES, Ty, Value};
use crate::kernels::kv::PAGE;
use crate::kernels::{F32, Tile};

/// Columns of `pos_key` that one tile multiplies.
const COLUMNS: i64 = 32;

/// The terms, and how their tables are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Queries with `pos_key`.
    pub c2p: bool,
    /// Keys with `pos_query`.
    pub p2c: bool,
    /// Row numbers in front of a table, a multiple of 16: that of distance d = query − key stands at
    /// `origin + d`. They rise with d.
    pub entries: i64,
    pub origin: i64,
    /// Rows of a table, a multiple of 32.
    pub rows: i64,
    /// Most rows that the distances of an item's queries and one page's keys reach.
    pub near: i64,
}

/// Rows of the tables that distances reach: where the products begin.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub queries: Option<Value>,
    pub keys: Option<Value>,
}

impl Terms {
    /// Most tokens between the first and the last distance of an item and a page.
    pub const SPREAD: i64 = ROWS - 1 + PAGE - 1;

    pub(super) fn name(&self) -> String {
        let terms = [(self.c2p, "c"), (self.p2c, "p")];
        let terms: String = terms.iter().filter(|t| t.0).map(|t| t.1).collect();
        let Terms {
            entries,
            origin,
            rows,
            near,
            ..
        } = self;
        format!("_terms_{terms}_{entries}_{origin}_{rows}_{near}")
    }

    /// Floats of `[ROWS][rows]` products of queries.
    pub(super) fn query_floats(&self) -> i64 {
        if self.c2p { ROWS * self.rows } else { 0 }
    }

    /// Floats of `[near][64]` products of keys.
    pub(super) fn key_floats(&self) -> i64 {
        if self.p2c { self.near * PAGE } else { 0 }
    }
}

impl Attend {
    /// Positions of an item's first and last query.
    fn ends(&self, b: &mut KernelBuilder<'_>, a: Args, item: Item) -> (Value, Value) {
        let zero = b.i64(0);
        let last = b.add_const(item.rows, -1);
        let [first, last] = [zero, last].map(|row| {
            let (token, _) = self.place(b, item, row);
            self.position(b, a, token)
        });
        (first, last)
    }

    /// The number of the row of distance 0.
    fn numbers(&self, b: &mut KernelBuilder<'_>, a: Args, terms: Terms) -> Value {
        let table = if terms.c2p { a.pos_key } else { a.pos_query };
        b.offset(table, terms.origin * 4)
    }

    /// The row of a distance.
    fn table_row(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        terms: Terms,
        distance: Value,
    ) -> Value {
        let numbers = self.numbers(b, a, terms);
        let p = b.at(numbers, distance, 4);
        b.load_i32(p)
    }

    /// Products of the scaled queries with the rows that the keys of `pages` reach; the first row.
    pub(super) fn query_terms(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        pages: Pages,
    ) -> Option<Value> {
        let terms = self.terms.filter(|t| t.c2p)?;
        let (first, last) = self.ends(b, a, item);
        let behind = b.mul_const(pages.end, PAGE);
        let least = b.sub(first, behind);
        let least = b.add_const(least, 1);
        let before = b.mul_const(pages.low, PAGE);
        let most = b.sub(last, before);
        let low = self.table_row(b, a, terms, least);
        let low = b.div_const(low, COLUMNS);
        let low = b.mul_const(low, COLUMNS);
        let high = self.table_row(b, a, terms, most);
        let count = b.sub(high, low);
        let count = b.add_const(count, 1);
        let count = b.ceil_div_const(count, COLUMNS);

        let (k_width, zero, zeros) = (self.kv.k_width, b.i64(0), b.splat(0.0));
        let table = b.offset(a.pos_key, terms.entries * 4);
        let table = b.at(table, item.head, k_width * terms.rows * F32);
        let table = b.at(table, low, F32);
        b.for_each(zero, count, 1, |b, block| {
            let columns = b.at(table, block, COLUMNS * F32);
            let products = b.at(a.query_terms, block, COLUMNS * F32);
            b.for_each(zero, item.rows, 1, |b, i| {
                let p = b.at(products, i, terms.rows * F32);
                for group in 0..COLUMNS / LANES {
                    let p = b.offset(p, group * LANES * F32);
                    b.store(zeros, p);
                }
            });
            let tile = Tile {
                elem: Elem::F32,
                groups: COLUMNS / LANES,
                w_stride: terms.rows,
                acc_stride: terms.rows,
            }
            .emit(b);
            let (stride, k) = (b.i64(k_width * F32), b.i64(k_width));
            b.call(
                &tile,
                &[item.rows, a.queries, stride, columns, products, k],
                &[],
            );
        });
        Some(low)
    }

    /// First row that the distances of an item and the page whose first key is `key` reach, and how
    /// many there are.
    pub(super) fn key_reach(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        key: Value,
    ) -> Option<(Value, Value)> {
        let terms = self.terms.filter(|t| t.p2c)?;
        let (first, last) = self.ends(b, a, item);
        let least = b.sub(first, key);
        let least = b.add_const(least, 1 - PAGE);
        let most = b.sub(last, key);
        let low = self.table_row(b, a, terms, least);
        let high = self.table_row(b, a, terms, most);
        let count = b.sub(high, low);
        Some((low, b.add_const(count, 1)))
    }

    /// Products of a page's keys with the rows that are reached.
    pub(super) fn key_terms(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        (low, count): (Value, Value),
        (elem, keys): (Elem, Value),
    ) {
        let Some(terms) = self.terms else {
            return;
        };
        let (k_width, zero, zeros) = (self.kv.k_width, b.i64(0), b.splat(0.0));
        b.for_each(zero, count, 1, |b, row| {
            let p = b.at(a.key_terms, row, PAGE * F32);
            for group in 0..PAGE / LANES {
                let p = b.offset(p, group * LANES * F32);
                b.store(zeros, p);
            }
        });
        let table = b.offset(a.pos_query, terms.entries * 4);
        let table = b.at(table, item.head, terms.rows * k_width * F32);
        let table = b.at(table, low, k_width * F32);
        let tile = Tile {
            elem,
            groups: PAGE / LANES,
            w_stride: PAGE,
            acc_stride: PAGE,
        }
        .emit(b);
        let (stride, k) = (b.i64(k_width * F32), b.i64(k_width));
        b.call(&tile, &[count, table, stride, keys, a.key_terms, k], &[]);
    }

    /// Adds to the scores of row `i` with the page whose first key is `key`.
    pub(super) fn add_terms(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        i: Value,
        (key, reach): (Value, Reach),
    ) {
        let Some(terms) = self.terms else {
            return;
        };
        let (token, _) = self.place(b, item, i);
        let position = self.position(b, a, token);
        let distance = b.sub(position, key);
        let numbers = self.numbers(b, a, terms);
        let numbers = b.at(numbers, distance, 4);
        let scores = b.at(a.scores, i, PAGE * F32);
        let scale = b.f32(self.scale);
        let zero = b.i64(0);
        let of_query = b.at(a.query_terms, i, terms.rows * F32);
        b.for_unrolled(PAGE, 4, |b, j| {
            let back = b.sub(zero, j);
            let p = b.at(numbers, back, 4);
            let row = b.load_i32(p);
            let to = b.at(scores, j, F32);
            let mut score = b.load(Ty::F32, to);
            if let Some(low) = reach.queries {
                let at = b.sub(row, low);
                let p = b.at(of_query, at, F32);
                let term = b.load(Ty::F32, p);
                score = b.add(score, term);
            }
            if let Some(low) = reach.keys {
                let at = b.sub(row, low);
                let p = b.at(a.key_terms, at, PAGE * F32);
                let p = b.at(p, j, F32);
                let term = b.load(Ty::F32, p);
                score = b.fma(term, scale, score);
            }
            b.store(score, to);
        });
    }
}
