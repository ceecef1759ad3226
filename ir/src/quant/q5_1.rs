//! Q5_1: 32 five-bit numbers. `w = d · q + m`. Block: d, m, high bits (u32, bit i of element i),
//! nibbles[16] (elements 0…15 low, 16…31 high).
//!
//! Quantised: m is the least value, d a 31th of the range. Error: half a step, at most
//! `max|x| / 31`, and what f16 rounds off of d and m.

use super::{BlockFormat, f16_at, fit, q5_0::{five_bits, put_five_bits}};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_1;

impl BlockFormat for Q5_1 {
    const NAME: &'static str = "q5_1";
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const ERROR: f32 = 1.0 / 31.0 + 1.0 / 512.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (i, v) in out.iter_mut().enumerate() {
            *v = f32::from(five_bits(&block[4..8], &block[8..], i)) * d + m;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let (low, high) = fit::range(values);
        let (bytes, d) = fit::f16((high - low) / 31.0);
        block[..2].copy_from_slice(&bytes);
        let (bytes, m) = fit::f16(low);
        block[2..4].copy_from_slice(&bytes);
        let (high, nibbles) = block[4..].split_at_mut(4);
        put_five_bits(high, nibbles, fit::codes(values, d, -m, 0.0, 31.0));
    }
}
