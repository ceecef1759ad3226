//! The types that generated code uses, as plain Rust data.
//!
//! In: nothing. Out: [`Ty`], and its MLIR spelling. Vectors are one-dimensional.
//! Not here: memrefs, tensors, structs (memory is `ptr` plus byte offsets).

use std::fmt;

/// A scalar element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elem {
    I1,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Elem {
    /// Bytes in memory (an `I1` is never stored).
    pub const fn bytes(self) -> i64 {
        match self {
            Elem::I1 | Elem::I8 => 1,
            Elem::I16 | Elem::F16 | Elem::BF16 => 2,
            Elem::I32 | Elem::F32 => 4,
            Elem::I64 | Elem::F64 => 8,
        }
    }

    pub const fn bits(self) -> u32 {
        match self {
            Elem::I1 => 1,
            _ => self.bytes() as u32 * 8,
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, Elem::F16 | Elem::BF16 | Elem::F32 | Elem::F64)
    }

    /// Lower-case name, as in symbol names and MLIR text.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F16 => "f16",
            Elem::BF16 => "bf16",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        }
    }
}

/// The type of a value in generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ty {
    Scalar(Elem),
    /// `lanes` elements; wider than a register is fine, the backend splits it.
    Vector(Elem, u32),
    Ptr,
}

impl Ty {
    pub const I1: Ty = Ty::Scalar(Elem::I1);
    pub const I32: Ty = Ty::Scalar(Elem::I32);
    pub const I64: Ty = Ty::Scalar(Elem::I64);
    pub const F32: Ty = Ty::Scalar(Elem::F32);
    pub const F64: Ty = Ty::Scalar(Elem::F64);

    /// The element type; `None` for pointers.
    pub const fn elem(self) -> Option<Elem> {
        match self {
            Ty::Scalar(e) | Ty::Vector(e, _) => Some(e),
            Ty::Ptr => None,
        }
    }

    /// Lanes of a vector, 1 for the others.
    pub const fn lanes(self) -> u32 {
        match self {
            Ty::Vector(_, n) => n,
            _ => 1,
        }
    }

    /// The same shape over another element type.
    pub const fn with_elem(self, elem: Elem) -> Ty {
        match self {
            Ty::Vector(_, n) => Ty::Vector(elem, n),
            _ => Ty::Scalar(elem),
        }
    }

    /// Bytes in memory.
    pub const fn bytes(self) -> i64 {
        match self {
            Ty::Scalar(e) => e.bytes(),
            Ty::Vector(e, n) => e.bytes() * n as i64,
            Ty::Ptr => 8,
        }
    }

    pub const fn is_float(self) -> bool {
        match self.elem() {
            Some(e) => e.is_float(),
            None => false,
        }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ty::Scalar(e) => f.write_str(e.name()),
            Ty::Vector(e, n) => write!(f, "vector<{n}x{}>", e.name()),
            Ty::Ptr => f.write_str("!llvm.ptr"),
        }
    }
}
