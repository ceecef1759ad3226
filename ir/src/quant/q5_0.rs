//! Q5_0: 32 five-bit numbers. `w = d · (q − 16)`. Block: d, high bits (u32, bit i of element i),
//! nibbles[16] (elements 0…15 low, 16…31 high).
//!
//! Quantised: the greatest magnitude, with its sign, gets code 0 (−16), so that d takes the other
//! sign. Error: half a step, and a whole one, `max|x| / 16`, at the other end.

use super::{BlockFormat, f16_at, fit, nibble, put_nibbles};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_0;

impl BlockFormat for Q5_0 {
    const NAME: &'static str = "q5_0";
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const ERROR: f32 = 1.0 / 16.0 * 1.001;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (i, v) in out.iter_mut().enumerate() {
            *v = (f32::from(five_bits(&block[2..6], &block[6..], i)) - 16.0) * d;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let (bytes, d) = fit::f16(fit::signed_max(values) / -16.0);
        block[..2].copy_from_slice(&bytes);
        let (high, nibbles) = block[2..].split_at_mut(4);
        put_five_bits(high, nibbles, fit::codes(values, d, 0.0, -16.0, 15.0));
    }
}

/// Element `i` of 32: its nibble, and bit `i` of the four bytes `high` as the fifth bit.
pub(super) fn five_bits(high: &[u8], nibbles: &[u8], i: usize) -> u8 {
    nibble(nibbles, i) | (high[i / 8] >> (i % 8) & 1) << 4
}

/// Puts 32 codes where [`five_bits`] finds them.
pub(super) fn put_five_bits(high: &mut [u8], nibbles: &mut [u8], codes: impl Iterator<Item = u8>) {
    let mut fifth = 0u32;
    let low = codes.enumerate().map(|(i, code)| {
        fifth |= u32::from(code >> 4) << i;
        code & 15
    });
    put_nibbles(nibbles, low);
    high.copy_from_slice(&fifth.to_le_bytes());
}
