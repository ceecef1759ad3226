//! Q4_K: 256 nibbles in 8 sub-blocks of 32. `w = (d · sc) · q − dmin · mn`.
//!
//! Block: d, dmin, scales[12] (six-bit sc and mn of 8 sub-blocks), nibbles[128]: element
//! `64 p + l` is the low half of byte `32 p + l`, element `64 p + 32 + l` the high half (p of 4).
//!
//! Quantised: scale and minimum of every sub-block by [`fit::with_minimum`], both in 63rds of the
//! greatest. Error (seen, with a margin): max|x| / 4 of the block.

use super::{BlockFormat, f16_at, fit, fit_all, put_scales, scale_min};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q4_K;

impl BlockFormat for Q4_K {
    const NAME: &'static str = "q4_k";
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const ERROR: f32 = 1.0 / 4.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let (scales, q) = (&block[4..16], &block[16..]);
        for (j, values) in out.chunks_exact_mut(32).enumerate() {
            let (sc, mn) = scale_min(scales, j);
            let (d, m) = (d * f32::from(sc), dmin * f32::from(mn));
            for (l, v) in values.iter_mut().enumerate() {
                let code = q[32 * (j / 2) + l] >> (4 * (j % 2)) & 15;
                *v = d * f32::from(code) - m;
            }
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        block.fill(0);
        let tries = fit::Tries { first: -10, count: 20 };
        let sub = || values.chunks_exact(32);
        let fits: [(f32, f32); 8] = fit_all(sub().map(|v| fit::with_minimum(v, 15.0, &tries)));
        let (d, dmin) = put_scales(block, values, &fits, 15.0);
        for (j, values) in sub().enumerate() {
            let (sc, mn) = scale_min(&block[4..16], j);
            let (d, m) = (d * f32::from(sc), dmin * f32::from(mn));
            let q = &mut block[16 + 32 * (j / 2)..][..32];
            for (byte, code) in q.iter_mut().zip(fit::codes(values, d, m, 0.0, 15.0)) {
                *byte |= code << (4 * (j % 2));
            }
        }
    }
}
