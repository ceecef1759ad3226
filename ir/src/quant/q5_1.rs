//! Q5_1: 32 five-bit numbers. `w = d · q + m`. Block: d, m, high bits (u32, bit i of element i),
//! nibbles[16] (elements 0…15 low, 16…31 high).

use super::{BlockFormat, f16_at, q5_0::five_bits};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q5_1;

impl BlockFormat for Q5_1 {
    const NAME: &'static str = "q5_1";
    const LEN: usize = 32;
    const BYTES: usize = 24;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        for (i, v) in out.iter_mut().enumerate() {
            *v = f32::from(five_bits(&block[4..8], &block[8..], i)) * d + m;
        }
    }
}
