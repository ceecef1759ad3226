//! Q5_0: 32 five-bit numbers. `w = d · (q − 16)`. Block: d, high bits (u32, bit i of element i),
//! nibbles[16] (elements 0…15 low, 16…31 high).

use super::{BlockFormat, f16_at, nibble};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_0;

impl BlockFormat for Q5_0 {
    const NAME: &'static str = "q5_0";
    const LEN: usize = 32;
    const BYTES: usize = 22;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (i, v) in out.iter_mut().enumerate() {
            *v = (f32::from(five_bits(&block[2..6], &block[6..], i)) - 16.0) * d;
        }
    }
}

/// Element `i` of 32: its nibble, and bit `i` of the four bytes `high` as the fifth bit.
pub(super) fn five_bits(high: &[u8], nibbles: &[u8], i: usize) -> u8 {
    nibble(nibbles, i) | (high[i / 8] >> (i % 8) & 1) << 4
}
