//! Packing: from the checkpoint's tensors to the bytes that kernels read.
//!
//! In: a planned module and a [`TensorSource`]. Out: where every weight lies ([`WeightPlan`], known
//! before any value is read, so that code can be generated first) and the bytes themselves, written
//! in order and panel by panel, so that memory stays bounded whatever the model's size.
//!
//! Not here: how kernels read the packed forms (`kernels/`).

mod blocks;
mod form;
mod plan;
mod positions;
mod traffic;
mod write;

pub use blocks::pack_strip;
pub use form::{Form, PANEL};
pub use plan::{Stored, WeightPlan};
pub use positions::{PositionRows, PositionTable};
pub use write::write;

/// A weight that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A tensor of the checkpoint could not be read.
    #[error("tensor `{tensor}`: {message}")]
    Read { tensor: String, message: String },
    /// A tensor is not what the module says; the frontend checks this first.
    #[error("tensor `{tensor}`: found {found:?}, expected {expected:?}")]
    Shape {
        tensor: String,
        found: Vec<u32>,
        expected: Vec<u32>,
    },
    /// The module is not fully planned.
    #[error("weight `@{weight}` {message}")]
    Unplanned {
        weight: String,
        message: &'static str,
    },
    /// The output could not be written.
    #[error("writing the packed weights: {0}")]
    Write(#[from] std::io::Error),
}
