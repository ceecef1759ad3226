//! The step program: a planned module as phases of kernel calls, and the function that runs them.
//!
//! In: a planned [`llmc_ir::Module`] and its [`crate::pack::WeightPlan`]. Out: a [`StepPlan`] (plain
//! data: which kernels, on which memory), and from it, per feature level, for each entry an SPMD function
//! `step(ctx, thread, threads)`: every thread walks the same phases, takes its slice of each, and
//! waits at the barrier behind it. Layers are a loop over a constant table of (class, slot); code
//! size does not depend on how many there are.
//!
//! Invariants: no allocation, no dispatch beyond the layer's class; a phase's calls write disjoint
//! memory or rows that the same thread owns.
//!
//! Not here: what a kernel does (`kernels`), which op needs which kernels (`lower`).

mod emit;
mod plan;
mod program;

pub use emit::{emit_steps, step_symbol};
pub use plan::{
    Arg, BatchField, Call, EntryPlan, Extent, Kernel, Logits, Phase, Routine, StepPlan,
};
pub use program::{CompileError, Compiled, Form, compile};
