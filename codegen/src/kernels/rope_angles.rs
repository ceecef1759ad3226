//! Cosines and sines of the rotary positions of a step.
//!
//! In: positions, inverse frequencies. Out: `cos[n][half]`, `sin[n][half]`, times a scale.
//! The angle is an f32 product, as Hugging Face computes it; its sine is accurate for long
//! contexts. A pad lane has frequency 0: cosine `scale`, sine 0, which keeps zeros zero.

use super::{F32, tag};
use crate::kernel::{Elem, KernelBuilder, LANES, Param};

/// Emits `rope_angles(thread, threads, n: i64, pos: *i32, inv_freq: *f32, cos: *f32, sin: *f32)`;
/// `inv_freq` is `[half]`, the outputs are `[n][half]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeAngles {
    /// Physical frequencies, a multiple of 16.
    pub half: i64,
    /// Factor of both outputs (the attention factor of scaled variants).
    pub scale: f32,
}

impl RopeAngles {
    pub fn symbol(&self) -> String {
        format!("rope_angles_d{}_s{}", self.half, tag(self.scale))
    }

    /// Emits the function and returns its symbol.
    pub fn emit(&self, b: &mut KernelBuilder<'_>) -> String {
        assert_eq!(self.half % LANES, 0, "physical sizes are padded");
        let params = [
            Param::i64(),
            Param::i64(),
            Param::i64(),
            Param::input(),
            Param::input(),
            Param::output(),
            Param::output(),
        ];
        b.kernel(&self.symbol(), &params, |b, args| {
            let [thread, threads, n, pos, inv_freq, cos, sin] = *args else {
                unreachable!("seven parameters")
            };
            let (lo, hi) = b.slice(thread, threads, n);
            b.for_each(lo, hi, 1, |b, row| {
                let p = b.at(pos, row, 4);
                let position = b.load(crate::kernel::Ty::I32, p);
                let position = b.to_float(position, Elem::F32);
                let position = b.broadcast(position);
                let cos = b.at(cos, row, self.half * F32);
                let sin = b.at(sin, row, self.half * F32);
                b.for_unrolled(self.half / LANES, 1, |b, i| {
                    let p = b.at(inv_freq, i, LANES * F32);
                    let frequency = b.load_group(p);
                    let angle = b.mul(position, frequency);
                    let (s, c) = b.sin_cos(angle);
                    let scale = b.splat(self.scale);
                    for (v, to) in [(c, cos), (s, sin)] {
                        let v = b.mul(v, scale);
                        let p = b.at(to, i, LANES * F32);
                        b.store(v, p);
                    }
                });
            });
        })
    }
}
