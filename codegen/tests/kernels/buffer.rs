//! 64-byte aligned test data, a small random generator, and comparison.

use half::{bf16, f16};
use llmc_codegen::kernel::Elem;
use llmc_codegen::kernels::KvElem;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Aligned bytes with typed views; filled with zeros.
#[derive(Clone)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    pub fn bytes(len: usize) -> Buffer {
        Buffer {
            lines: vec![Line([0; 64]); len / 64 + 2],
        }
    }

    pub fn floats(len: usize) -> Buffer {
        Buffer::bytes(len * 4)
    }

    pub fn from_f32(values: &[f32]) -> Buffer {
        let mut b = Buffer::floats(values.len());
        b.f32_mut()[..values.len()].copy_from_slice(values);
        b
    }

    pub fn from_bytes(bytes: &[u8]) -> Buffer {
        let mut b = Buffer::bytes(bytes.len());
        for (line, bytes) in b.lines.iter_mut().zip(bytes.chunks(64)) {
            line.0[..bytes.len()].copy_from_slice(bytes);
        }
        b
    }

    pub fn from_i32(values: &[i32]) -> Buffer {
        let mut b = Buffer::bytes(values.len() * 4);
        for (to, v) in b.f32_mut().iter_mut().zip(values) {
            *to = f32::from_bits(*v as u32);
        }
        b
    }

    /// The values rounded to `elem` and stored so.
    pub fn from_elems(values: &[f32], elem: Elem) -> Buffer {
        match elem {
            Elem::F32 => Buffer::from_f32(values),
            _ => {
                let mut b = Buffer::bytes(values.len() * 2);
                for (to, v) in b.u16_mut().iter_mut().zip(values) {
                    *to = match elem {
                        Elem::F16 => f16::from_f32(*v).to_bits(),
                        _ => bf16::from_f32(*v).to_bits(),
                    };
                }
                b
            }
        }
    }

    pub fn f32(&self) -> &[f32] {
        // SAFETY: the lines are initialised and more aligned than f32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 16) }
    }

    pub fn f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and uniquely borrowed.
        unsafe {
            std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 16)
        }
    }

    pub fn u8(&self) -> &[u8] {
        // SAFETY: the lines are initialised.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    pub fn u16(&self) -> &[u16] {
        // SAFETY: the lines are initialised and more aligned than u16.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 32) }
    }

    pub fn u16_mut(&mut self) -> &mut [u16] {
        // SAFETY: the lines are initialised, more aligned than u16, and uniquely borrowed.
        unsafe {
            std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 32)
        }
    }

    pub fn ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }

    /// Scratch memory: NaN throughout, and behind `len` too.
    pub fn scratch(len: i64) -> Buffer {
        let mut b = Buffer::bytes(len as usize);
        b.f32_mut().fill(f32::NAN);
        b
    }

    /// Nothing was written behind the `len` bytes of [`Buffer::scratch`].
    #[track_caller]
    pub fn assert_within(&self, len: i64) {
        let behind = &self.f32()[(len as usize).div_ceil(4)..];
        assert!(
            behind.iter().all(|v| v.is_nan()),
            "scratch is written behind its {len} bytes"
        );
    }

    /// Fills the whole buffer with finite numbers of any size, as a recycled page may hold them.
    pub fn fill_stale(&mut self, elem: KvElem, random: &mut Random) {
        let most = match elem {
            KvElem::F32 => {
                for v in self.f32_mut() {
                    let bits = (random.next() << 16 ^ random.next()) as u32;
                    let stale = f32::from_bits(bits);
                    *v = if stale.is_finite() { stale } else { f32::MAX };
                }
                return;
            }
            // Any byte is a code of q8_0; its scales are f16.
            KvElem::F16 | KvElem::Q8_0 => f16::MAX.to_bits(),
            KvElem::BF16 => bf16::MAX.to_bits(),
        };
        for v in self.u16_mut() {
            let bits = random.next() as u16;
            let (sign, size) = (bits & 0x8000, bits & 0x7fff);
            *v = sign | size.min(most);
        }
    }

    pub fn bits(&self) -> Vec<u32> {
        self.f32().iter().map(|v| v.to_bits()).collect()
    }
}

/// A block of q8_0 of 32 values: the f16 scale `max|x| / 127`, and the codes by it, nearest even.
pub fn q8_0(values: &[f32]) -> (f16, Vec<i8>) {
    let most = values.iter().fold(0.0, |m: f32, x| m.max(x.abs()));
    let scale = f16::from_f32(most / 127.0);
    let d = scale.to_f32();
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let code = |x: &f32| (x * inverse).clamp(-127.0, 127.0).round_ties_even() as i8;
    (scale, values.iter().map(code).collect())
}

/// `v` as it comes back from storage as `elem`.
pub fn rounded(v: f32, elem: Elem) -> f32 {
    match elem {
        Elem::F16 => f16::from_f32(v).to_f32(),
        Elem::BF16 => bf16::from_f32(v).to_f32(),
        _ => v,
    }
}

/// A head's key or value as it comes back from a cache.
pub fn rounded_row(row: &[f32], elem: KvElem) -> Vec<f32> {
    match elem.plain() {
        Some(elem) => row.iter().map(|x| rounded(*x, elem)).collect(),
        None => row
            .chunks(32)
            .flat_map(|block| {
                let (scale, codes) = q8_0(block);
                codes
                    .into_iter()
                    .map(move |q| f32::from(q) * scale.to_f32())
            })
            .collect(),
    }
}

/// A multiplicative generator; the same numbers in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Uniform in `-1..1`.
    pub fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    /// `rows` rows of `width` numbers, padded with zeros to `stride`.
    pub fn rows(&mut self, rows: usize, width: usize, stride: usize) -> Vec<f32> {
        let mut v = vec![0.0; rows * stride];
        for row in v.chunks_mut(stride) {
            row[..width].iter_mut().for_each(|x| *x = self.unit());
        }
        v
    }
}

pub fn pad(v: usize, to: usize) -> usize {
    v.div_ceil(to) * to
}

/// The same floats to the bit; -0 and 0 differ.
#[track_caller]
pub fn assert_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: another length");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}: float {i} is {a:e}, not {b:e}"
        );
    }
}

#[track_caller]
pub fn assert_close(found: f32, expected: f64, tolerance: f64, what: &str) {
    let error = (f64::from(found) - expected).abs();
    assert!(
        error <= tolerance * (1.0 + expected.abs()),
        "{what}: found {found}, expected {expected}"
    );
}
