//! Q2_K: 256 two-bit numbers in 16 sub-blocks of 16. `w = (d · sc) · q − dmin · mn`.
//!
//! Block: scales[16] (sc in the low, mn in the high nibble), q[64], d, dmin. Element
//! `128 h + 32 j + l` is bits 2j, 2j+1 of byte `32 h + l` of q (h of 2, j of 4, l of 32).
//!
//! Quantised: scale and minimum of every sub-block by [`fit::with_minimum`], both in 15ths of the
//! greatest. Error (seen, with a margin): max|x| of the block.

use super::{BlockFormat, f16_at, fit, fit_all};

#[allow(non_camel_case_types, reason = "GGUF's name")]
pub struct Q2_K;

impl BlockFormat for Q2_K {
    const NAME: &'static str = "q2_k";
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const ERROR: f32 = 1.0;

    fn dequantize(block: &[u8], out: &mut [f32]) {
        let (scales, q) = (&block[..16], &block[16..80]);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (i, v) in out.iter_mut().enumerate() {
            let (h, j, l) = (i / 128, i % 128 / 32, i % 32);
            let code = q[32 * h + l] >> (2 * j) & 3;
            let s = scales[i / 16];
            *v = d * f32::from(s & 15) * f32::from(code) - dmin * f32::from(s >> 4);
        }
    }

    fn quantize(values: &[f32], block: &mut [u8]) {
        block.fill(0);
        let tries = fit::Tries { first: -5, count: 15 };
        let sub = || values.chunks_exact(16);
        let fits: [(f32, f32); 16] = fit_all(sub().map(|v| fit::with_minimum(v, 3.0, &tries)));
        let most = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
        let ((d_bytes, d), (m_bytes, dmin)) =
            (fit::f16(most(|f| f.0) / 15.0), fit::f16(most(|f| f.1) / 15.0));
        block[80..82].copy_from_slice(&d_bytes);
        block[82..].copy_from_slice(&m_bytes);
        for (s, values) in sub().enumerate() {
            let near = (
                fit::code(fits[s].0, fit::inverse(d), 0.0, 15.0),
                fit::code(fits[s].1, fit::inverse(dmin), 0.0, 15.0),
            );
            let weight = fit::weight_of(values);
            let (sc, mn) = fit::stored(values, (d, dmin), near, (0.0, 15.0), (0.0, 3.0), weight);
            block[s] = sc as u8 | (mn as u8) << 4;
            let (h, j, start) = (s / 8, s % 8 / 2, s % 2 * 16);
            let q = &mut block[16 + 32 * h + start..][..16];
            for (byte, code) in q.iter_mut().zip(fit::codes(values, d * sc, dmin * mn, 0.0, 3.0)) {
                *byte |= code << (2 * j);
            }
        }
    }
}
