//! Where a model's weights come from.
//!
//! In: a checkpoint (mapped, never copied whole) or a seed. Out: a [`WeightSource`]: tensors by name, read chunk
//! by chunk in their stored type.
//!
//! Invariants: a source never holds more of a tensor in memory than the chunk asked for and what the system
//! keeps of a mapping, which [`WeightSource::release`] gives back; what a source lists is consistent (the bytes of
//! a tensor are shape × type, and inside its file).
//!
//! GGUF files, which are more than weights, have a folder of their own (`crate::gguf`).
//!
//! Not here: which names a family asks for and in which shapes (`models`), conversion and packing (`codegen`).

pub mod bound;
pub mod checkpoint;
pub mod mapping;
mod mxfp4;
pub mod safetensors;
pub mod synthetic;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use llmc_ir::DType;

use crate::error::Result;
use crate::gguf::{GgmlType, Gguf, GgufWeights};
use checkpoint::Checkpoint;

/// The type of a stored element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredType {
    /// IEEE double precision.
    F64,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// Signed integers, of buffers such as `position_ids`.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 16 bits.
    I16,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 64 bits.
    U64,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 8 bits.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// Float8, in its variants; carried, not computed with.
    F8,
    /// Complex, 64 bits.
    C64,
    /// Another type of ggml: a block format, or one that is carried and not computed with.
    Ggml(GgmlType),
}

impl StoredType {
    /// Bytes of so many elements; `None` if they are no whole blocks, or too many.
    pub fn bytes(self, elements: u64) -> Option<u64> {
        let one = match self {
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool | Self::F8 => 1,
            Self::Ggml(ty) => return ty.bytes(elements),
        };
        elements.checked_mul(one)
    }

    /// The type that the compiler computes with; `None` if it cannot compute with this one.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::BF16 => Some(DType::BF16),
            Self::Ggml(ty) => ty.dtype(),
            _ => None,
        }
    }

    /// A type of a GGUF file.
    pub fn of_ggml(ty: GgmlType) -> Self {
        match ty.dtype() {
            Some(DType::F32) => Self::F32,
            Some(DType::F16) => Self::F16,
            Some(DType::BF16) => Self::BF16,
            _ => Self::Ggml(ty),
        }
    }

    /// The type of a safetensors header's `dtype`.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => Self::F8,
            "C64" => Self::C64,
            _ => return None,
        })
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::F8 => "f8",
            Self::C64 => "c64",
            Self::Ggml(ty) => ty.name,
        })
    }
}

/// What is known of a tensor before reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its elements.
    pub stored: StoredType,
    /// Its dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
}

impl TensorInfo {
    /// The number of elements; sources check that it does not overflow.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The number of bytes; sources check that there are whole blocks, and not too many.
    pub fn bytes(&self) -> u64 {
        self.stored.bytes(self.elements()).unwrap_or(u64::MAX)
    }
}

/// Tensors by name.
pub trait WeightSource: Send + Sync {
    /// All names, in a fixed order.
    fn names(&self) -> Vec<&str>;

    /// Type and shape of a tensor.
    fn info(&self, name: &str) -> Option<&TensorInfo>;

    /// The little-endian bytes `range` of a tensor, row-major: borrowed from a mapping, or generated.
    fn read(&self, name: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>>;

    /// Tells that these bytes of a tensor will not be read again soon, so that their pages can go.
    fn release(&self, name: &str, range: Range<u64>);

    /// The file that a tensor stands in, for messages.
    fn file(&self, name: &str) -> Option<&Path>;

    /// What the file calls a tensor, whether it has it or not, if that is another name.
    fn stored_name(&self, _name: &str) -> Option<String> {
        None
    }

    /// Whether every tensor belongs to the model, so that one that is left over is an error.
    fn is_exact(&self) -> bool {
        false
    }

    /// Whether the weights of norms hold the offset that the family adds to them.
    fn norms_include_offset(&self) -> bool {
        false
    }
}

/// Opens what `path` says: a directory, a `.safetensors` file, an index, or a GGUF file.
pub fn open(path: &Path) -> Result<Box<dyn WeightSource>> {
    if path.is_file() && Gguf::recognises(path) {
        return Ok(Box::new(GgufWeights::new(Arc::new(Gguf::open(path)?))?));
    }
    mxfp4::join(Box::new(Checkpoint::open(path)?))
}
