//! Writing a step's keys and values into the pages of the cache.
//!
//! In: rows of k and v, positions, the page table. Out: page columns (keys) and rows (values) in
//! the cache's element type, to nearest even. A barrier must follow before `attend` reads them.

use super::kv::PAGE;
use super::{F32, KvLayout};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Value};

/// Emits `kv_append(thread, threads, n: i64, k: *f32, v: *f32, pos: *i32, seq: *i32, slot: *u8,
/// table: *i32, table_stride: i64)`: k `[n, k_stride]` with heads of `k_width`, v alike; `slot` is
/// `KvState::base + slot · slot_stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvAppend {
    pub kv: KvLayout,
    pub k_stride: i64,
    pub v_stride: i64,
}

impl KvAppend {
    pub fn symbol(&self) -> String {
        format!(
            "kv_append_{}_k{}_v{}",
            self.kv.name(),
            self.k_stride,
            self.v_stride
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
            let (from, to) = b.slice(thread, threads, n);
            let (first, end) = (b.i64(0), b.i64(self.kv.heads));
            // Head by head: the columns of one head's page stay in the cache from token to token.
            b.for_each(first, end, 1, |b, head| {
                b.for_each(from, to, 1, |b, token| {
                    let p = b.at(pos, token, 4);
                    let position = b.load_i32(p);
                    let p = b.at(seq, token, 4);
                    let sequence = b.load_i32(p);
                    let index = b.div_const(position, PAGE);
                    let column = b.rem_const(position, PAGE);
                    let page = self.kv.page(b, slot, table, stride, sequence, index);
                    let from = b.at(k, token, self.k_stride * F32);
                    let from = b.at(from, head, self.kv.k_width * F32);
                    let to = self.kv.keys(b, page, head);
                    let to = b.at(to, column, self.kv.elem.bytes());
                    self.key(b, from, to);
                    let from = b.at(v, token, self.v_stride * F32);
                    let from = b.at(from, head, self.kv.v_width * F32);
                    let to = self.kv.values(b, page, head);
                    let to = b.at(to, column, self.kv.v_width * self.kv.elem.bytes());
                    self.value(b, from, to);
                });
            });
        })
    }

    /// One key into a column: an element every 64.
    fn key(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value) {
        let size = self.kv.elem.bytes();
        b.for_unrolled(self.kv.k_width / LANES, 1, |b, i| {
            let from = b.at(from, i, LANES * F32);
            let to = b.at(to, i, LANES * PAGE * size);
            if self.kv.elem == Elem::F32 {
                for lane in 0..LANES {
                    let p = b.offset(from, lane * F32);
                    let v = b.load(crate::kernel::Ty::F32, p);
                    let p = b.offset(to, lane * PAGE * size);
                    b.store(v, p);
                }
            } else {
                let v = b.load_group(from);
                let v = b.narrow(v, self.kv.elem);
                for lane in 0..LANES {
                    let x = b.extract(v, lane as u32);
                    let p = b.offset(to, lane * PAGE * size);
                    b.store(x, p);
                }
            }
        });
    }

    /// One value into a row.
    fn value(&self, b: &mut KernelBuilder<'_>, from: Value, to: Value) {
        b.for_unrolled(self.kv.v_width / LANES, 4, |b, i| {
            let p = b.at(from, i, LANES * F32);
            let v = b.load_group(p);
            let v = b.narrow(v, self.kv.elem);
            let p = b.at(to, i, LANES * self.kv.elem.bytes());
            b.store(v, p);
        });
    }
}
