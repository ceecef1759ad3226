//! Widening a head's keys or values of a page to f32, exactly (q8_0: code · scale, which an f32
//! holds).
//!
//! In: keys or values of a page as [`KvLayout`](super::KvLayout) says. Out: f32 `[k_width][64]` or
//! `[64][v_width]`.

use super::kv::{BLOCK, KvElem, PAGE};
use super::{F32, Unpack};
use crate::kernel::{Elem, KernelBuilder, LANES, Param, Ty, Value};

/// Bytes of an f16.
const F16: i64 = 2;

/// Which part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Keys,
    Values,
}

/// Emits `kv_unpack(tokens: i64, from: *u8, to: *f32)`: the first `tokens` values, or all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvUnpack {
    pub elem: KvElem,
    pub part: Part,
    /// Lanes of a key or value.
    pub width: i64,
}

impl KvUnpack {
    /// Calls the function, which is emitted once.
    pub fn call(&self, b: &mut KernelBuilder<'_>, tokens: Value, from: Value, to: Value) {
        let Some(elem) = self.elem.plain() else {
            let symbol = self.emit(b);
            b.call(&symbol, &[tokens, from, to], &[]);
            return;
        };
        let symbol = Unpack { elem }.emit(b);
        let count = b.i64(PAGE * self.width);
        b.call(&symbol, &[count, from, to], &[]);
    }

    fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let part = match self.part {
            Part::Keys => "keys",
            Part::Values => "values",
        };
        let name = format!("kv_unpack_{}_{part}_{}", self.elem.name(), self.width);
        let params = [Param::i64(), Param::input(), Param::output()];
        b.kernel(&name, &params, |b, args| {
            let (tokens, from, to) = (args[0], args[1], args[2]);
            let scales = b.offset(from, PAGE * self.width);
            match self.part {
                Part::Keys => self.keys(b, from, scales, to),
                Part::Values => self.values(b, tokens, from, scales, to),
            }
        })
    }

    /// A block of 32 rows of 64 keys has one scale for each key.
    fn keys(&self, b: &mut KernelBuilder<'_>, from: Value, scales: Value, to: Value) {
        let (zero, blocks, rows) = (b.i64(0), b.i64(self.width / BLOCK), b.i64(BLOCK));
        b.for_each(zero, blocks, 1, |b, block| {
            let p = b.at(scales, block, PAGE * F16);
            let scales: Vec<Value> = (0..PAGE / LANES)
                .map(|group| {
                    let p = b.offset(p, group * LANES * F16);
                    b.load_float(Elem::F16, p)
                })
                .collect();
            let from = b.at(from, block, BLOCK * PAGE);
            let to = b.at(to, block, BLOCK * PAGE * F32);
            b.for_each(zero, rows, 1, |b, row| {
                let from = b.at(from, row, PAGE);
                let to = b.at(to, row, PAGE * F32);
                for (group, scale) in scales.iter().enumerate() {
                    let at = group as i64 * LANES;
                    code_group(b, from, to, at, *scale);
                }
            });
        });
    }

    fn values(
        &self,
        b: &mut KernelBuilder<'_>,
        tokens: Value,
        from: Value,
        scales: Value,
        to: Value,
    ) {
        let zero = b.i64(0);
        b.for_each(zero, tokens, 1, |b, token| {
            let from = b.at(from, token, self.width);
            let to = b.at(to, token, self.width * F32);
            let scales = b.at(scales, token, self.width / BLOCK * F16);
            b.for_unrolled(self.width / BLOCK, 4, |b, block| {
                let p = b.at(scales, block, F16);
                let scale = b.load_float_scalar(Elem::F16, p);
                let scale = b.broadcast(scale);
                let from = b.at(from, block, BLOCK);
                let to = b.at(to, block, BLOCK * F32);
                code_group(b, from, to, 0, scale);
                code_group(b, from, to, LANES, scale);
            });
        });
    }
}

/// 16 codes from `from + at` on, times their scales.
fn code_group(b: &mut KernelBuilder<'_>, from: Value, to: Value, at: i64, scale: Value) {
    let p = b.offset(from, at);
    let codes = b.load(Ty::Vector(Elem::I8, LANES as u32), p);
    let codes = b.sign_extend(codes, Elem::I32);
    let v = b.to_float(codes, Elem::F32);
    let v = b.mul(v, scale);
    let p = b.offset(to, at * F32);
    b.store(v, p);
}
