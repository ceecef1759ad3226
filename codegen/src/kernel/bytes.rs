//! Vectors of 64 bytes: dot products in groups of four, bits moved within bytes, and table lookups.
//!
//! In: [`BYTES`] vectors, read as 16 lanes of four bytes. Out: [`SUMS`], or bytes again.
//! Invariant: integers are exact, so every feature level gives the same; what an instruction of a
//! lesser level would saturate, another sequence computes.
//!
//! Not here: what the bytes mean (`crate::kernels::blocks`).

use super::{Elem, KernelBuilder, LANES, Ty, Value};
use crate::mlir::Attr;

/// 64 bytes: four for each of 16 lanes.
pub const BYTES: Ty = Ty::Vector(Elem::I8, 4 * LANES as u32);

/// 16 × i32.
pub const SUMS: Ty = Ty::Vector(Elem::I32, LANES as u32);

/// Half a [`BYTES`], the register of a level without 512 bits.
const HALF: u32 = 32;

impl KernelBuilder<'_> {
    /// Loads 64 bytes.
    pub fn load_bytes(&mut self, p: Value) -> Value {
        self.load(BYTES, p)
    }

    /// Loads four bytes into all 16 lanes.
    pub fn load_four(&mut self, p: Value) -> Value {
        let v = self.load(Ty::I32, p);
        let v = self.broadcast(v);
        self.bytes(v)
    }

    /// Any 512-bit vector as bytes.
    pub fn bytes(&mut self, v: Value) -> Value {
        assert_eq!(v.ty.bytes(), BYTES.bytes(), "a vector of 512 bits");
        self.one("vector.bitcast", &[v], BYTES, &[])
    }

    /// Bytes as lanes of i32.
    pub fn dwords(&mut self, v: Value) -> Value {
        assert_eq!(v.ty, BYTES, "64 bytes");
        self.one("vector.bitcast", &[v], SUMS, &[])
    }

    /// The low bytes of four vectors of 16 × i32, one behind the other.
    pub fn low_bytes(&mut self, of: [Value; 4]) -> Value {
        let [a, b, c, d] = of.map(|v| self.bytes(v));
        let low: Vec<i64> = (0..2 * 4 * LANES).step_by(4).collect();
        let (first, second) = (self.shuffle(a, b, &low), self.shuffle(c, d, &low));
        let all: Vec<i64> = (0..4 * LANES).collect();
        self.shuffle(first, second, &all)
    }

    /// `acc + Σ codes · x` over the four bytes of each lane; `codes` are unsigned, x signed with
    /// magnitudes up to 127. Codes above 127 need [`KernelBuilder::wide_codes`] at every level.
    pub fn dot_u8_s8(&mut self, acc: Value, codes: Value, x: Value) -> Value {
        if self.level().byte_dots {
            let name = "llvm.x86.avx512.vpdpbusd.512";
            return self.intrinsic(name, &[acc, codes, x], SUMS);
        }
        self.dot_halves(acc, codes, x)
    }

    /// `acc + Σ (codes − 128) · x`; `acc` starts at [`KernelBuilder::start`] of offset 128.
    pub fn dot_wide(&mut self, acc: Value, codes: Value, x: Value) -> Value {
        if self.level().byte_dots {
            return self.dot_u8_s8(acc, codes, x);
        }
        // |w| · (sign(w) · x): at most 128 · 127, whose pairs fit in 16 bits.
        let flip = self.constant(BYTES, -128.0);
        let w = self.xor(codes, flip);
        let size = self.one(
            "llvm.intr.abs",
            &[w],
            BYTES,
            &[("is_int_min_poison", Attr::Bool(false))],
        );
        let signed = self.by_halves(&[x, w], Elem::I8, |b, parts| {
            b.intrinsic("llvm.x86.avx2.psign.b", parts, Ty::Vector(Elem::I8, HALF))
        });
        self.dot_halves(acc, size, signed)
    }

    /// What the sum of `Σ codes · x` starts at so that it becomes `Σ (codes − offset) · x`, for
    /// codes up to 127; `sum` is Σ x in all lanes.
    pub fn start(&mut self, sum: Value, offset: i64) -> Value {
        if offset == 0 {
            return self.constant(SUMS, 0.0);
        }
        self.mul_const(sum, -offset)
    }

    /// [`KernelBuilder::start`] for [`KernelBuilder::dot_wide`]: −128 · Σ x, the i32 at `p`; a level that
    /// takes the offset out of the codes starts at zero.
    pub fn load_start_wide(&mut self, p: Value) -> Value {
        if !self.level().byte_dots {
            return self.constant(SUMS, 0.0);
        }
        let start = self.load(Ty::I32, p);
        self.broadcast(start)
    }

    /// `acc + Σ codes · x` in halves of 32 bytes, where no pair of products exceeds 16 bits.
    fn dot_halves(&mut self, acc: Value, codes: Value, x: Value) -> Value {
        let sums = self.by_halves(&[codes, x], Elem::I32, |b, parts| {
            let pairs = Ty::Vector(Elem::I16, HALF / 2);
            let pairs = b.intrinsic("llvm.x86.avx2.pmadd.ub.sw", parts, pairs);
            let ones = b.constant(pairs.ty, 1.0);
            let fours = Ty::Vector(Elem::I32, HALF / 4);
            b.intrinsic("llvm.x86.avx2.pmadd.wd", &[pairs, ones], fours)
        });
        self.add(acc, sums)
    }

    /// Applies `each` to the low and to the high halves of 64-byte vectors and joins the results.
    fn by_halves(
        &mut self,
        of: &[Value],
        result: Elem,
        each: impl Fn(&mut Self, &[Value]) -> Value,
    ) -> Value {
        let half = |b: &mut Self, first: u32| {
            let lanes: Vec<i64> = (first..first + HALF).map(i64::from).collect();
            let parts: Vec<Value> = of.iter().map(|v| b.shuffle(*v, *v, &lanes)).collect();
            each(b, &parts)
        };
        let (low, high) = (half(self, 0), half(self, HALF));
        let lanes: Vec<i64> = (0..i64::from(2 * low.ty.lanes())).collect();
        let joined = self.shuffle(low, high, &lanes);
        debug_assert_eq!(joined.ty.elem(), Some(result));
        joined
    }

    /// Bits `from .. from + count` of every byte at `to`, the rest zero.
    pub fn move_bits(&mut self, v: Value, from: u32, count: u32, to: u32) -> Value {
        assert!(v.ty == BYTES && from + count <= 8 && to + count <= 8);
        let mask = (((1u32 << count) - 1) << to) as u8 as i8;
        let mask = self.constant(BYTES, f64::from(mask));
        if from == to {
            return self.and(v, mask);
        }
        if self.level().bit_matrices {
            // Row i of the matrix, which gives bit i, is byte 7 − i.
            let matrix = (0..count).fold(0u64, |m, i| m | 1 << (8 * (7 - (to + i)) + from + i));
            let rows = Attr::SplatInt(Elem::I64, 8, matrix as i64);
            let rows = self.one(
                "arith.constant",
                &[],
                Ty::Vector(Elem::I64, 8),
                &[("value", rows)],
            );
            let rows = self.bytes(rows);
            let none = self.int(Elem::I8, 0);
            return self.intrinsic("llvm.x86.vgf2p8affineqb.512", &[v, rows, none], BYTES);
        }
        let moved = if from > to {
            self.shr(v, from - to)
        } else {
            self.shl(v, to - from)
        };
        self.and(moved, mask)
    }

    /// Every byte is `table[byte]`; the bytes of `v` are below 16.
    pub fn lookup(&mut self, v: Value, table: [u8; 16]) -> Value {
        assert_eq!(v.ty, BYTES, "64 bytes");
        let dword = |i: usize| i32::from_le_bytes([0, 1, 2, 3].map(|j| table[i % 4 * 4 + j]));
        let dwords: Vec<i32> = (0..LANES as usize).map(dword).collect();
        let table = self.lanes_i32(&dwords);
        let table = self.bytes(table);
        if self.level().vector_bits == 512 {
            let name = "llvm.x86.avx512.pshuf.b.512";
            return self.intrinsic(name, &[table, v], BYTES);
        }
        self.by_halves(&[table, v], Elem::I8, |b, parts| {
            b.intrinsic("llvm.x86.avx2.pshuf.b", parts, Ty::Vector(Elem::I8, HALF))
        })
    }

    /// Calls an LLVM intrinsic that no operation stands for.
    pub(super) fn intrinsic(&mut self, name: &str, operands: &[Value], result: Ty) -> Value {
        let count = i32::try_from(operands.len()).expect("few operands");
        self.one(
            "llvm.call_intrinsic",
            operands,
            result,
            &[
                ("intrin", Attr::Str(name)),
                ("operandSegmentSizes", Attr::I32s(&[count, 0])),
                ("op_bundle_sizes", Attr::I32s(&[])),
            ],
        )
    }
}
