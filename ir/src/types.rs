//! Types: tensors over fixed and symbolic extents, KV views and the step's metadata.

use std::fmt;

use crate::quant::Format;

/// Element type of a tensor. Activations are `f32` (ids `i32`) until a pass lowers their precision;
/// block formats and `int8` are for weights, `q8<…>` for what a quantised product reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    F32,
    F16,
    BF16,
    I32,
    /// A block format of GGUF, blocks along the last axis.
    Block(Format),
    /// Signed 8-bit codes with one f32 scale for each row.
    Int8,
    /// An activation in signed 8-bit codes, one f32 scale for each group.
    Q8(Group),
}

/// Which elements of a quantised activation share a scale, and how many codes each has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// 32 neighbours along the last axis.
    Block,
    /// The whole row.
    Row,
    /// The whole row, and two codes for each element: the second says what the first leaves over.
    Pair,
}

impl Group {
    /// All groups, in the order of the documentation.
    pub const ALL: [Group; 3] = [Group::Block, Group::Row, Group::Pair];

    /// Codes of an element.
    pub fn codes(self) -> u32 {
        match self {
            Group::Block | Group::Row => 1,
            Group::Pair => 2,
        }
    }
}

impl DType {
    /// The element types that hold one number after another, in the order of the documentation.
    pub const PLAIN: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::I32];

    /// All element types.
    pub fn all() -> impl Iterator<Item = DType> {
        let blocks = Format::ALL.into_iter().map(DType::Block);
        let activations = Group::ALL.into_iter().map(DType::Q8);
        let numbers = Self::PLAIN.into_iter().chain(blocks);
        numbers.chain([DType::Int8]).chain(activations)
    }

    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::Block(format) => format.name(),
            DType::Int8 => "int8",
            DType::Q8(Group::Block) => "q8_block",
            DType::Q8(Group::Row) => "q8_row",
            DType::Q8(Group::Pair) => "q8_pair",
        }
    }

    /// Reads the text syntax.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::all().find(|d| d.name() == name)
    }

    /// Bytes of one element, where each has its own.
    pub fn element_bytes(self) -> Option<usize> {
        match self {
            DType::F32 | DType::I32 => Some(4),
            DType::F16 | DType::BF16 => Some(2),
            DType::Block(_) | DType::Int8 | DType::Q8(_) => None,
        }
    }

    /// Elements that are stored together: rows are whole multiples of it.
    pub fn block_len(self) -> u32 {
        match self {
            DType::Block(format) => format.block_len() as u32,
            DType::Q8(Group::Block) => 32,
            DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::Int8 => 1,
            DType::Q8(Group::Row | Group::Pair) => 1,
        }
    }

    /// Bytes of a row of `cols` elements, a multiple of [`DType::block_len`], as a checkpoint
    /// stores it (`int8`: the codes, then the scale; `q8`: the codes, then the scales).
    pub fn row_bytes(self, cols: u64) -> u64 {
        match self {
            DType::F32 | DType::I32 => cols * 4,
            DType::F16 | DType::BF16 => cols * 2,
            DType::Block(f) => cols / f.block_len() as u64 * f.block_bytes() as u64,
            DType::Int8 | DType::Q8(Group::Row) => cols + 4,
            DType::Q8(Group::Pair) => 2 * (cols + 4),
            DType::Q8(Group::Block) => cols + cols / 32 * 4,
        }
    }

    /// Whether weights may be stored in it.
    pub fn is_weight(self) -> bool {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::Block(_) | DType::Int8 => true,
            DType::I32 | DType::Q8(_) => false,
        }
    }
}

/// An extent that is known at run time only, within the bounds that the module declares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sym {
    /// New tokens of the step, all sequences one after another.
    N,
    /// Rows whose logits are wanted.
    R,
    /// Sequences of the step.
    B,
    /// Keys of a sequence: past and new. Ragged: it differs from sequence to sequence.
    T,
}

impl Sym {
    /// All symbolic extents, in the order of `Module::dims`.
    pub const ALL: [Sym; 4] = [Sym::N, Sym::R, Sym::B, Sym::T];

    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            Sym::N => "N",
            Sym::R => "R",
            Sym::B => "B",
            Sym::T => "T",
        }
    }

    /// The least value; the greatest is the module's (`Module::bound`).
    pub fn lower_bound(self) -> u32 {
        match self {
            Sym::R => 0,
            Sym::N | Sym::B | Sym::T => 1,
        }
    }

    /// Reads the text syntax.
    pub fn from_name(name: &str) -> Option<Sym> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// One extent of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dim {
    Fixed(u32),
    Sym(Sym),
}

impl Dim {
    /// The extent, where it is fixed.
    pub fn fixed(self) -> Option<u32> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Sym(_) => None,
        }
    }
}

impl From<u32> for Dim {
    fn from(n: u32) -> Self {
        Dim::Fixed(n)
    }
}

impl From<Sym> for Dim {
    fn from(s: Sym) -> Self {
        Dim::Sym(s)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Sym(s) => f.write_str(s.name()),
        }
    }
}

/// A dense tensor, row-major in the order of `dims`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    pub dtype: DType,
    pub dims: Vec<Dim>,
}

impl TensorType {
    /// A tensor of `dims`.
    pub fn new(dtype: DType, dims: impl IntoIterator<Item = Dim>) -> Self {
        TensorType {
            dtype,
            dims: dims.into_iter().collect(),
        }
    }

    /// A weight: all extents fixed.
    pub fn weight(dtype: DType, dims: &[u32]) -> Self {
        TensorType {
            dtype,
            dims: dims.iter().map(|&d| Dim::Fixed(d)).collect(),
        }
    }

    /// The innermost extent, where it is fixed.
    pub fn last(&self) -> Option<u32> {
        self.dims.last().and_then(|d| d.fixed())
    }

    /// Product of the extents after the first, where they are fixed: the logical floats of a row.
    pub fn row_len(&self) -> Option<u32> {
        self.dims
            .iter()
            .skip(1)
            .try_fold(1u32, |n, d| n.checked_mul(d.fixed()?))
    }

    /// All extents, where every one is fixed.
    pub fn fixed_dims(&self) -> Option<Vec<u32>> {
        self.dims.iter().map(|d| d.fixed()).collect()
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype.name())?;
        for (i, d) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// The type of a value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    Tensor(TensorType),
    /// The keys and values of a state, this step's included, as `kv_append` left them.
    KvView {
        heads: u32,
        k_dim: u32,
        v_dim: u32,
    },
    /// The step's sequence metadata: which token belongs to which sequence, and how long those are.
    Step,
}

impl Type {
    /// f32 of `dims`.
    pub fn f32(dims: &[Dim]) -> Type {
        Type::Tensor(TensorType::new(DType::F32, dims.iter().copied()))
    }

    /// i32 `[N]`: ids, positions, token types.
    pub fn ids() -> Type {
        Type::Tensor(TensorType::new(DType::I32, [Sym::N.into()]))
    }

    /// The tensor type, where it is one.
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(t) => Some(t),
            Type::KvView { .. } | Type::Step => None,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(t) => write!(f, "{t}"),
            Type::KvView {
                heads,
                k_dim,
                v_dim,
            } => write!(f, "kv_view<{heads}, {k_dim}, {v_dim}>"),
            Type::Step => f.write_str("step"),
        }
    }
}
