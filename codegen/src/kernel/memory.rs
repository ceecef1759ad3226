//! Pointers, loads and stores.
//!
//! In: `ptr` values and byte offsets. Out: `llvm.getelementptr`, `llvm.load`, `llvm.store`.
//! Accesses are aligned to the element only; the hardware does not mind, the buffers are aligned.

use super::{Elem, GROUP, KernelBuilder, LANES, Ty, Value};
use crate::mlir::Attr;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

/// Marks a dynamic index in `rawConstantIndices`.
const DYNAMIC: i32 = i32::MIN;

impl KernelBuilder<'_> {
    /// `p` plus a constant number of bytes.
    pub fn offset(&mut self, p: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return p;
        }
        match i32::try_from(bytes) {
            Ok(small) if small != DYNAMIC => self.element_pointer(&[p], small),
            _ => {
                let bytes = self.i64(bytes);
                self.offset_by(p, bytes)
            }
        }
    }

    /// `p` plus `bytes` (i64).
    pub fn offset_by(&mut self, p: Value, bytes: Value) -> Value {
        assert!(p.ty == Ty::Ptr && bytes.ty == Ty::I64, "pointer plus i64");
        self.element_pointer(&[p, bytes], DYNAMIC)
    }

    /// `p + index * stride`, the stride a constant number of bytes.
    pub fn at(&mut self, p: Value, index: Value, stride: i64) -> Value {
        let bytes = self.mul_const(index, stride);
        self.offset_by(p, bytes)
    }

    fn element_pointer(&mut self, operands: &[Value], index: i32) -> Value {
        self.one(
            "llvm.getelementptr",
            operands,
            Ty::Ptr,
            &[
                ("elem_type", Attr::Type(Ty::Scalar(Elem::I8))),
                ("rawConstantIndices", Attr::I32s(&[index])),
                ("noWrapFlags", Attr::Int(Elem::I32, 3)),
            ],
        )
    }

    /// Loads a value of type `ty`.
    pub fn load(&mut self, ty: Ty, p: Value) -> Value {
        let align = Attr::Int(Elem::I64, ty.elem().map_or(8, Elem::bytes));
        self.one("llvm.load", &[p], ty, &[("alignment", align)])
    }

    /// Loads the field of type `ty` at a constant byte offset of a struct.
    pub fn field(&mut self, ty: Ty, p: Value, offset: usize) -> Value {
        let p = self.offset(p, offset as i64);
        self.load(ty, p)
    }

    /// Stores a value of any type.
    pub fn store(&mut self, v: Value, p: Value) {
        assert_eq!(p.ty, Ty::Ptr, "stores go to pointers");
        let align = Attr::Int(Elem::I64, v.ty.elem().map_or(8, Elem::bytes));
        self.ops
            .op("llvm.store", &[v, p], &[], &[("alignment", align)], vec![]);
    }

    /// Asks for the cache lines of `bytes` bytes from `first` bytes behind `p` on, which need not be readable.
    pub fn prefetch(&mut self, p: Value, first: i64, bytes: i64) {
        let attributes = [("rw", 0), ("hint", 3), ("cache", 1)]
            .map(|(name, value)| (name, Attr::Int(Elem::I32, value)));
        for line in (first..first + bytes).step_by(CACHE_LINE) {
            let line = self.offset(p, line);
            self.ops
                .op("llvm.intr.prefetch", &[line], &[], &attributes, vec![]);
        }
    }

    /// Adds to an integer that threads share; returns what it was. What this thread wrote before is
    /// seen by a thread that finds its sum, and the other way round.
    pub fn atomic_add(&mut self, p: Value, v: Value) -> Value {
        const ADD: i64 = 1;
        const ACQUIRE_RELEASE: i64 = 6;
        let attributes = [
            ("bin_op", Attr::Int(Elem::I64, ADD)),
            ("ordering", Attr::Int(Elem::I64, ACQUIRE_RELEASE)),
        ];
        self.one("llvm.atomicrmw", &[p, v], v.ty, &attributes)
    }

    /// Loads 16 floats.
    pub fn load_group(&mut self, p: Value) -> Value {
        self.load(GROUP, p)
    }

    /// Loads 16 elements of a float type and widens them to f32 exactly.
    pub fn load_float(&mut self, elem: Elem, p: Value) -> Value {
        let stored = if elem == Elem::BF16 { Elem::I16 } else { elem };
        let v = self.load(Ty::Vector(stored, LANES as u32), p);
        self.widen(v, elem)
    }

    /// Loads one element of a float type and widens it to f32 exactly.
    pub fn load_float_scalar(&mut self, elem: Elem, p: Value) -> Value {
        let stored = if elem == Elem::BF16 { Elem::I16 } else { elem };
        let v = self.load(Ty::Scalar(stored), p);
        self.widen(v, elem)
    }

    /// Loads an i32 and extends it to i64.
    pub fn load_i32(&mut self, p: Value) -> Value {
        let v = self.load(Ty::I32, p);
        self.sign_extend(v, Elem::I64)
    }

    /// Loads one f32 into all 16 lanes.
    pub fn load_broadcast(&mut self, p: Value) -> Value {
        let v = self.load(Ty::F32, p);
        self.broadcast(v)
    }
}
