//! Q2_K: 256 two-bit numbers in 16 sub-blocks of 16. `w = (d · sc) · q − dmin · mn`.
//!
//! Block: scales[16] (sc in the low, mn in the high nibble), q[64], d, dmin. Element
//! `128 h + 32 j + l` is bits 2j, 2j+1 of byte `32 h + l` of q (h of 2, j of 4, l of 32).

use super::{BlockFormat, f16_at};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q2_K;

impl BlockFormat for Q2_K {
    const NAME: &'static str = "q2_k";
    const LEN: usize = 256;
    const BYTES: usize = 84;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (scales, q) = (&block[..16], &block[16..80]);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (i, v) in out.iter_mut().enumerate() {
            let (h, j, l) = (i / 128, i % 128 / 32, i % 32);
            let code = q[32 * h + l] >> (2 * j) & 3;
            let s = scales[i / 16];
            *v = d * f32::from(s & 15) * f32::from(code) - dmin * f32::from(s >> 4);
        }
    }
}
