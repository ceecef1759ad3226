//! Q4_0: 32 nibbles. `w = d · (q − 8)`. Block: d, nibbles[16] (elements 0…15 low, 16…31 high).

use super::{BlockFormat, f16_at, nibble};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q4_0;

impl BlockFormat for Q4_0 {
    const NAME: &'static str = "q4_0";
    const LEN: usize = 32;
    const BYTES: usize = 18;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = f16_at(block, 0);
        for (i, v) in out.iter_mut().enumerate() {
            *v = (f32::from(nibble(&block[2..], i)) - 8.0) * d;
        }
    }
}
