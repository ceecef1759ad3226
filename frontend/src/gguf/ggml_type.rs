//! The element types of ggml, by the numbers that GGUF files give them.
//!
//! In: a number. Out: name, elements of a block, bytes of a block. The sizes of all types are known, because a
//! file is checked whole; computed with are those that the IR has.
//!
//! Source: the GGUF specification's `ggml_type`, and ggml's block structures.

use std::fmt;

use llmc_ir::DType;
use llmc_ir::quant::Format;

/// A type that a current GGUF file may use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GgmlType {
    id: u32,
    /// Its name, in lower case.
    pub name: &'static str,
    /// Elements of a block; 1 where each is stored alone.
    pub block_len: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
}

const fn ty(id: u32, name: &'static str, block_len: u64, block_bytes: u64) -> GgmlType {
    GgmlType {
        id,
        name,
        block_len,
        block_bytes,
    }
}

const TYPES: [GgmlType; 33] = [
    ty(0, "f32", 1, 4),
    ty(1, "f16", 1, 2),
    ty(2, "q4_0", 32, 18),
    ty(3, "q4_1", 32, 20),
    ty(6, "q5_0", 32, 22),
    ty(7, "q5_1", 32, 24),
    ty(8, "q8_0", 32, 34),
    ty(9, "q8_1", 32, 36),
    ty(10, "q2_k", 256, 84),
    ty(11, "q3_k", 256, 110),
    ty(12, "q4_k", 256, 144),
    ty(13, "q5_k", 256, 176),
    ty(14, "q6_k", 256, 210),
    ty(15, "q8_k", 256, 292),
    ty(16, "iq2_xxs", 256, 66),
    ty(17, "iq2_xs", 256, 74),
    ty(18, "iq3_xxs", 256, 98),
    ty(19, "iq1_s", 256, 50),
    ty(20, "iq4_nl", 32, 18),
    ty(21, "iq3_s", 256, 110),
    ty(22, "iq2_s", 256, 82),
    ty(23, "iq4_xs", 256, 136),
    ty(24, "i8", 1, 1),
    ty(25, "i16", 1, 2),
    ty(26, "i32", 1, 4),
    ty(27, "i64", 1, 8),
    ty(28, "f64", 1, 8),
    ty(29, "iq1_m", 256, 56),
    ty(30, "bf16", 1, 2),
    ty(34, "tq1_0", 256, 54),
    ty(35, "tq2_0", 256, 66),
    ty(39, "mxfp4", 32, 17),
    ty(40, "nvfp4", 64, 36),
];

/// Types that files of earlier versions used.
const REMOVED: [(u32, &str); 8] = [
    (4, "q4_2"),
    (5, "q4_3"),
    (31, "q4_0_4_4"),
    (32, "q4_0_4_8"),
    (33, "q4_0_8_8"),
    (36, "iq4_nl_4_4"),
    (37, "iq4_nl_4_8"),
    (38, "iq4_nl_8_8"),
];

impl GgmlType {
    /// The type of that number; else what to say about it.
    pub fn from_id(id: u32) -> Result<Self, String> {
        if let Some(ty) = TYPES.into_iter().find(|ty| ty.id == id) {
            return Ok(ty);
        }
        Err(match REMOVED.iter().find(|(removed, _)| *removed == id) {
            Some((_, name)) => format!("type {name} ({id}), which GGUF has no longer"),
            None => format!("type {id}, which is none of GGUF's"),
        })
    }

    /// The type of a block format.
    pub fn of_format(format: Format) -> Option<Self> {
        TYPES.into_iter().find(|ty| ty.name == format.name())
    }

    /// The element type of the IR; `None` if it has no such type.
    pub fn dtype(self) -> Option<DType> {
        match self.name {
            "f32" => Some(DType::F32),
            "f16" => Some(DType::F16),
            "bf16" => Some(DType::BF16),
            name => Format::from_name(name).map(DType::Block),
        }
    }

    /// Bytes of `elements` elements; `None` if they are no whole blocks, or too many.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        if !elements.is_multiple_of(self.block_len) {
            return None;
        }
        (elements / self.block_len).checked_mul(self.block_bytes)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_the_ir_have_the_sizes_of_ggml() {
        let mut known = 0;
        for ty in TYPES {
            if let Some(DType::Block(format)) = ty.dtype() {
                assert_eq!(ty.block_len, format.block_len() as u64, "{ty}");
                assert_eq!(ty.block_bytes, format.block_bytes() as u64, "{ty}");
                known += 1;
            }
        }
        assert_eq!(known, Format::ALL.len());
    }

    #[test]
    fn numbers_name_one_type() {
        for (i, ty) in TYPES.iter().enumerate() {
            assert_eq!(GgmlType::from_id(ty.id).unwrap(), *ty);
            assert!(
                TYPES[..i]
                    .iter()
                    .all(|other| other.id < ty.id && other.name != ty.name)
            );
        }
        assert_eq!(
            GgmlType::from_id(31).unwrap_err(),
            "type q4_0_4_4 (31), which GGUF has no longer"
        );
        assert_eq!(
            GgmlType::from_id(u32::MAX).unwrap_err(),
            "type 4294967295, which is none of GGUF's"
        );
    }
}
