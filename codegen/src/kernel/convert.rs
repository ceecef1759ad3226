//! Conversions between element types.
//!
//! In: a scalar or vector. Out: the same shape over another element.
//! 16-bit floats widen exactly; f32 narrows to nearest even. bf16 goes through integers, so that
//! every feature level gives the same bits (the hardware instruction flushes subnormals).

use super::{Elem, KernelBuilder, Value};

impl KernelBuilder<'_> {
    /// Widens f16 or bf16 bits to f32 exactly; f32 passes through.
    ///
    /// bf16 is loaded as i16 (see [`KernelBuilder::load_float`]).
    pub fn widen(&mut self, v: Value, from: Elem) -> Value {
        match from {
            Elem::F32 => v,
            Elem::F16 => self.one("arith.extf", &[v], v.ty.with_elem(Elem::F32), &[]),
            Elem::BF16 => {
                let wide = self.zero_extend(v, Elem::I32);
                let bits = self.shl(wide, 16);
                self.bitcast(bits, Elem::F32)
            }
            _ => panic!("{} is no float to widen", from.name()),
        }
    }

    /// Narrows f32 to `to`, nearest even; bf16 comes out as i16 bits. NaN stays NaN for f16 only.
    pub fn narrow(&mut self, v: Value, to: Elem) -> Value {
        match to {
            Elem::F32 => v,
            Elem::F16 => self.one("arith.truncf", &[v], v.ty.with_elem(Elem::F16), &[]),
            Elem::BF16 => {
                let bits = self.bitcast(v, Elem::I32);
                let high = self.shr(bits, 16);
                let one = self.constant(bits.ty, 1.0);
                let odd = self.and(high, one);
                let bias = self.add_const(odd, 0x7fff);
                let rounded = self.add(bits, bias);
                let top = self.shr(rounded, 16);
                self.truncate(top, Elem::I16)
            }
            _ => panic!("{} is no float to narrow to", to.name()),
        }
    }

    pub fn zero_extend(&mut self, v: Value, to: Elem) -> Value {
        self.one("arith.extui", &[v], v.ty.with_elem(to), &[])
    }

    pub fn sign_extend(&mut self, v: Value, to: Elem) -> Value {
        self.one("arith.extsi", &[v], v.ty.with_elem(to), &[])
    }

    pub fn truncate(&mut self, v: Value, to: Elem) -> Value {
        self.one("arith.trunci", &[v], v.ty.with_elem(to), &[])
    }

    /// Signed integer to float, nearest.
    pub fn to_float(&mut self, v: Value, to: Elem) -> Value {
        self.one("arith.sitofp", &[v], v.ty.with_elem(to), &[])
    }

    /// Float to signed integer, toward zero; the value must fit.
    pub fn to_int(&mut self, v: Value, to: Elem) -> Value {
        self.one("arith.fptosi", &[v], v.ty.with_elem(to), &[])
    }

    /// f32 to f64.
    pub fn to_f64(&mut self, v: Value) -> Value {
        self.one("arith.extf", &[v], v.ty.with_elem(Elem::F64), &[])
    }

    /// f64 to f32, nearest.
    pub fn to_f32(&mut self, v: Value) -> Value {
        self.one("arith.truncf", &[v], v.ty.with_elem(Elem::F32), &[])
    }

    /// 16 floats to the nearest i32, ties to even; the values must fit.
    pub fn to_nearest_int(&mut self, v: Value) -> Value {
        // By the rounding mode, which is that of the C ABI: nearest even.
        self.intrinsic("llvm.lrint", &[v], v.ty.with_elem(Elem::I32))
    }

    /// The same bits as another element type of the same size.
    pub fn bitcast(&mut self, v: Value, to: Elem) -> Value {
        assert_eq!(
            v.ty.elem().map(Elem::bits),
            Some(to.bits()),
            "a bit cast keeps the size"
        );
        self.one("arith.bitcast", &[v], v.ty.with_elem(to), &[])
    }
}
