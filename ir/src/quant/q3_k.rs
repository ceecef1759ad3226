//! Q3_K: 256 three-bit numbers in 16 sub-blocks of 16. `w = (d · (sc − 32)) · (q − 4)`.
//!
//! Block: high bits[32], low bits[64], scales[12], d. Element `128 h + 32 j + l` has its low bits at
//! 2j, 2j+1 of byte `32 h + l` of the low bits, its high bit at `4 h + j` of byte l of the high bits.
//! Scale s has its low four bits in nibble `s / 8` of byte `s % 8`, its high two at `2 (s / 4)` of
//! byte `8 + s % 4`.

use super::{BlockFormat, f16_at};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q3_K;

impl BlockFormat for Q3_K {
    const NAME: &'static str = "q3_k";
    const LEN: usize = 256;
    const BYTES: usize = 110;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (high, low, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let d = f16_at(block, 108);
        for (i, v) in out.iter_mut().enumerate() {
            let (h, j, l) = (i / 128, i % 128 / 32, i % 32);
            let code = (low[32 * h + l] >> (2 * j) & 3) | (high[l] >> (4 * h + j) & 1) << 2;
            *v = d * f32::from(scale(scales, i / 16)) * (f32::from(code) - 4.0);
        }
    }
}

/// The signed scale of sub-block `s`.
fn scale(scales: &[u8], s: usize) -> i8 {
    let low = scales[s % 8] >> (4 * (s / 8)) & 15;
    let high = scales[8 + s % 4] >> (2 * (s / 4)) & 3;
    (low | high << 4) as i8 - 32
}
