//! How keys and values lie in a page of the KV cache.
//!
//! A page of one slot holds 64 tokens: K transposed `[heads][k_width][64]`, then V
//! `[heads][64][v_width]`, so that scores need no horizontal sums and mixing reads V row by row.
//! Under q8_0 a head's K is codes `[k_width][64]`, then scales `[k_width / 32][64]`, its V codes
//! `[64][v_width]`, then scales `[64][v_width / 32]`: the numbers of GGUF's blocks, 32 neighbours
//! of one token and head.

use super::PANEL;
use crate::kernel::{Elem, KernelBuilder, Value};

/// Tokens of a page.
pub(super) const PAGE: i64 = llmc_abi::PAGE_TOKENS as i64;

/// Elements that share a scale under q8_0.
pub(super) const BLOCK: i64 = 32;

const _: () = assert!(PAGE == PANEL, "a K block has the shape of a weight panel");

/// Element type of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvElem {
    F32,
    F16,
    BF16,
    /// 32 signed bytes and an f16 scale.
    Q8_0,
}

impl KvElem {
    /// Lower-case name, as in symbol names.
    pub const fn name(self) -> &'static str {
        match self {
            KvElem::F32 => "f32",
            KvElem::F16 => "f16",
            KvElem::BF16 => "bf16",
            KvElem::Q8_0 => "q8_0",
        }
    }

    /// The type of an element, where each stands for itself.
    pub const fn plain(self) -> Option<Elem> {
        match self {
            KvElem::F32 => Some(Elem::F32),
            KvElem::F16 => Some(Elem::F16),
            KvElem::BF16 => Some(Elem::BF16),
            KvElem::Q8_0 => None,
        }
    }

    /// Bytes of one token's key or value of `width` lanes.
    pub const fn row_bytes(self, width: i64) -> i64 {
        match self {
            KvElem::F32 => width * 4,
            KvElem::F16 | KvElem::BF16 => width * 2,
            KvElem::Q8_0 => width + width / BLOCK * 2,
        }
    }
}

/// The layout of one KV class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// KV heads.
    pub heads: i64,
    /// Physical lanes of a key, a multiple of 16 (q8_0: of 32).
    pub k_width: i64,
    /// Physical lanes of a value, a multiple of 16 (q8_0: of 32).
    pub v_width: i64,
    pub elem: KvElem,
}

impl KvLayout {
    /// Bytes of one page of one slot.
    pub const fn page_bytes(&self) -> i64 {
        self.heads * PAGE * (self.elem.row_bytes(self.k_width) + self.elem.row_bytes(self.v_width))
    }

    pub(super) fn name(&self) -> String {
        format!(
            "{}_kv{}_{}_{}",
            self.elem.name(),
            self.heads,
            self.k_width,
            self.v_width
        )
    }

    /// The page of `sequence` that holds its tokens `64·index ..`.
    pub(super) fn page(
        &self,
        b: &mut KernelBuilder<'_>,
        slot: Value,
        table: Value,
        table_stride: Value,
        sequence: Value,
        index: Value,
    ) -> Value {
        let row = b.mul(sequence, table_stride);
        let entry = b.add(row, index);
        let p = b.at(table, entry, 4);
        let page = b.load_i32(p);
        b.at(slot, page, self.page_bytes())
    }

    /// Keys of `head` in a page: `[k_width][64]`.
    pub(super) fn keys(&self, b: &mut KernelBuilder<'_>, page: Value, head: Value) -> Value {
        b.at(page, head, PAGE * self.elem.row_bytes(self.k_width))
    }

    /// Values of `head` in a page: `[64][v_width]`.
    pub(super) fn values(&self, b: &mut KernelBuilder<'_>, page: Value, head: Value) -> Value {
        let keys = self.heads * PAGE * self.elem.row_bytes(self.k_width);
        let p = b.offset(page, keys);
        b.at(p, head, PAGE * self.elem.row_bytes(self.v_width))
    }
}
