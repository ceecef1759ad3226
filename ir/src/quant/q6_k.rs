//! Q6_K: 256 six-bit numbers in 16 sub-blocks of 16. `w = (d · sc) · (q − 32)`.
//!
//! Block: low[128], high[64], scales[16] (signed), d. Element `128 h + 32 j + l` (h of 2, j of 4,
//! l of 32) has its low four bits in byte `64 h + 32 (j % 2) + l` of low, half `j / 2`, and its high
//! two at bit 2j of byte `32 h + l` of high.

use super::{BlockFormat, f16_at};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q6_K;

impl BlockFormat for Q6_K {
    const NAME: &'static str = "q6_k";
    const LEN: usize = 256;
    const BYTES: usize = 210;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let d = f16_at(block, 208);
        for (i, v) in out.iter_mut().enumerate() {
            let (h, j, l) = (i / 128, i % 128 / 32, i % 32);
            let nibble = low[64 * h + 32 * (j % 2) + l] >> (4 * (j / 2)) & 15;
            let code = nibble | (high[32 * h + l] >> (2 * j) & 3) << 4;
            *v = d * f32::from(scales[i / 16] as i8) * (f32::from(code) - 32.0);
        }
    }
}
