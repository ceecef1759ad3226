//! MXFP4: 32 four-bit floats under one exponent. `w = 2^(e − 127) · v`. Block: e, nibbles[16]
//! (elements 0…15 low, 16…31 high).
//!
//! A nibble is a sign and two bits of exponent and one of mantissa (E2M1): 0, ½, 1, 1½, 2, 3, 4, 6. Source:
//! OCP *Microscaling Formats (MX) Specification*, 1.0, and GGUF's `block_mxfp4`. Values are computed as
//! `2v · 2^(e − 128)`, which is exact and has no special case for e = 255.
//!
//! Quantised: e is the least with which the greatest magnitude is at most 6 steps; values are rounded to
//! the nearest. Error: half of the widest gap, between 4 and 6, of a greatest magnitude of 5 or more.

use super::{BlockFormat, nibble, put_nibbles};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct MXFP4;

/// Twice what each nibble stands for.
pub const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 2^(e − 128).
fn half_scale(e: u8) -> f32 {
    f32::from_bits(match e {
        // Below f32's normal numbers.
        0 | 1 => 0x0020_0000 << e,
        e => (u32::from(e) - 1) << 23,
    })
}

impl BlockFormat for MXFP4 {
    const NAME: &'static str = "mxfp4";
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const ERROR: f32 = 1.0 / 5.0 * 1.001;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let d = half_scale(block[0]);
        for (i, v) in out.iter_mut().enumerate() {
            *v = f32::from(DOUBLED[usize::from(nibble(&block[1..], i))]) * d;
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        let most = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let fits = |e: &u8| 12.0 * half_scale(*e) >= most;
        let e = (0..=254).find(fits).unwrap_or(254);
        block[0] = if most == 0.0 { 0 } else { e };
        let d = half_scale(e);
        put_nibbles(&mut block[1..], values.iter().map(|x| code(x / d)));
    }
}

/// The nibble nearest to half of `doubled`; of two the one with an even mantissa.
fn code(doubled: f32) -> u8 {
    let size = doubled.abs();
    // The middles between neighbours; a tie goes to the even code.
    let middles = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];
    let mut code = 0;
    for (i, middle) in (0u8..).zip(middles) {
        if size > middle || (size == middle && i % 2 == 1) {
            code = i + 1;
        }
    }
    if doubled < 0.0 { code | 8 } else { code }
}
