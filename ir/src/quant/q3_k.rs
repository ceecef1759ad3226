//! Q3_K: 256 three-bit numbers in 16 sub-blocks of 16. `w = (d · (sc − 32)) · (q − 4)`.
//!
//! Block: high bits[32], low bits[64], scales[12], d. Element `128 h + 32 j + l` has its low bits at
//! 2j, 2j+1 of byte `32 h + l` of the low bits, its high bit at `4 h + j` of byte l of the high bits.
//! Scale s has its low four bits in nibble `s / 8` of byte `s % 8`, its high two at `2 (s / 4)` of
//! byte `8 + s % 4`.
//!
//! Quantised: the scale of every sub-block by [`fit::symmetric`], in 32nds of the greatest. Error
//! (seen, with a margin): max|x| / 2 of the block.

use super::{BlockFormat, f16_at, fit, fit_all};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q3_K;

impl BlockFormat for Q3_K {
    const NAME: &'static str = "q3_k";
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const ERROR: f32 = 1.0 / 2.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (high, low, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let d = f16_at(block, 108);
        for (i, v) in out.iter_mut().enumerate() {
            let (h, j, l) = (i / 128, i % 128 / 32, i % 32);
            let code = (low[32 * h + l] >> (2 * j) & 3) | (high[l] >> (4 * h + j) & 1) << 2;
            *v = d * f32::from(scale(scales, i / 16)) * (f32::from(code) - 4.0);
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        block.fill(0);
        let sub = || values.chunks_exact(16);
        let fits: [f32; 16] = fit_all(sub().map(|v| fit::symmetric(v, 4.0)));
        let (bytes, d) = fit::f16(fit::signed_max(&fits) / -32.0);
        block[108..].copy_from_slice(&bytes);
        for (s, values) in sub().enumerate() {
            let near = (fit::code(fits[s], fit::inverse(d), -32.0, 31.0), 0.0);
            let weight = |x: f32| x * x;
            let (sc, _) = fit::stored(values, (d, 0.0), near, (-32.0, 31.0), (-4.0, 3.0), weight);
            let stored = (sc + 32.0) as u8;
            block[96 + s % 8] |= (stored & 15) << (4 * (s / 8));
            block[104 + s % 4] |= (stored >> 4) << (2 * (s / 4));
            let (h, j, start) = (s / 8, s % 8 / 2, s % 2 * 16);
            for (l, code) in (start..).zip(fit::codes(values, d * sc, 0.0, -4.0, 3.0)) {
                block[32 + 32 * h + l] |= (code & 3) << (2 * j);
                block[l] |= (code >> 2) << (4 * h + j);
            }
        }
    }
}

/// The signed scale of sub-block `s`.
fn scale(scales: &[u8], s: usize) -> i8 {
    let low = scales[s % 8] >> (4 * (s / 8)) & 15;
    let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    (low | high << 4) as i8 - 32
}
