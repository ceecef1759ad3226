//! Q8_0: 32 signed bytes. `w = d · q`. Block: d, q[32].

use super::{BlockFormat, f16_at};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q8_0;

impl BlockFormat for Q8_0 {
    const NAME: &'static str = "q8_0";
    const LEN: usize = 32;
    const BYTES: usize = 34;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (v, q) in out.iter_mut().zip(&block[2..]) {
            *v = f32::from(*q as i8) * d;
        }
    }
}
