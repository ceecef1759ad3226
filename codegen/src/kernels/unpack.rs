//! Widening a run of 16-bit floats to f32, exactly.

use super::F32;
use crate::kernel::{Elem, KernelBuilder, LANES, Param};

/// Emits `unpack(count: i64, from: *elem, to: *f32)`: `count` elements, a multiple of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpack {
    pub elem: Elem,
}

impl Unpack {
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        let name = format!("unpack_{}", self.elem.name());
        let params = [Param::i64(), Param::input(), Param::output()];
        b.kernel(&name, &params, |b, args| {
            let (count, from, to) = (args[0], args[1], args[2]);
            let zero = b.i64(0);
            b.for_each(zero, count, 4 * LANES, |b, i| {
                let from = b.at(from, i, self.elem.bytes());
                let to = b.at(to, i, F32);
                for group in 0..4 {
                    let p = b.offset(from, group * LANES * self.elem.bytes());
                    let v = b.load_float(self.elem, p);
                    let p = b.offset(to, group * LANES * F32);
                    b.store(v, p);
                }
            });
        })
    }
}
