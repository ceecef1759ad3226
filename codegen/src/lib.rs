//! Planned Transformer IR to MLIR, LLVM, objects and executables.
//!
//! The upper half maps a planned module to plain data: `pack` says where every weight lies and
//! streams the values there, `lower` turns ops into kernel calls, `step` makes the function that
//! runs them, `link` the executable.
//!
//! The lower half goes from kernels to machine code: `kernels` emit functions through `kernel`
//! (the typed builder) into `mlir`, which `llvm` turns into objects; `target` and `targets` hold
//! the facts that kernels go by.

pub mod blocks;
pub mod kernel;
pub mod kernels;
pub mod link;
pub mod llvm;
pub mod lower;
pub mod mlir;
pub mod pack;
pub mod step;
pub mod target;
pub mod targets;
