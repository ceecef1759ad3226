//! Planned Transformer IR to MLIR, LLVM, objects and executables.
//!
//! The lower half goes from kernels to machine code: `kernels` emit functions through `kernel`
//! (the typed builder) into `mlir`, which `llvm` turns into objects; `target` and `targets` hold
//! the facts that kernels go by.

pub mod kernel;
pub mod kernels;
pub mod llvm;
pub mod mlir;
pub mod target;
pub mod targets;
