//! Q4_0: 32 nibbles. `w = d · (q − 8)`. Block: d, nibbles[16] (elements 0…15 low, 16…31 high).
//!
//! Quantised: the greatest magnitude, with its sign, gets code 0 (−8), so that d takes the other
//! sign. Error: half a step, and a whole one, `max|x| / 8`, at the other end.

use super::{BlockFormat, f16_at, fit, nibble, put_nibbles};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q4_0;

impl BlockFormat for Q4_0 {
    const NAME: &'static str = "q4_0";
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const ERROR: f32 = 1.0 / 8.0 * 1.001;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (i, v) in out.iter_mut().enumerate() {
            *v = (f32::from(nibble(&block[2..], i)) - 8.0) * d;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let (bytes, d) = fit::f16(fit::signed_max(values) / -8.0);
        block[..2].copy_from_slice(&bytes);
        let (nibbles, codes) = (&mut block[2..], fit::codes(values, d, 0.0, -8.0, 7.0));
        put_nibbles(nibbles, codes);
    }
}
