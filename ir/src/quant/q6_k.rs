//! Q6_K: 256 six-bit numbers in 16 sub-blocks of 16. `w = (d · sc) · (q − 32)`.
//!
//! Block: low[128], high[64], scales[16] (signed), d. Element `128 h + 32 j + l` (h of 2, j of 4,
//! l of 32) has its low four bits in byte `64 h + 32 (j % 2) + l` of low, half `j / 2`, and its high
//! two at bit 2j of byte `32 h + l` of high.
//!
//! Quantised: the scale of every sub-block by [`fit::symmetric`], in 128ths of the greatest. Error
//! (seen, with a margin): max|x| / 16 of the block.

use super::{BlockFormat, f16_at, fit, fit_all};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q6_K;

impl BlockFormat for Q6_K {
    const NAME: &'static str = "q6_k";
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const ERROR: f32 = 1.0 / 16.0;

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

    fn quantize(values: &[f32], block: &mut [u8]) {
        block.fill(0);
        let sub = || values.chunks_exact(16);
        let fits: [f32; 16] = fit_all(sub().map(|v| fit::symmetric(v, 32.0)));
        let (bytes, d) = fit::f16(fit::signed_max(&fits) / -128.0);
        block[208..].copy_from_slice(&bytes);
        for (s, values) in sub().enumerate() {
            let near = (fit::code(fits[s], fit::inverse(d), -128.0, 127.0), 0.0);
            let weight = |x: f32| x * x;
            let (sc, _) = fit::stored(values, (d, 0.0), near, (-128.0, 127.0), (-32.0, 31.0), weight);
            block[192 + s] = sc as i8 as u8;
            let (h, j, start) = (s / 8, s % 8 / 2, s % 2 * 16);
            for (l, code) in (start..).zip(fit::codes(values, d * sc, 0.0, -32.0, 31.0)) {
                block[64 * h + 32 * (j % 2) + l] |= (code & 15) << (4 * (j / 2));
                block[128 + 32 * h + l] |= (code >> 4) << (2 * j);
            }
        }
    }
}
