//! Sparse masks: lane by lane the keys that a query sees, and by that the pages that an item sees.
//!
//! In: a mask of the IR, positions of queries and keys. Out: lanes of i1, or one bit for a page. A page is
//! asked for every token of the item, so that one is read exactly where a row sees a key of it.
//! Positions are i32, below 2^30.

use llmc_ir::Mask;

use super::{Args, Attend, Item};
use crate::kernel::{Elem, KernelBuilder, LANES, Value};
use crate::kernels::kv::PAGE;

/// The mask in letters of a symbol: `(` and `)` as L and R, `&` and `|` as A and O.
pub(super) fn tag(mask: &Mask) -> String {
    let letter = |c: char| match c {
        '(' => Some('L'),
        ')' => Some('R'),
        '&' => Some('A'),
        '|' => Some('O'),
        ',' => Some('_'),
        c => c.is_ascii_alphanumeric().then_some(c),
    };
    mask.to_string().chars().filter_map(letter).collect()
}

impl Attend {
    /// Whether the query at `position` sees the keys `first + 16 · group …` (lanes).
    pub(super) fn shown(
        &self,
        b: &mut KernelBuilder<'_>,
        pattern: &Mask,
        (first, group): (Value, i64),
        position: Value,
    ) -> Value {
        let first = b.add_const(first, group * LANES);
        let first = b.truncate(first, Elem::I32);
        let first = b.broadcast(first);
        let lanes = b.lane_numbers();
        let keys = b.add(first, lanes);
        let position = b.truncate(position, Elem::I32);
        let query = b.broadcast(position);
        term(b, pattern, keys, query)
    }

    /// Whether a token of the item sees a key of page `page`, of those up to `last`.
    pub(super) fn sees(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        item: Item,
        pattern: &Mask,
        page: Value,
        last: Value,
    ) -> Value {
        let (zero, one) = (b.i64(0), b.i64(1));
        let last_row = b.add_const(item.rows, -1);
        let (from, _) = self.place(b, item, zero);
        let (to, _) = self.place(b, item, last_row);
        let end = b.add(to, one);
        let first = b.mul_const(page, PAGE);
        let left = b.sub(last, first);
        let left = b.truncate(left, Elem::I32);
        let left = b.broadcast(left);
        let (yes, no) = (b.splat(1.0), b.splat(0.0));
        let seen = b.for_carried(from, end, 1, &[no], |b, token, seen| {
            let position = self.position(b, a, token);
            let mut seen = seen[0];
            for group in 0..PAGE / LANES {
                let shown = self.shown(b, pattern, (first, group), position);
                let lanes = b.lane_numbers();
                let key = b.add_const(lanes, group * LANES);
                let written = b.le(key, left);
                let shown = b.and(shown, written);
                seen = b.select(shown, yes, seen);
            }
            vec![seen]
        });
        let most = b.max_lanes(seen[0]);
        let none = b.f32(0.0);
        b.gt(most, none)
    }
}

/// Lanes of i1: whether the mask shows `keys` to `query`, both i32.
fn term(b: &mut KernelBuilder<'_>, mask: &Mask, keys: Value, query: Value) -> Value {
    // Beyond all positions, and far from overflow.
    let reach = |w: u32| i64::from(w.min(1 << 30));
    match mask {
        Mask::Bidirectional => b.eq(keys, keys),
        Mask::Causal => b.le(keys, query),
        Mask::Window(w) => {
            let edge = b.add_const(query, -reach(*w));
            b.gt(keys, edge)
        }
        Mask::Band(w) => {
            let (low, high) = (
                b.add_const(query, -reach(*w)),
                b.add_const(query, reach(*w)),
            );
            let (behind, ahead) = (b.gt(keys, low), b.lt(keys, high));
            b.and(behind, ahead)
        }
        Mask::Stride { every, block } => {
            let [key, query] = [keys, query].map(|v| {
                let v = b.div_const(v, reach(*block));
                b.rem_const(v, reach(*every))
            });
            b.eq(key, query)
        }
        Mask::Fixed { span, last } => {
            let (span, last) = (reach(*span), reach(*last));
            let [key, query] = [keys, query].map(|v| b.div_const(v, span));
            let own = b.eq(key, query);
            let place = b.rem_const(keys, span);
            let edge = b.constant(keys.ty, (span - last) as f64);
            let summary = b.ge(place, edge);
            b.or(own, summary)
        }
        Mask::And(masks) | Mask::Or(masks) => {
            let parts: Vec<Value> = masks.iter().map(|m| term(b, m, keys, query)).collect();
            let joined = parts.into_iter().reduce(|x, y| match mask {
                Mask::And(_) => b.and(x, y),
                _ => b.or(x, y),
            });
            joined.expect("`&` and `|` join two masks or more (V5)")
        }
    }
}
