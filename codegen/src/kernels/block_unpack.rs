//! Unpacking units of one strip: to codes in the order of the register tile, or to f32.
//!
//! In: units as packed ([`Blocks`]). Out: for [`Unpacked::Codes`], part after part: the codes of
//! each group as `[2 halves][64]` bytes, scales `[2][16]`, minima `[2][16]` where there are any;
//! for [`Unpacked::F32`], `[k][32]` floats with the bits of the reference dequantisation.

use super::{F32, blocks::Part};
use crate::{
    blocks::{Blocks, HALF, STRIP, Scales},
    kernel::{KernelBuilder, Param, Value},
};

/// Bytes of a vector.
const VECTOR: i64 = 64;

/// What to unpack to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unpacked {
    Codes,
    F32,
}

/// Emits `unpack(units: i64, from: *u8, scales: *f32, to: *u8)`; `scales` `[2][16]` are read for
/// rows with one scale only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockUnpack {
    pub form: Blocks,
    pub to: Unpacked,
}

/// Bytes of an unpacked part of codes.
pub(super) fn part_bytes(form: &Blocks) -> i64 {
    let scales = if form.has_min() { 2 } else { 1 };
    (form.part / 4 + scales) * 2 * VECTOR
}

impl BlockUnpack {
    /// Bytes that a unit is unpacked to.
    pub fn unit_bytes(&self) -> i64 {
        match self.to {
            Unpacked::Codes => self.form.parts() * part_bytes(&self.form),
            Unpacked::F32 => self.form.unit * STRIP * F32,
        }
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let to = match self.to {
            Unpacked::Codes => "codes",
            Unpacked::F32 => "f32",
        };
        let name = format!("unpack_{}_{to}", self.form.name);
        let params = [
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::output(),
        ];
        b.kernel(&name, &params, |b, args| {
            let [units, from, scales, to] = *args else {
                unreachable!("four parameters")
            };
            let form = &self.form;
            let zero = b.i64(0);
            b.for_each(zero, units, 1, |b, unit| {
                let from = b.at(from, unit, 2 * form.half_bytes());
                let to = b.at(to, unit, self.unit_bytes());
                let end = b.i64(2);
                b.for_each(zero, end, 1, |b, half| {
                    let from = b.at(from, half, form.half_bytes());
                    let scales = b.at(scales, half, HALF * F32);
                    let to = b.at(to, half, VECTOR);
                    for part in 0..form.parts() {
                        self.part(b, from, scales, to, part);
                    }
                });
            });
        })
    }

    /// Part `part` of one half.
    fn part(&self, b: &mut KernelBuilder<'_>, from: Value, scales: Value, to: Value, part: i64) {
        let form = &self.form;
        let by_row = form.scales == Scales::Row;
        let loaded = if by_row {
            Part {
                codes: form.load_codes(b, from, part),
                scale: b.load_group(scales),
                min: None,
            }
        } else {
            form.load_part(b, from, part)
        };
        let (vectors, at, step) = match self.to {
            Unpacked::Codes => {
                let mut all = loaded.codes;
                all.push(loaded.scale);
                all.extend(loaded.min);
                (all, part * part_bytes(form), 2 * VECTOR)
            }
            Unpacked::F32 => {
                let all = form.values(b, &loaded);
                (all, part * form.part * STRIP * F32, STRIP * F32)
            }
        };
        for (i, v) in vectors.into_iter().enumerate() {
            let p = b.offset(to, at + i as i64 * step);
            b.store(v, p);
        }
    }
}
