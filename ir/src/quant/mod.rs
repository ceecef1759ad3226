//! Block formats of weights, as GGUF defines them: one file each; and 8-bit activations ([`activation`]).
//!
//! A format stores blocks of consecutive elements of a row. Numbers are little endian; `d`, `m` and
//! `dmin` are f16, `e` a byte. Dequantisation is exact in the order that the formulas give (f32, no fused
//! multiply-add), so that whoever repacks blocks can be compared with it bit for bit. Quantisation is
//! deterministic; each format says how, and how far it may be off.
//!
//! Source: the GGUF specification, and ggml's block structures that it refers to.
//!
//! Not here: packing for kernels, and which tensor gets which format.

use half::f16;

pub mod activation;
mod fit;
pub use mxfp4::DOUBLED as MXFP4_VALUES;
pub mod rows;

/// One block format.
pub trait BlockFormat {
    /// GGUF's name, in lower case.
    const NAME: &'static str;
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Greatest error of a quantised value, relative to the block's greatest magnitude, besides
    /// [`SUBNORMAL`].
    const ERROR: f32;

    /// Writes the `LEN` values of a block of `BYTES` bytes.
    fn dequantize(block: &[u8], out: &mut [f32]);

    /// Writes the block of `BYTES` bytes that stands for `LEN` finite values of magnitudes up to
    /// [`rows::MAX`]; dequantised they come back within `ERROR`.
    fn quantize(values: &[f32], block: &mut [u8]);
}

/// What scales below f16's normal numbers add to a format's error: half of the least of them, 2^-25,
/// times the 2^12 steps that Q6_K, the finest, has to its greatest value.
pub const SUBNORMAL: f32 = 1.0 / (1 << 13) as f32;

macro_rules! formats {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(mod $module;)*

        /// A block format.
        #[allow(non_camel_case_types, reason = "GGUF's names")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Format { $($name),* }

        impl Format {
            /// All formats, alphabetical.
            pub const ALL: [Format; [$(Format::$name),*].len()] = [$(Format::$name),*];

            /// GGUF's name, in lower case; the text syntax.
            pub fn name(self) -> &'static str {
                match self { $(Format::$name => <$module::$name as BlockFormat>::NAME),* }
            }

            /// Elements of a block.
            pub fn block_len(self) -> usize {
                match self { $(Format::$name => <$module::$name as BlockFormat>::LEN),* }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> usize {
                match self { $(Format::$name => <$module::$name as BlockFormat>::BYTES),* }
            }

            /// The values of one block: `block_bytes` bytes → `block_len` values.
            pub fn dequantize_block(self, block: &[u8], out: &mut [f32]) {
                match self { $(Format::$name => $module::$name::dequantize(block, out)),* }
            }

            /// The block of `block_bytes` bytes that stands for `block_len` values, which are finite
            /// and at most [`rows::MAX`] in magnitude.
            pub fn quantize_block(self, values: &[f32], block: &mut [u8]) {
                match self { $(Format::$name => $module::$name::quantize(values, block)),* }
            }

            /// Greatest error of a quantised value, relative to the block's greatest magnitude; scales
            /// below f16's normal numbers add [`SUBNORMAL`].
            pub fn error(self) -> f32 {
                match self { $(Format::$name => <$module::$name as BlockFormat>::ERROR),* }
            }
        }
    };
}

formats! {
    mxfp4::MXFP4,
    q2_k::Q2_K,
    q3_k::Q3_K,
    q4_0::Q4_0,
    q4_1::Q4_1,
    q4_k::Q4_K,
    q5_0::Q5_0,
    q5_1::Q5_1,
    q5_k::Q5_K,
    q6_k::Q6_K,
    q8_0::Q8_0,
}

impl Format {
    /// The format of that name.
    pub fn from_name(name: &str) -> Option<Format> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The values of whole blocks.
    pub fn dequantize(self, blocks: &[u8]) -> Vec<f32> {
        let len = self.block_len();
        let mut out = vec![0.0; blocks.len() / self.block_bytes() * len];
        for (block, values) in blocks
            .chunks_exact(self.block_bytes())
            .zip(out.chunks_exact_mut(len))
        {
            self.dequantize_block(block, values);
        }
        out
    }
}

impl Format {
    /// Whole blocks of values as stored, under the conditions of [`Format::quantize_block`].
    pub fn quantize(self, values: &[f32]) -> Vec<u8> {
        let (len, bytes) = (self.block_len(), self.block_bytes());
        let mut out = vec![0; values.len() / len * bytes];
        for (values, block) in values.chunks_exact(len).zip(out.chunks_exact_mut(bytes)) {
            self.quantize_block(values, block);
        }
        out
    }
}

/// The f16 at byte `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Nibble `i` of 16 bytes that hold elements 0…15 in their low and 16…31 in their high halves.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    if i < 16 {
        bytes[i] & 15
    } else {
        bytes[i - 16] >> 4
    }
}

/// Puts 32 codes where [`nibble`] finds them.
fn put_nibbles(bytes: &mut [u8], codes: impl Iterator<Item = u8>) {
    for (i, code) in codes.enumerate() {
        if i < 16 {
            bytes[i] = code;
        } else {
            bytes[i - 16] |= code << 4;
        }
    }
}

/// What was found for every sub-block.
fn fit_all<T: Copy + Default, const N: usize>(fits: impl Iterator<Item = T>) -> [T; N] {
    let mut all = [T::default(); N];
    for (to, fit) in all.iter_mut().zip(fits) {
        *to = fit;
    }
    all
}

/// Writes d, dmin and the 12 bytes of scales and minima that [`scale_min`] reads, for codes of
/// `0 … high`; tells d and dmin.
fn put_scales(block: &mut [u8], values: &[f32], fits: &[(f32, f32); 8], high: f32) -> (f32, f32) {
    let most = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let ((d_bytes, d), (m_bytes, dmin)) = (
        fit::f16(most(|f| f.0) / 63.0),
        fit::f16(most(|f| f.1) / 63.0),
    );
    block[..2].copy_from_slice(&d_bytes);
    block[2..4].copy_from_slice(&m_bytes);
    let scales = &mut block[4..16];
    for (j, values) in values.chunks_exact(32).enumerate() {
        let near = (
            fit::code(fits[j].0, fit::inverse(d), 0.0, 63.0),
            fit::code(fits[j].1, fit::inverse(dmin), 0.0, 63.0),
        );
        let weight = fit::weight_of(values);
        let (sc, mn) = fit::stored(values, (d, dmin), near, (0.0, 63.0), (0.0, high), weight);
        let (sc, mn) = (sc as u8, mn as u8);
        if j < 4 {
            (scales[j], scales[j + 4]) = (sc, mn);
        } else {
            scales[j + 4] = (sc & 15) | (mn & 15) << 4;
            scales[j - 4] |= sc >> 4 << 6;
            scales[j] |= mn >> 4 << 6;
        }
    }
    (d, dmin)
}

/// The 6-bit scale and minimum of sub-block `j` in the 12 bytes that Q4_K and Q5_K share.
fn scale_min(scales: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (
            (scales[j + 4] & 15) | (scales[j - 4] >> 6 << 4),
            (scales[j + 4] >> 4) | (scales[j] >> 6 << 4),
        )
    }
}
