//! Q5_K: 256 five-bit numbers in 8 sub-blocks of 32. `w = (d · sc) · q − dmin · mn`.
//!
//! Block: d, dmin, scales[12] (as in Q4_K), high bits[32], nibbles[128] (as in Q4_K): the fifth bit
//! of element `32 j + l` is bit j of byte l of the high bits.
//!
//! Quantised: scale and minimum of every sub-block by [`fit::with_minimum`], both in 63rds of the
//! greatest. Error (seen, with a margin): max|x| / 8 of the block.

use super::{BlockFormat, f16_at, fit, fit_all, put_scales, scale_min};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_K;

impl BlockFormat for Q5_K {
    const NAME: &'static str = "q5_k";
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const ERROR: f32 = 1.0 / 8.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let (scales, high, q) = (&block[4..16], &block[16..48], &block[48..]);
        for (j, values) in out.chunks_exact_mut(32).enumerate() {
            let (sc, mn) = scale_min(scales, j);
            let (d, m) = (d * f32::from(sc), dmin * f32::from(mn));
            for (l, v) in values.iter_mut().enumerate() {
                let low = q[32 * (j / 2) + l] >> (4 * (j % 2)) & 15;
                let code = low | (high[l] >> j & 1) << 4;
                *v = d * f32::from(code) - m;
            }
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        block.fill(0);
        let tries = fit::Tries { first: -5, count: 15 };
        let sub = || values.chunks_exact(32);
        let fits: [(f32, f32); 8] = fit_all(sub().map(|v| fit::with_minimum(v, 31.0, &tries)));
        let (d, dmin) = put_scales(block, values, &fits, 31.0);
        for (j, values) in sub().enumerate() {
            let (sc, mn) = scale_min(&block[4..16], j);
            let (d, m) = (d * f32::from(sc), dmin * f32::from(mn));
            for (l, code) in fit::codes(values, d, m, 0.0, 31.0).enumerate() {
                block[48 + 32 * (j / 2) + l] |= (code & 15) << (4 * (j % 2));
                block[16 + l] |= (code >> 4) << j;
            }
        }
    }
}
