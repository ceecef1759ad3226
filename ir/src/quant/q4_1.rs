//! Q4_1: 32 nibbles. `w = d · q + m`. Block: d, m, nibbles[16] (elements 0…15 low, 16…31 high).

use super::{BlockFormat, f16_at, nibble};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q4_1;

impl BlockFormat for Q4_1 {
    const NAME: &'static str = "q4_1";
    const LEN: usize = 32;
    const BYTES: usize = 20;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (i, v) in out.iter_mut().enumerate() {
            *v = f32::from(nibble(&block[4..], i)) * d + m;
        }
    }
}
