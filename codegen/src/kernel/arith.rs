//! Constants, arithmetic, comparison and selection on scalars and vectors.
//!
//! In: values of one type. Out: values. Operators pick the integer or float form by type; integer
//! division and comparison are as documented at each method.

use super::{Elem, GROUP, KernelBuilder, LANES, Ty, Value};
use crate::mlir::Attr;

impl KernelBuilder<'_> {
    pub fn i64(&mut self, v: i64) -> Value {
        self.int(Elem::I64, v)
    }

    pub fn i32(&mut self, v: i32) -> Value {
        self.int(Elem::I32, i64::from(v))
    }

    pub fn int(&mut self, elem: Elem, v: i64) -> Value {
        let value = Attr::Int(elem, v);
        self.one("arith.constant", &[], Ty::Scalar(elem), &[("value", value)])
    }

    pub fn f32(&mut self, v: f32) -> Value {
        let value = Attr::Float(Elem::F32, f64::from(v));
        self.one("arith.constant", &[], Ty::F32, &[("value", value)])
    }

    /// 16 times `v`.
    pub fn splat(&mut self, v: f32) -> Value {
        let value = Attr::SplatF32(LANES as u32, v);
        self.one("arith.constant", &[], GROUP, &[("value", value)])
    }

    /// Every lane (or the scalar) of type `ty` is `v`, rounded to the element type.
    pub fn constant(&mut self, ty: Ty, v: f64) -> Value {
        let value = match ty {
            Ty::Scalar(e) if e.is_float() => Attr::Float(e, v),
            Ty::Scalar(e) => Attr::Int(e, v as i64),
            Ty::Vector(Elem::F32, n) => Attr::SplatF32(n, v as f32),
            Ty::Vector(Elem::F64, n) => Attr::SplatF64(n, v),
            Ty::Vector(e, n) => {
                assert!(!e.is_float(), "16-bit float constants are not needed");
                Attr::SplatInt(e, n, v as i64)
            }
            Ty::Ptr => panic!("a pointer has no numeric constant"),
        };
        self.one("arith.constant", &[], ty, &[("value", value)])
    }

    /// A vector constant, lane by lane.
    pub fn lanes_f32(&mut self, v: &[f32]) -> Value {
        let ty = Ty::Vector(Elem::F32, v.len() as u32);
        self.one("arith.constant", &[], ty, &[("value", Attr::VectorF32(v))])
    }

    /// A vector constant, lane by lane.
    pub fn lanes_i32(&mut self, v: &[i32]) -> Value {
        let ty = Ty::Vector(Elem::I32, v.len() as u32);
        self.one("arith.constant", &[], ty, &[("value", Attr::VectorI32(v))])
    }

    fn binary(&mut self, int: &str, float: &str, a: Value, b: Value) -> Value {
        assert_eq!(a.ty, b.ty, "operands of {int}/{float} differ in type");
        let name = if a.ty.is_float() { float } else { int };
        assert!(!name.is_empty(), "no such operation on {}", a.ty);
        self.one(name, &[a, b], a.ty, &[])
    }

    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.addi", "arith.addf", a, b)
    }

    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.subi", "arith.subf", a, b)
    }

    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.muli", "arith.mulf", a, b)
    }

    /// Quotient; integers are taken as unsigned.
    pub fn div(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.divui", "arith.divf", a, b)
    }

    /// Remainder of unsigned integers.
    pub fn rem(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.remui", "", a, b)
    }

    pub fn and(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.andi", "", a, b)
    }

    pub fn or(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.ori", "", a, b)
    }

    pub fn xor(&mut self, a: Value, b: Value) -> Value {
        self.binary("arith.xori", "", a, b)
    }

    pub fn shl(&mut self, a: Value, bits: u32) -> Value {
        let bits = self.constant(a.ty, f64::from(bits));
        self.binary("arith.shli", "", a, bits)
    }

    /// Logical shift right.
    pub fn shr(&mut self, a: Value, bits: u32) -> Value {
        let bits = self.constant(a.ty, f64::from(bits));
        self.binary("arith.shrui", "", a, bits)
    }

    /// Arithmetic shift right.
    pub fn shr_signed(&mut self, a: Value, bits: u32) -> Value {
        let bits = self.constant(a.ty, f64::from(bits));
        self.binary("arith.shrsi", "", a, bits)
    }

    /// `a + c` for a constant.
    pub fn add_const(&mut self, a: Value, c: i64) -> Value {
        if c == 0 {
            return a;
        }
        let c = self.constant(a.ty, c as f64);
        self.add(a, c)
    }

    /// `a * c` for a constant.
    pub fn mul_const(&mut self, a: Value, c: i64) -> Value {
        if c == 1 {
            return a;
        }
        let c = self.constant(a.ty, c as f64);
        self.mul(a, c)
    }

    /// `a / c`, unsigned, for a constant.
    pub fn div_const(&mut self, a: Value, c: i64) -> Value {
        if c == 1 {
            return a;
        }
        let c = self.constant(a.ty, c as f64);
        self.div(a, c)
    }

    /// `a % c`, unsigned, for a constant.
    pub fn rem_const(&mut self, a: Value, c: i64) -> Value {
        let c = self.constant(a.ty, c as f64);
        self.rem(a, c)
    }

    /// `ceil(a / c)`, unsigned, for a constant.
    pub fn ceil_div_const(&mut self, a: Value, c: i64) -> Value {
        let a = self.add_const(a, c - 1);
        self.div_const(a, c)
    }

    /// Flips the sign of a float.
    pub fn neg(&mut self, a: Value) -> Value {
        self.one("arith.negf", &[a], a.ty, &[])
    }

    /// The smaller; signed integers, or floats (the second operand where one is NaN).
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        let less = self.lt(a, b);
        self.select(less, a, b)
    }

    /// The larger; signed integers, or floats (the second operand where one is NaN).
    pub fn max(&mut self, a: Value, b: Value) -> Value {
        let more = self.gt(a, b);
        self.select(more, a, b)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        assert!(a.ty == b.ty && b.ty == c.ty && a.ty.is_float(), "fma types");
        self.one("llvm.intr.fma", &[a, b, c], a.ty, &[])
    }

    pub fn sqrt(&mut self, a: Value) -> Value {
        self.one("llvm.intr.sqrt", &[a], a.ty, &[])
    }

    pub fn abs(&mut self, a: Value) -> Value {
        self.one("llvm.intr.fabs", &[a], a.ty, &[])
    }

    /// Nearest integer as a float, ties to even.
    pub fn round_even(&mut self, a: Value) -> Value {
        self.one("llvm.intr.roundeven", &[a], a.ty, &[])
    }

    /// The magnitude of `a` with the sign of `sign`.
    pub fn copy_sign(&mut self, a: Value, sign: Value) -> Value {
        self.one("llvm.intr.copysign", &[a, sign], a.ty, &[])
    }

    /// `predicate`: (integer, signed; float, ordered) numbers of arith's enumerations.
    fn compare(&mut self, predicate: (i64, i64), a: Value, b: Value) -> Value {
        assert_eq!(a.ty, b.ty, "compared values differ in type");
        let result = a.ty.with_elem(Elem::I1);
        let (name, number) = if a.ty.is_float() {
            ("arith.cmpf", predicate.1)
        } else {
            ("arith.cmpi", predicate.0)
        };
        let attribute = Attr::Int(Elem::I64, number);
        self.one(name, &[a, b], result, &[("predicate", attribute)])
    }

    pub fn eq(&mut self, a: Value, b: Value) -> Value {
        self.compare((0, 1), a, b)
    }

    pub fn ne(&mut self, a: Value, b: Value) -> Value {
        self.compare((1, 6), a, b)
    }

    pub fn lt(&mut self, a: Value, b: Value) -> Value {
        self.compare((2, 4), a, b)
    }

    pub fn le(&mut self, a: Value, b: Value) -> Value {
        self.compare((3, 5), a, b)
    }

    pub fn gt(&mut self, a: Value, b: Value) -> Value {
        self.compare((4, 2), a, b)
    }

    pub fn ge(&mut self, a: Value, b: Value) -> Value {
        self.compare((5, 3), a, b)
    }

    /// `condition ? a : b`; the condition is i1, or lanes of i1 for vectors.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Value {
        assert_eq!(a.ty, b.ty, "selected values differ in type");
        self.one("arith.select", &[condition, a, b], a.ty, &[])
    }
}
