//! LLVM behind a small face; the only folder that uses inkwell and llvm-sys.
//!
//! In: a finished MLIR module and a feature level. Out: an [`Object`]: object bytes, or text.
//!
//! - The pass list is our own: clean-up, loop rotation and invariant motion. No vectoriser, no
//!   inliner, no unroller: kernels are emitted as they should run.
//! - The same module gives the same bytes.
//!
//! Not here: what the functions do, and linking.

mod emit;
mod error;

pub use emit::Object;
pub use error::LlvmError;
