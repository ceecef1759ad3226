//! Attention over the paged KV cache, with an online softmax.
//!
//! In: queries of a step, pages, positions. Out: one mixed value row per query and head.
//!
//! - An item is (sequence, KV head, up to 24 query rows); a query row is a (token, query head of
//!   the group) pair, so the heads of a group share every load of K and V.
//! - A row's keys are cut into chunks of 128, by key index. Each chunk has a state of its own
//!   (maximum, sum, mixed values; step after step within it, a step being pages at fixed places);
//!   the states are folded in the order of the chunks, empty ones left out. So one row's chunks may
//!   go to several threads: the result is the same bit for bit whoever computes which, and whichever
//!   rows share an item.
//! - Masked keys have probability exactly 0; whatever finite values a recycled page holds there do
//!   not matter. A page that no row of an item sees is not read: pages out of range are not counted
//!   through, and where the mask has a pattern each page is asked for first.
//!
//! | file | |
//! |---|---|
//! | `schedule` | who computes what: whole items, or chunks of items where those are few |
//! | `chunk` | the state of a chunk |
//! | `disentangled` | position terms of scores |
//! | `pattern` | sparse masks: the keys that a query sees, the pages that an item sees |
//! | `state` | folding states, and their end |

mod chunk;
mod disentangled;
mod pattern;
mod schedule;
mod state;

pub use disentangled::Terms;

use super::kv::PAGE;
use super::{F32, KvElem, KvLayout, tag};
use crate::kernel::{KernelBuilder, LANES, Param, Value};

/// Query rows of an item.
const ROWS: i64 = 24;
/// Pages of a chunk: few, so that a window of 512 keys can be shared evenly; more than one, as every
/// chunk costs a fold.
const CHUNK_PAGES: i64 = 2;
/// Pages of a softmax step of a chunk that holds all keys: many, as every step rescales; few enough
/// that their scores stay in the first cache.
const STEP_PAGES: i64 = 4;
/// Rows from which on a 16-bit page is widened once.
const UNPACK_ROWS: i64 = 12;
/// Score of a masked key, and the running maximum before the first key.
const MASKED: f32 = -1e30;
/// Most items whose chunks may go to several threads; each has a counter.
const SPLIT_ITEMS: i64 = 64;
/// Items for each thread from which on they are not split.
const ENOUGH_ITEMS: i64 = 4;

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
pub enum Bias {
    /// From a table.
    Relative(RelativeBias),
    /// `slope[head] · (j − i)` for key j and query i, `bias` being the slopes.
    Slopes,
}

/// A table of scores by head and distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeBias {
    /// Floats of a head's row; the score of key j for query i is `row[j - i + zero]`. Whole pages
    /// are read, so the row goes on for 63 floats behind the largest distance.
    pub stride: i64,
    /// Index of distance 0.
    pub zero: i64,
}

/// Emits `attend(thread, threads, b: i64, q: *f32, slot: *u8, table: *i32, table_stride: i64,
/// pos: *i32, q_start: *i32, kv_len: *i32, bias: *f32, pos_key: *u8, pos_query: *u8, sinks: *f32,
/// out: *f32, scratch: *u8, partials: *u8)`: q `[n, q_stride]` with heads of `k_width`; out
/// `[n, out_stride]` with heads of `v_width`; `sinks` `[query heads]`; `bias` `[query heads][stride]`
/// or `[query heads]`; `pos_key` and `pos_query` as [`Terms`] says; all unread unless asked for.
/// All threads share `partials`, which begins with zeros and keeps its counters from call to call.
#[derive(Clone, Debug, PartialEq)]
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
    /// What hides keys of those that `mask` shows.
    pub pattern: Option<llmc_ir::Mask>,
    pub bias: Option<Bias>,
    /// Position terms, added to the scores before the cap; there is one query head per KV head.
    pub terms: Option<Terms>,
    /// A logit per query head that takes part in the softmax and mixes nothing in.
    pub sinks: bool,
    /// Row states that `partials` holds ([`Attend::split_for`]); 0 never splits.
    pub split: i64,
}

/// The parameters at run time, and the places in scratch.
#[derive(Clone, Copy)]
struct Args {
    thread: Value,
    threads: Value,
    sequences: Value,
    q: Value,
    slot: Value,
    table: Value,
    table_stride: Value,
    pos: Value,
    q_start: Value,
    kv_len: Value,
    bias: Value,
    pos_key: Value,
    pos_query: Value,
    sinks: Value,
    out: Value,
    /// `[64]` i32 counters of finished chunks.
    counters: Value,
    /// `[split]` states of rows.
    partials: Value,
    /// `[ROWS][k_width]` scaled queries.
    queries: Value,
    /// `[ROWS][64]` scores of every page of a step, then probabilities.
    scores: Value,
    /// `[ROWS]` states of the running chunk.
    states: Value,
    /// `[ROWS]` states of the chunks so far.
    totals: Value,
    /// `[64][max width]` widened page.
    wide: Value,
    /// `[ROWS][rows]` position terms of the queries.
    query_terms: Value,
    /// `[near][64]` position terms of a page's keys.
    key_terms: Value,
}

/// A sequence of the step at run time.
#[derive(Clone, Copy)]
struct Sequence {
    index: Value,
    /// First token of the sequence in the step.
    start: Value,
    /// Keys of the sequence.
    keys: Value,
    /// Query rows for each KV head, and items.
    rows: Value,
    tiles: Value,
}

/// One item at run time.
#[derive(Clone, Copy)]
struct Item {
    sequence: Value,
    start: Value,
    keys: Value,
    head: Value,
    /// First query row of the item within the (sequence, head), and how many.
    row: Value,
    rows: Value,
}

impl Attend {
    pub fn symbol(&self) -> String {
        let mut name = format!(
            "attend_{}_g{}_q{}_o{}_s{}_p{}",
            self.kv.name(),
            self.group,
            self.q_stride,
            self.out_stride,
            tag(self.scale),
            self.split
        );
        match self.mask {
            Mask::Bidirectional => name += "_all",
            Mask::Causal { window: None } => name += "_causal",
            Mask::Causal { window: Some(w) } => name += &format!("_causal_w{w}"),
        }
        if let Some(cap) = self.softcap {
            name += &format!("_c{}", tag(cap));
        }
        if let Some(pattern) = &self.pattern {
            name += &format!("_m{}", pattern::tag(pattern));
        }
        match self.bias {
            Some(Bias::Relative(bias)) => name += &format!("_b{}_{}", bias.stride, bias.zero),
            Some(Bias::Slopes) => name += "_slopes",
            None => {}
        }
        if let Some(terms) = &self.terms {
            name += &terms.name();
        }
        if self.sinks {
            name += "_sinks";
        }
        name
    }

    /// Row states that one token over `keys` visible keys needs.
    pub fn split_for(kv: &KvLayout, group: i64, keys: i64) -> i64 {
        kv.heads * group * (keys / (CHUNK_PAGES * PAGE) + 2)
    }

    /// Bytes of scratch that a call uses.
    pub fn scratch_bytes(&self) -> i64 {
        let wide = self.wide_floats();
        let terms = self.terms.map_or(0, |t| t.query_floats() + t.key_floats());
        let scores = self.together() * PAGE;
        (ROWS * (self.kv.k_width + scores + 2 * self.state_floats()) + wide + terms) * F32
    }

    /// Floats of a widened page.
    fn wide_floats(&self) -> i64 {
        if self.kv.elem == KvElem::F32 {
            0
        } else {
            PAGE * self.kv.k_width.max(self.kv.v_width)
        }
    }

    /// Bytes of partials.
    pub fn partial_bytes(&self) -> i64 {
        if self.split == 0 {
            return 0;
        }
        SPLIT_ITEMS * 4 + self.split * self.state_floats() * F32
    }

    /// A row's state: `[v_width]` weighted sums of values, `[16]` sums of probabilities by lane, and
    /// a group whose first lane is the running maximum.
    const fn state_floats(&self) -> i64 {
        self.kv.v_width + 2 * LANES
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert!(
            self.terms.is_none() || self.group == 1,
            "position terms are of a head's own keys"
        );
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
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
            Param::ptr(),
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
                pos_key,
                pos_query,
                sinks,
                out,
                scratch,
                partials,
            ] = *args
            else {
                unreachable!("seventeen parameters")
            };
            let states = ROWS * self.state_floats() * F32;
            let scores = b.offset(scratch, ROWS * self.kv.k_width * F32);
            let first = b.offset(scores, ROWS * self.together() * PAGE * F32);
            let totals = b.offset(first, states);
            let wide = b.offset(totals, states);
            let query_terms = b.offset(wide, self.wide_floats() * F32);
            let query_floats = self.terms.map_or(0, |t| t.query_floats());
            let key_terms = b.offset(query_terms, query_floats * F32);
            let a = Args {
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
                pos_key,
                pos_query,
                sinks,
                out,
                counters: partials,
                partials: b.offset(partials, SPLIT_ITEMS * 4),
                queries: scratch,
                scores,
                states: first,
                totals,
                wide,
                query_terms,
                key_terms,
            };
            if self.split == 0 {
                return self.whole(b, a);
            }
            let apart = self.few_items(b, a);
            b.choose(
                apart,
                |b| {
                    self.apart(b, a);
                    Vec::new()
                },
                |b| {
                    self.whole(b, a);
                    Vec::new()
                },
            );
        })
    }

    /// `(token, query head)` of row `i` of an item.
    fn place(&self, b: &mut KernelBuilder<'_>, item: Item, i: Value) -> (Value, Value) {
        let row = b.add(item.row, i);
        let token = b.div_const(row, self.group);
        let token = b.add(item.start, token);
        let member = b.rem_const(row, self.group);
        let head = b.mul_const(item.head, self.group);
        (token, b.add(head, member))
    }

    fn position(&self, b: &mut KernelBuilder<'_>, a: Args, token: Value) -> Value {
        let p = b.at(a.pos, token, 4);
        b.load_i32(p)
    }

    /// First and last key that any of the tokens `from..=to` of a sequence of `keys` keys sees.
    fn visible(
        &self,
        b: &mut KernelBuilder<'_>,
        a: Args,
        (from, to): (Value, Value),
        keys: Value,
    ) -> (Value, Value) {
        let zero = b.i64(0);
        let last_key = b.add_const(keys, -1);
        let Mask::Causal { window } = self.mask else {
            return (zero, last_key);
        };
        let last = self.position(b, a, to);
        let last = b.min(last, last_key);
        let Some(window) = window else {
            return (zero, last);
        };
        let first = self.position(b, a, from);
        let first = b.add_const(first, 1 - window);
        (b.max(first, zero), last)
    }
}
