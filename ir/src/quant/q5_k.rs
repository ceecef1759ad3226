//! Q5_K: 256 five-bit numbers in 8 sub-blocks of 32. `w = (d · sc) · q − dmin · mn`.
//!
//! Block: d, dmin, scales[12] (as in Q4_K), high bits[32], nibbles[128] (as in Q4_K): the fifth bit
//! of element `32 j + l` is bit j of byte l of the high bits.

use super::{BlockFormat, f16_at, scale_min};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_K;

impl BlockFormat for Q5_K {
    const NAME: &'static str = "q5_k";
    const LEN: usize = 256;
    const BYTES: usize = 176;

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
}
