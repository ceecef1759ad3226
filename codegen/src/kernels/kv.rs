//! How keys and values lie in a page of the KV cache.
//!
//! A page of one slot holds 64 tokens: K transposed `[heads][k_width][64]`, then V
//! `[heads][64][v_width]`, so that scores need no horizontal sums and mixing reads V row by row.

use super::PANEL;
use crate::kernel::{Elem, KernelBuilder, Value};

/// Tokens of a page.
pub(super) const PAGE: i64 = llmc_abi::PAGE_TOKENS as i64;

const _: () = assert!(PAGE == PANEL, "a K block has the shape of a weight panel");

/// The layout of one KV class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// KV heads.
    pub heads: i64,
    /// Physical lanes of a key, a multiple of 16.
    pub k_width: i64,
    /// Physical lanes of a value, a multiple of 16.
    pub v_width: i64,
    /// f32, f16 or bf16.
    pub elem: Elem,
}

impl KvLayout {
    /// Bytes of one page of one slot.
    pub const fn page_bytes(&self) -> i64 {
        self.heads * PAGE * (self.k_width + self.v_width) * self.elem.bytes()
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
        b.at(page, head, self.k_width * PAGE * self.elem.bytes())
    }

    /// Values of `head` in a page: `[64][v_width]`.
    pub(super) fn values(&self, b: &mut KernelBuilder<'_>, page: Value, head: Value) -> Value {
        let p = b.offset(page, self.heads * self.k_width * PAGE * self.elem.bytes());
        b.at(p, head, self.v_width * PAGE * self.elem.bytes())
    }
}
