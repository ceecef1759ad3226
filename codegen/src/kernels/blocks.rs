//! Codes and scales of weights in block formats, as vectors.
//!
//! In: a half unit in memory ([`Blocks`]). Out: 64 unsigned codes of 16 rows at a time, in the order
//! of byte dot products, and scales and minima as 16 × f32 with the bits that the reference
//! dequantisation computes.

use crate::{
    blocks::{Blocks, Scales},
    kernel::{Elem, KernelBuilder, LANES, SUMS, Ty, Value},
};

/// Bytes of a vector.
const VECTOR: i64 = 64;
/// Groups of 32 elements.
const GROUPS: i64 = 8;
/// Bytes of 16 × f16.
const HALVES: i64 = 32;

/// Elements that share a scale, for 16 rows.
pub(super) struct Part {
    /// One vector for each group of four elements.
    pub codes: Vec<Value>,
    pub scale: Value,
    /// Subtracted from every element.
    pub min: Option<Value>,
}

impl Blocks {
    /// Part `part` of the half unit at `p`.
    pub(super) fn load_part(&self, b: &mut KernelBuilder<'_>, p: Value, part: i64) -> Part {
        let (scale, min) = self.load_scales(b, p, part);
        let codes = self.load_codes(b, p, part);
        Part { codes, scale, min }
    }

    /// The codes of part `part` of the half unit at `p`.
    pub(super) fn load_codes(&self, b: &mut KernelBuilder<'_>, p: Value, part: i64) -> Vec<Value> {
        let groups = self.part / 4;
        (part * groups..(part + 1) * groups)
            .map(|group| self.load_group(b, p, group))
            .collect()
    }

    /// The codes of group `group` of the half unit at `p`.
    pub(super) fn load_group(&self, b: &mut KernelBuilder<'_>, p: Value, group: i64) -> Value {
        let (block, group) = (group / GROUPS, group % GROUPS);
        let at = b.offset(p, self.low_at(block));
        let low = bits(b, at, group, self.low, 0);
        if let Some(values) = self.values {
            return b.lookup(low, values);
        }
        if self.high == 0 {
            return low;
        }
        let at = b.offset(p, self.high_at(block));
        let high = bits(b, at, group, self.high, self.low);
        b.or(low, high)
    }

    /// Scale and minimum of part `part` of the half unit at `p`.
    pub(super) fn load_scales(
        &self,
        b: &mut KernelBuilder<'_>,
        p: Value,
        part: i64,
    ) -> (Value, Option<Value>) {
        let numbers = b.offset(p, self.halves_at());
        let half = |b: &mut KernelBuilder<'_>, i: i64| {
            let p = b.offset(numbers, i * HALVES);
            b.load_float(Elem::F16, p)
        };
        // `count` bits at `shift` of byte `byte` of each row.
        let field = |b: &mut KernelBuilder<'_>, byte: i64, shift: i64, count: u32| {
            let p = b.offset(p, byte / 4 * VECTOR);
            let v = b.load_bytes(p);
            let v = b.dwords(v);
            let v = b.shr(v, (byte % 4 * 8 + shift) as u32);
            let mask = b.constant(v.ty, f64::from((1u32 << count) - 1));
            b.and(v, mask)
        };
        let join = |b: &mut KernelBuilder<'_>, low: Value, high: Value| {
            let high = b.shl(high, 4);
            b.or(low, high)
        };
        let times = |b: &mut KernelBuilder<'_>, d: Value, number: Value| {
            let number = b.to_float(number, Elem::F32);
            b.mul(d, number)
        };
        match self.scales {
            Scales::Plain => (half(b, part), None),
            Scales::PlainMin => {
                let (d, m) = (half(b, 2 * part), half(b, 2 * part + 1));
                (d, Some(b.neg(m)))
            }
            Scales::Nibbles => {
                let (sc, mn) = (field(b, part, 0, 4), field(b, part, 4, 4));
                let (d, dmin) = (half(b, 0), half(b, 1));
                (times(b, d, sc), Some(times(b, dmin, mn)))
            }
            Scales::SixSigned => {
                let low = field(b, part % 8, part / 8 * 4, 4);
                let high = field(b, 8 + part % 4, part / 4 * 2, 2);
                let sc = join(b, low, high);
                let sc = b.add_const(sc, -32);
                let d = half(b, 0);
                (times(b, d, sc), None)
            }
            Scales::SixMin => {
                let (sc, mn) = if part < 4 {
                    (field(b, part, 0, 6), field(b, part + 4, 0, 6))
                } else {
                    let (sc, mn) = (field(b, part + 4, 0, 4), field(b, part + 4, 4, 4));
                    let (sc_high, mn_high) = (field(b, part - 4, 6, 2), field(b, part, 6, 2));
                    (join(b, sc, sc_high), join(b, mn, mn_high))
                };
                let (d, dmin) = (half(b, 0), half(b, 1));
                (times(b, d, sc), Some(times(b, dmin, mn)))
            }
            Scales::Bytes => {
                let p = b.offset(p, part / 4 * VECTOR);
                let v = b.load_bytes(p);
                let v = b.dwords(v);
                let v = b.shl(v, (24 - part % 4 * 8) as u32);
                let sc = b.shr_signed(v, 24);
                let d = half(b, 0);
                (times(b, d, sc), None)
            }
            Scales::Exponent => {
                let p = b.offset(numbers, part * LANES);
                (exponent(b, p), None)
            }
            Scales::Row => unreachable!("the scales of rows are behind the strip"),
        }
    }

    /// The elements of a part as f32, in order of K: 16 rows each.
    pub(super) fn values(&self, b: &mut KernelBuilder<'_>, part: &Part) -> Vec<Value> {
        let mut out = Vec::new();
        for codes in &part.codes {
            let lanes = b.dwords(*codes);
            for j in 0..4 {
                let code = b.shr(lanes, 8 * j);
                let mask = b.constant(code.ty, 255.0);
                let code = b.and(code, mask);
                let code = b.add_const(code, -self.offset);
                let code = b.to_float(code, Elem::F32);
                let v = b.mul(code, part.scale);
                out.push(match part.min {
                    Some(min) => b.sub(v, min),
                    None => v,
                });
            }
        }
        out
    }
}

/// 2^(e − 128) of the 16 bytes e at `p`.
fn exponent(b: &mut KernelBuilder<'_>, p: Value) -> Value {
    let e = b.load(Ty::Vector(Elem::I8, LANES as u32), p);
    let e = b.zero_extend(e, Elem::I32);
    let normal = b.add_const(e, -1);
    let normal = b.shl(normal, 23);
    // 2^−128 and 2^−127 are below f32's normal numbers.
    let (least, next) = (
        b.constant(SUMS, f64::from(1 << 21)),
        b.constant(SUMS, f64::from(1 << 22)),
    );
    let (zero, two) = (b.constant(SUMS, 0.0), b.constant(SUMS, 2.0));
    let is_zero = b.eq(e, zero);
    let small = b.select(is_zero, least, next);
    let is_small = b.lt(e, two);
    let bits = b.select(is_small, small, normal);
    b.bitcast(bits, Elem::F32)
}

/// The codes' bits of group `group`, `width` of them, moved to bit `to`; vectors from `p` on.
fn bits(b: &mut KernelBuilder<'_>, p: Value, group: i64, width: i64, to: i64) -> Value {
    let each = 8 / width;
    let p = b.offset(p, group / each * VECTOR);
    let v = b.load_bytes(p);
    if width == 8 {
        return v;
    }
    b.move_bits(v, (group % each * width) as u32, width as u32, to as u32)
}
