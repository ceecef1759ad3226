//! The largest sizes that a configuration may ask for.
//!
//! They are far above every published model, and low enough that products of any three of them fit 64 bits, so
//! that a hostile file can neither overflow an offset nor make the compiler allocate without bound.

/// Layers of one stack.
pub const LAYERS: u32 = 4096;
/// Width of a layer, of its feed-forward part, and heads × head dimension.
pub const WIDTH: u32 = 1 << 20;
/// Attention heads.
pub const HEADS: u32 = 1 << 14;
/// Dimension of one head.
pub const HEAD_DIM: u32 = 1 << 14;
/// Experts of a layer.
pub const EXPERTS: u32 = 1 << 12;
/// Experts of all layers.
pub const EXPERT_MATRICES: u64 = 1 << 18;
/// Rows of a layer's experts over one another.
pub const EXPERT_ROWS: u64 = 1 << 24;
/// Tokens of a vocabulary.
pub const VOCABULARY: u32 = 1 << 24;
/// Positions of a context.
pub const POSITIONS: u32 = 1 << 24;
/// Elements of one tensor.
pub const ELEMENTS: u64 = 1 << 40;
/// Shards of a checkpoint.
pub const SHARDS: usize = 4096;
