//! The contract between a compiled model and the runtime that carries it.
//!
//! Three things cross the border: the step function (`StepFn` over `StepCtx`),
//! the `Program` that the generated object exports, and the `Manifest`, which
//! is stored as JSON in the payload and tells the runtime everything else.
//!
//! Not here: code. The payload's byte layout is in [`payload`].
#![no_std]
extern crate alloc;

mod image;
mod manifest;
pub mod payload;

pub use image::{Filter, ImageSteps, PictureTokens, Pictures, Resize, Similarity, TextEnd};
pub use manifest::*;

/// Version of everything in this crate; a mismatch refuses to start.
pub const ABI_VERSION: u32 = 3;

/// Tokens in one page of the KV cache.
pub const PAGE_TOKENS: usize = 64;

/// Floats in one SIMD group: the innermost extent of every buffer is padded to a multiple of it.
pub const LANES: usize = 16;

/// Name of the symbol that a generated object exports: a [`Program`].
pub const PROGRAM_SYMBOL: &str = "llmc_program";

/// One SPMD step: every thread of `0..threads` calls it with the same `ctx`.
pub type StepFn = unsafe extern "C" fn(ctx: *const StepCtx, thread: u64, threads: u64);

/// Waits until all threads of the step have arrived; `state` is `StepCtx::barrier_state`.
pub type BarrierFn = unsafe extern "C" fn(state: *mut core::ffi::c_void);

/// Tells of a thread's progress through the phases of `Manifest::phases`: called behind its own part
/// of a phase ([`MARK_WORKED`]), and again behind the barrier that ends it ([`MARK_PASSED`]). The last
/// phase of a step has no barrier. `state` is `StepCtx::mark_state`.
pub type MarkFn =
    unsafe extern "C" fn(state: *mut core::ffi::c_void, thread: u64, phase: u64, event: u64);

/// The thread has done its part of the phase.
pub const MARK_WORKED: u64 = 0;
/// All threads have.
pub const MARK_PASSED: u64 = 1;

/// The largest logit that a thread has found in its part of a row, and the token it belongs to (the
/// first of equals). NaN and negative infinity count as none: token -1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    pub logit: f32,
    pub token: i32,
}

/// What a step reads and writes. All pointers live for the length of the call.
#[repr(C)]
pub struct StepCtx {
    /// [`ABI_VERSION`].
    pub version: u64,
    /// The packed weights: the payload's first region, 64-byte aligned.
    pub weights: *const u8,
    /// `Manifest::arena_bytes` of zero-initialised memory, 64-byte aligned; kept between steps.
    pub arena: *mut u8,
    /// Private scratch: thread `t` owns `scratch + t * Manifest::scratch_bytes`; 64-byte aligned.
    pub scratch: *mut u8,
    /// One per `Manifest::kv`, in order.
    pub kv: *const KvState,
    pub batch: *const Batch,
    /// Null, or f32 `[tap_count, tap_rows, tap_stride]`: the residual stream at each layer
    /// boundary (`Manifest::taps`), written for tokens `0..n` of this step.
    pub taps: *mut f32,
    /// Rows that a tap holds (at least `n` of the step).
    pub tap_rows: u64,
    pub barrier: BarrierFn,
    pub barrier_state: *mut core::ffi::c_void,
    /// None, or who is told of the phases.
    pub mark: Option<MarkFn>,
    pub mark_state: *mut core::ffi::c_void,
    /// Null, or `[threads][max_rows]`: the greedy choice for each of `Batch::rows`, where
    /// `Manifest::best` says that the model gives it.
    pub best: *mut Best,
}

/// The tokens of one step, packed: sequence after sequence, no padding.
#[repr(C)]
pub struct Batch {
    /// Tokens in this step, `1..=max_tokens`.
    pub n: u64,
    /// Sequences in this step, `1..=max_seqs`.
    pub b: u64,
    /// Rows whose logits are wanted, `0..=max_rows`.
    pub r: u64,
    /// Token ids `[n]`.
    pub ids: *const i32,
    /// Position of the token within its sequence, past included `[n]`.
    pub pos: *const i32,
    /// Token type ids `[n]`; zeros where the model has none.
    pub types: *const i32,
    /// Index of the token's sequence in this batch `[n]`.
    pub seq: *const i32,
    /// First token of each sequence, and `n` at the end `[b + 1]`.
    pub q_start: *const i32,
    /// Keys of each sequence after this step: past plus new `[b]`.
    pub kv_len: *const i32,
    /// Keys of each sequence's source `[b]`; zeros where the model has none.
    pub source_len: *const i32,
    /// Token indices whose rows are gathered before the head `[r]`.
    pub rows: *const i32,
    /// The length that each sequence's rope goes by `[b]`: with `Manifest::rope_switch` the sequence's
    /// at the end of the run (no longer than the switch, or longer, in every step that filled its
    /// cache), with `Manifest::rope_growth` that of its first run.
    pub rope_length: *const i32,
}

/// Where the pages of one KV class are.
#[repr(C)]
pub struct KvState {
    /// Page `p` of slot (layer) `s` starts at `base + s * slot_stride + p * page_bytes`.
    pub base: *mut u8,
    /// Bytes between two slots of the class.
    pub slot_stride: u64,
    /// Page ids `[b, table_stride]`: entry `[s, j]` holds tokens `64 j ..` of sequence `s`.
    pub table: *const i32,
    pub table_stride: u64,
}

/// What the generated object exports under [`PROGRAM_SYMBOL`].
#[repr(C)]
pub struct Program {
    /// [`ABI_VERSION`].
    pub version: u64,
    /// Entries of `levels`.
    pub level_count: u64,
    /// Best level last.
    pub levels: *const Level,
    /// Entries of each level's `steps`.
    pub entry_count: u64,
}

/// The steps compiled for one CPU feature level.
#[repr(C)]
pub struct Level {
    /// NUL-terminated name, as in `Manifest::levels`.
    pub name: *const core::ffi::c_char,
    /// One for each entry, in the order of `Manifest::entries`.
    pub steps: *const StepFn,
}

// SAFETY: both are constant data that nobody writes.
unsafe impl Sync for Program {}
unsafe impl Sync for Level {}
