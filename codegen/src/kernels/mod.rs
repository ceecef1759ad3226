//! The kernels: one file per kind, each emitting functions from a plain parameter struct.
//!
//! In: shapes, element types and options. Out: a symbol in the [`KernelBuilder`]'s module.
//!
//! Common to all, unless a kernel says otherwise:
//! - Arguments begin with `(thread, threads)`; a call does its thread's static slice and no more.
//!   There are no barriers inside and no allocation.
//! - Activations are f32 rows; strides count floats and are multiples of 16; pad lanes are zero on
//!   entry and on exit.
//! - Kernels over rows slice the rows alike: thread t owns the same rows in each, so that such
//!   kernels may follow one another without a barrier.
//! - Every sum has one order, which depends on neither threads, nor rows, nor the feature level.
//! - `emit` is idempotent: the symbol names everything that shaped the code.
//!
//! Not here: which kernels a model needs, where buffers lie, and barriers between kernels.
//!
//! [`KernelBuilder`]: crate::kernel::KernelBuilder

mod activation;
mod arg_max;
mod attend;
mod block_gather;
mod block_linear;
mod block_products;
mod block_tile;
mod block_unpack;
mod blocks;
mod combine;
mod dispatch;
mod elementwise;
mod epilogue;
mod experts;
mod gather;
mod kv;
mod kv_append;
mod kv_unpack;
mod l2_normalize;
mod linear;
mod norm;
mod pool;
mod position_ids;
mod quantize;
mod rope;
mod rope_angles;
mod route;
mod select_rows;
mod substitute;
mod tile;
mod unfold;
mod unpack;

pub use activation::Activation;
pub use arg_max::ArgMax;
pub use attend::{Attend, Bias, Mask, RelativeBias, Terms};
pub use block_gather::BlockGather;
pub use block_linear::{BlockLinear, Input};
pub use combine::Combine;
pub use dispatch::Dispatch;
pub use elementwise::{Elementwise, RowOp};
pub use epilogue::Epilogue;
pub use experts::{Experts, Product};
pub use gather::{Gather, TableLayout};
pub use kv::{KvElem, KvLayout};
pub use kv_append::KvAppend;
pub use l2_normalize::L2Normalize;
pub use linear::Linear;
pub use norm::{Norm, NormKind};
pub use pool::{Pool, PoolKind};
pub use position_ids::PositionIds;
pub use quantize::{Quantize, Rows};
pub use rope::Rope;
pub use rope_angles::{Lengths, RopeAngles};
pub use route::Route;
pub use select_rows::SelectRows;
pub use substitute::Substitute;
pub use tile::{TILE_ROWS, Tile};
pub use unfold::Unfold;
pub use unpack::Unpack;

/// Columns of a weight panel.
pub const PANEL: i64 = 64;

/// Bytes of an f32.
const F32: i64 = 4;

/// A float constant inside a symbol name.
fn tag(v: f32) -> String {
    format!("{:08x}", v.to_bits())
}
