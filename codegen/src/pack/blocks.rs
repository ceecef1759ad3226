//! Strips of block formats and int8: from rows of the checkpoint to the stored form of [`Blocks`].
//!
//! In: 32 rows as GGUF stores them. Out: one strip. Codes are regrouped, nothing is rounded: the
//! values stay what `Format::dequantize` says, to the bit (`tests/kernels/blocks.rs`).

use std::ops::Range;

use llmc_ir::{DType, quant::Format};

use crate::blocks::{Blocks, HALF, STRIP};

/// Where the parts of a block of the source are.
struct Layout {
    /// The f16 numbers.
    halves: &'static [usize],
    /// The exponent.
    exponent: Option<usize>,
    /// Packed scales, kept as they are.
    scales: Range<usize>,
    /// Writes the unsigned codes of a block.
    codes: fn(&[u8], &mut [u8]),
}

fn layout(format: Format) -> Layout {
    match format {
        Format::MXFP4 => Layout {
            halves: &[],
            exponent: Some(0),
            scales: 0..0,
            codes: |block, out| nibbles(&block[1..17], out),
        },
        Format::Q2_K => Layout {
            halves: &[80, 82],
            exponent: None,
            scales: 0..16,
            codes: |block, out| pairs(&block[16..80], out),
        },
        Format::Q3_K => Layout {
            halves: &[108],
            exponent: None,
            scales: 96..108,
            codes: |block, out| {
                pairs(&block[32..96], out);
                for (j, out) in out.chunks_exact_mut(32).enumerate() {
                    for (code, high) in out.iter_mut().zip(&block[..32]) {
                        *code |= (high >> j & 1) << 2;
                    }
                }
            },
        },
        Format::Q4_0 => Layout {
            halves: &[0],
            exponent: None,
            scales: 0..0,
            codes: |block, out| nibbles(&block[2..18], out),
        },
        Format::Q4_1 => Layout {
            halves: &[0, 2],
            exponent: None,
            scales: 0..0,
            codes: |block, out| nibbles(&block[4..20], out),
        },
        Format::Q4_K => Layout {
            halves: &[0, 2],
            exponent: None,
            scales: 4..16,
            codes: |block, out| runs(&block[16..144], out),
        },
        Format::Q5_0 => Layout {
            halves: &[0],
            exponent: None,
            scales: 0..0,
            codes: |block, out| {
                nibbles(&block[6..22], out);
                fifth_bits(&block[2..6], out);
            },
        },
        Format::Q5_1 => Layout {
            halves: &[0, 2],
            exponent: None,
            scales: 0..0,
            codes: |block, out| {
                nibbles(&block[8..24], out);
                fifth_bits(&block[4..8], out);
            },
        },
        Format::Q5_K => Layout {
            halves: &[0, 2],
            exponent: None,
            scales: 4..16,
            codes: |block, out| {
                runs(&block[48..176], out);
                for (j, out) in out.chunks_exact_mut(32).enumerate() {
                    for (code, high) in out.iter_mut().zip(&block[16..48]) {
                        *code |= (high >> j & 1) << 4;
                    }
                }
            },
        },
        Format::Q6_K => Layout {
            halves: &[208],
            exponent: None,
            scales: 192..208,
            codes: |block, out| {
                for (i, out) in out.chunks_exact_mut(32).enumerate() {
                    let (h, j) = (i / 4, i % 4);
                    let low = &block[64 * h + 32 * (j % 2)..][..32];
                    let high = &block[128 + 32 * h..][..32];
                    for ((code, low), high) in out.iter_mut().zip(low).zip(high) {
                        *code = (low >> (4 * (j / 2)) & 15) | (high >> (2 * j) & 3) << 4;
                    }
                }
            },
        },
        Format::Q8_0 => Layout {
            halves: &[0],
            exponent: None,
            scales: 0..0,
            codes: |block, out| {
                for (code, q) in out.iter_mut().zip(&block[2..34]) {
                    *code = q ^ 128;
                }
            },
        },
    }
}

/// 16 bytes: elements 0…15 in the low halves, 16…31 in the high.
fn nibbles(bytes: &[u8], out: &mut [u8]) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// [`nibbles`] of 32 bytes, again and again.
fn runs(bytes: &[u8], out: &mut [u8]) {
    for (bytes, out) in bytes.chunks_exact(32).zip(out.chunks_exact_mut(64)) {
        let (low, high) = out.split_at_mut(32);
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

/// 32 bytes hold four runs of 32 two-bit codes, from the lowest bits on; again and again.
fn pairs(bytes: &[u8], out: &mut [u8]) {
    for (bytes, out) in bytes.chunks_exact(32).zip(out.chunks_exact_mut(128)) {
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            for (code, byte) in out.iter_mut().zip(bytes) {
                *code = byte >> (2 * j) & 3;
            }
        }
    }
}

/// Bit i of four bytes is the fifth bit of code i.
fn fifth_bits(bits: &[u8], out: &mut [u8]) {
    for (i, code) in out.iter_mut().enumerate() {
        *code |= (bits[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Packs a strip: 32 rows of `cols` elements as weights of type `dtype` store them, None for
/// padding. `out` is the strip's bytes, zeros on entry.
///
/// # Panics
/// Where `dtype` is neither a block format nor int8, or rows are not `dtype.row_bytes(cols)` long.
pub fn pack_strip(dtype: DType, rows: &[Option<&[u8]>], cols: usize, out: &mut [u8]) {
    assert_eq!(rows.len(), STRIP as usize, "a strip has 32 rows");
    let bytes = dtype.row_bytes(cols as u64) as usize;
    assert!(rows.iter().flatten().all(|row| row.len() == bytes));
    match dtype {
        DType::Block(format) => pack_blocks(format, rows, out),
        DType::Int8 => pack_int8(rows, cols, out),
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::Q8(_) => {
            panic!("{} is not stored in strips", dtype.name())
        }
    }
}

/// [`pack_strip`] of a block format.
fn pack_blocks(format: Format, rows: &[Option<&[u8]>], out: &mut [u8]) {
    let form = Blocks::of(format);
    let layout = layout(format);
    let (block, bytes) = (format.block_len(), format.block_bytes());
    let (unit, half_bytes) = (form.unit as usize, form.half_bytes() as usize);
    let per_unit = unit / block;
    let mut codes = [0u8; 256];
    for (r, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let (half, lane) = (r / HALF as usize, r % HALF as usize);
        for (u, blocks) in row.chunks(per_unit * bytes).enumerate() {
            let to = &mut out[(2 * u + half) * half_bytes..][..half_bytes];
            codes[blocks.len() / bytes * block..].fill(0);
            for (i, source) in blocks.chunks_exact(bytes).enumerate() {
                (layout.codes)(source, &mut codes[i * block..][..block]);
                for (h, from) in layout.halves.iter().enumerate() {
                    let at = (i * layout.halves.len() + h) * 2 * HALF as usize + 2 * lane;
                    let to = &mut to[form.halves_at() as usize + at..][..2];
                    to.copy_from_slice(&source[*from..from + 2]);
                }
                if let Some(from) = layout.exponent {
                    to[form.halves_at() as usize + i * HALF as usize + lane] = source[from];
                }
                for (d, dword) in source[layout.scales.clone()].chunks_exact(4).enumerate() {
                    let at = 64 * d + 4 * lane;
                    to[at..at + 4].copy_from_slice(dword);
                }
            }
            for (i, codes) in codes[..unit].chunks_exact(32).enumerate() {
                let (low, high) = (form.low_at(i as i64), form.high_at(i as i64));
                let (low, high) = (&mut to[low as usize..], high as usize);
                match form.low {
                    2 => planes::<2>(codes, 0, lane, low),
                    4 => planes::<4>(codes, 0, lane, low),
                    _ => planes::<8>(codes, 0, lane, low),
                }
                match form.high {
                    0 => {}
                    1 => planes::<1>(codes, form.low, lane, &mut to[high..]),
                    _ => planes::<2>(codes, form.low, lane, &mut to[high..]),
                }
            }
        }
    }
}

/// [`pack_strip`] of int8 rows: codes, then the scale.
fn pack_int8(rows: &[Option<&[u8]>], cols: usize, out: &mut [u8]) {
    let form = Blocks::INT8;
    let (unit, half_bytes) = (form.unit as usize, form.half_bytes() as usize);
    let mut padded = [0u8; 64];
    for (r, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let (codes, scale) = row.split_at(cols);
        let (half, lane) = (r / HALF as usize, r % HALF as usize);
        for (u, codes) in codes.chunks(unit).enumerate() {
            padded[codes.len()..].fill(0);
            for (to, code) in padded.iter_mut().zip(codes) {
                *to = code ^ 128;
            }
            let to = &mut out[(2 * u + half) * half_bytes..][..half_bytes];
            planes::<8>(&padded, 0, lane, to);
        }
        let at = form.rows_at(cols as i64) as usize + 4 * r;
        out[at..at + 4].copy_from_slice(scale);
    }
}

/// `WIDTH` bits from bit `from` on of every code: groups of four codes side by side in vectors of
/// 64 bytes, of which this row has dword `lane`.
fn planes<const WIDTH: usize>(codes: &[u8], from: i64, lane: usize, out: &mut [u8]) {
    let each = 8 / WIDTH;
    let mask = 0x0101_0101u32 * ((1 << WIDTH) - 1);
    for (codes, vector) in codes.chunks_exact(4 * each).zip(out.chunks_exact_mut(64)) {
        let mut dword = 0;
        for (q, four) in codes.chunks_exact(4).enumerate() {
            let four = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            dword |= (four >> from & mask) << (WIDTH * q);
        }
        vector[4 * lane..][..4].copy_from_slice(&dword.to_le_bytes());
    }
}
