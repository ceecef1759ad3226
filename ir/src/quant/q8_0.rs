//! Q8_0: 32 signed bytes. `w = d · q`. Block: d, q[32].
//!
//! Quantised: `d = max|x| / 127`, codes by the stored d. Error: half a step, `max|x| / 254`.

use super::{BlockFormat, f16_at, fit};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q8_0;

impl BlockFormat for Q8_0 {
    const NAME: &'static str = "q8_0";
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const ERROR: f32 = 1.0 / 253.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (v, q) in out.iter_mut().zip(&block[2..]) {
            *v = f32::from(*q as i8) * d;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let (bytes, d) = fit::f16(fit::signed_max(values).abs() / 127.0);
        block[..2].copy_from_slice(&bytes);
        let inverse = fit::inverse(d);
        for (q, x) in block[2..].iter_mut().zip(values) {
            *q = fit::code(*x, inverse, -127.0, 127.0) as i8 as u8;
        }
    }
}
