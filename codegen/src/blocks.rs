//! How weights in block formats lie in memory for kernels: one description, which packing writes
//! by and kernels read by.
//!
//! - Rows go in *strips* of 32, a strip in two *halves* of 16 rows. K goes in *units* of 64 or 256
//!   elements. A strip is its units in order of K, each as half 0 and half 1, so that a thread
//!   which owns some strips reads one sequential stream.
//! - A half unit is, 64-byte aligned: packed scales (dwords), f16 scales, then for each 32 elements
//!   of K the low bits of their codes and the high bits. In vectors of 64 bytes byte `4 r + j`
//!   belongs to row r; the codes of *group* g are elements `4 g + j`. With `low` bits there are
//!   `8 / low` groups in a vector, the first in the lowest bits; likewise `high`. With `values` what is
//!   stored is the place of a code in a list of 16.
//! - The scale bytes are the source's own, so a format costs what it costs in GGUF, but for
//!   padding: rows to strips, K to units (zero codes and scales), half units to 64 bytes.
//! - Int8 rows have their f32 scales behind the strip's last unit.
//!
//! Not here: bytes of GGUF (`pack::blocks`), and arithmetic (`kernels::blocks`).

use llmc_ir::{
    DType,
    quant::{Format, MXFP4_VALUES},
};

/// Rows of a strip.
pub const STRIP: i64 = 32;

/// Rows of a half: lanes of a vector.
pub const HALF: i64 = 16;

/// Bytes of a vector.
const VECTOR: i64 = 64;

/// Bytes of 16 × f16.
const HALVES: i64 = 32;

/// Added to MXFP4's values, twice the floats, to make them codes.
const MXFP4_OFFSET: i8 = 12;

const MXFP4_CODES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = (MXFP4_VALUES[i] + MXFP4_OFFSET) as u8;
        i += 1;
    }
    codes
};

/// What scales a part of a block, and how it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scales {
    /// f16 d.
    Plain,
    /// f16 d, f16 m: the minimum is `−m`.
    PlainMin,
    /// Q2_K: 16 bytes, the scale in the low nibble, the minimum in the high; f16 d, dmin.
    Nibbles,
    /// Q3_K: signed six bits in 12 bytes; f16 d.
    SixSigned,
    /// Q4_K, Q5_K: scales and minima in six bits, 12 bytes; f16 d, dmin.
    SixMin,
    /// Q6_K: 16 signed bytes; f16 d.
    Bytes,
    /// One byte e: 2^(e − 128).
    Exponent,
    /// One f32 for each row, behind the strip.
    Row,
}

/// The stored form of an element type: `w = scale · (code − offset) − min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Part of symbol names.
    pub name: &'static str,
    /// Low bits of a code: 2, 4 or 8.
    pub low: i64,
    /// High bits of a code: 0, 1 or 2.
    pub high: i64,
    /// Elements of a unit.
    pub unit: i64,
    /// Elements of a block of the source.
    pub block: i64,
    /// Elements that share a scale; for [`Scales::Row`] it means nothing.
    pub part: i64,
    pub offset: i64,
    pub scales: Scales,
    /// The codes that stored nibbles stand for, where they are not the codes themselves.
    pub values: Option<[u8; 16]>,
}

/// Blocks of 32, two of them in a unit.
const fn simple(name: &'static str, low: i64, high: i64, offset: i64, scales: Scales) -> Blocks {
    Blocks {
        name,
        low,
        high,
        unit: 64,
        block: 32,
        part: 32,
        offset,
        scales,
        values: None,
    }
}

/// Superblocks of 256.
const fn large(
    name: &'static str,
    low: i64,
    high: i64,
    part: i64,
    offset: i64,
    scales: Scales,
) -> Blocks {
    Blocks {
        name,
        low,
        high,
        unit: 256,
        block: 256,
        part,
        offset,
        scales,
        values: None,
    }
}

impl Blocks {
    /// The form of a block format.
    pub const fn of(format: Format) -> Blocks {
        match format {
            Format::MXFP4 => Blocks {
                values: Some(MXFP4_CODES),
                ..simple("mxfp4", 4, 0, MXFP4_OFFSET as i64, Scales::Exponent)
            },
            Format::Q2_K => large("q2_k", 2, 0, 16, 0, Scales::Nibbles),
            Format::Q3_K => large("q3_k", 2, 1, 16, 4, Scales::SixSigned),
            Format::Q4_0 => simple("q4_0", 4, 0, 8, Scales::Plain),
            Format::Q4_1 => simple("q4_1", 4, 0, 0, Scales::PlainMin),
            Format::Q4_K => large("q4_k", 4, 0, 32, 0, Scales::SixMin),
            Format::Q5_0 => simple("q5_0", 4, 1, 16, Scales::Plain),
            Format::Q5_1 => simple("q5_1", 4, 1, 0, Scales::PlainMin),
            Format::Q5_K => large("q5_k", 4, 1, 32, 0, Scales::SixMin),
            Format::Q6_K => large("q6_k", 4, 2, 16, 32, Scales::Bytes),
            Format::Q8_0 => simple("q8_0", 8, 0, 128, Scales::Plain),
        }
    }

    /// Signed bytes with a scale for each row.
    pub const INT8: Blocks = simple("int8", 8, 0, 128, Scales::Row);

    /// The form of an element type, where it is one of blocks.
    pub const fn of_dtype(dtype: DType) -> Option<Blocks> {
        match dtype {
            DType::Block(format) => Some(Blocks::of(format)),
            DType::Int8 => Some(Blocks::INT8),
            DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::Q8(_) => None,
        }
    }

    /// Whether codes are stored as the bytes that products read.
    pub const fn codes_are_bytes(&self) -> bool {
        self.low == 8
    }

    /// Whether parts have a minimum.
    pub const fn has_min(&self) -> bool {
        matches!(
            self.scales,
            Scales::PlainMin | Scales::Nibbles | Scales::SixMin
        )
    }

    /// Parts of a unit.
    pub const fn parts(&self) -> i64 {
        self.unit / self.part
    }

    /// Vectors of packed scales in a half unit.
    pub const fn dwords(&self) -> i64 {
        match self.scales {
            Scales::Plain | Scales::PlainMin | Scales::Exponent | Scales::Row => 0,
            Scales::SixSigned | Scales::SixMin => 3,
            Scales::Nibbles | Scales::Bytes => 4,
        }
    }

    /// f16 numbers of a block.
    pub const fn halves(&self) -> i64 {
        match self.scales {
            Scales::Exponent | Scales::Row => 0,
            Scales::Plain | Scales::SixSigned | Scales::Bytes => 1,
            Scales::PlainMin | Scales::Nibbles | Scales::SixMin => 2,
        }
    }

    /// Bytes of a block's f16 numbers or exponents, of 16 rows.
    const fn numbers(&self) -> i64 {
        match self.scales {
            Scales::Exponent => HALF,
            _ => self.halves() * HALVES,
        }
    }

    /// Where in a half unit f16 scales or exponents are, behind the packed ones: block after block, its
    /// numbers in turn, 16 rows each.
    pub const fn halves_at(&self) -> i64 {
        self.dwords() * VECTOR
    }

    /// Where in a half unit the codes of elements `32 i …` are: low bits.
    pub const fn low_at(&self, i: i64) -> i64 {
        let scales = self.halves_at() + self.unit / self.block * self.numbers();
        let codes = (scales + VECTOR - 1) / VECTOR * VECTOR;
        codes + i * (self.low + self.high) * VECTOR
    }

    /// Where in a half unit the codes of elements `32 i …` are: high bits.
    pub const fn high_at(&self, i: i64) -> i64 {
        self.low_at(i) + self.low * VECTOR
    }

    /// Bytes of a half unit.
    pub const fn half_bytes(&self) -> i64 {
        self.low_at(self.unit / 32)
    }

    /// Units of a row of `cols` elements.
    pub const fn units(&self, cols: i64) -> i64 {
        (cols + self.unit - 1) / self.unit
    }

    /// Where in a strip of `cols` columns the scales of [`Scales::Row`] are.
    pub const fn rows_at(&self, cols: i64) -> i64 {
        self.units(cols) * 2 * self.half_bytes()
    }

    /// Bytes of a strip of `cols` columns.
    pub const fn strip_bytes(&self, cols: i64) -> i64 {
        let scales = if matches!(self.scales, Scales::Row) {
            STRIP * 4
        } else {
            0
        };
        self.rows_at(cols) + scales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_cost_what_the_source_costs() {
        for format in Format::ALL {
            let form = Blocks::of(format);
            let source = form.unit / format.block_len() as i64 * format.block_bytes() as i64;
            let padding = form.half_bytes() - HALF * source;
            assert!((0..VECTOR).contains(&padding), "{}: {padding}", form.name);
            assert_eq!(form.name, format.name());
            assert_eq!(form.block, format.block_len() as i64);
        }
        assert_eq!(Blocks::of(Format::Q5_0).half_bytes(), 704);
        assert_eq!(Blocks::of(Format::Q4_K).half_bytes(), 2304);
        assert_eq!(Blocks::INT8.strip_bytes(100), 2 * 2 * 1024 + 128);
    }
}
