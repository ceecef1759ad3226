//! MLIR behind a safe, lifetime-light face; the only folder that uses melior and mlir-sys.
//!
//! In: operations by name with typed operands ([`OpBuilder`]). Out: an LLVM-dialect module,
//! translated into an LLVM context that `crate::llvm` owns ([`Finished::translate`]).
//!
//! - SSA values are `u32` ids with a Rust-side type, so wrong types are caught here, before MLIR
//!   (whose C API answers misuse with a crash) sees them.
//! - Diagnostics never reach standard error: they are collected into [`MlirError`].
//!
//! Not here: what the operations mean (`crate::kernel`), and LLVM itself (`crate::llvm`).

mod lower;
mod ops;
mod session;
mod types;

pub use lower::Finished;
pub use ops::{Attr, OpBuilder, OpenRegion, Outer, RegionBody, Value};
pub use session::{MlirError, Session};
pub use types::{Elem, Ty};
