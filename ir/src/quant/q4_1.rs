//! Q4_1: 32 nibbles. `w = d · q + m`. Block: d, m, nibbles[16] (elements 0…15 low, 16…31 high).
//!
//! Quantised: m is the least value, d a 15th of the range. Error: half a step, at most
//! `max|x| / 15`, and what f16 rounds off of d and m.

use super::{BlockFormat, f16_at, fit, nibble, put_nibbles};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q4_1;

impl BlockFormat for Q4_1 {
    const NAME: &'static str = "q4_1";
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const ERROR: f32 = 1.0 / 15.0 + 1.0 / 512.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (i, v) in out.iter_mut().enumerate() {
            *v = f32::from(nibble(&block[4..], i)) * d + m;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let (low, high) = fit::range(values);
        let (bytes, d) = fit::f16((high - low) / 15.0);
        block[..2].copy_from_slice(&bytes);
        let (bytes, m) = fit::f16(low);
        block[2..4].copy_from_slice(&bytes);
        put_nibbles(&mut block[4..], fit::codes(values, d, -m, 0.0, 15.0));
    }
}
