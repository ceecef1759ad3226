//! Transformer IR → Transformer IR: what happens to a module between the family that wrote it and
//! code generation.
//!
//! [`pipeline`] is the ordered list of passes and tells the whole story; [`Manager`] runs such a
//! list, verifies after every pass and returns timings, statistics, remarks and dumps as data. One
//! pass a file, each with before and after in its header.
//!
//! Passes never panic on a verified module, are deterministic, and do neither IO nor printing.
//!
//! Deliberately not here: weight values (packing is code generation's), targets (a pass that needs
//! a fact about one takes it as a parameter), and the semantics (the IR's evaluator).

mod choose_layouts;
mod cse;
mod dce;
mod edit;
mod enter_stage;
mod first_fit;
mod form_kernels;
mod fuse_activation;
mod fuse_gate_up;
mod fuse_norm_linear;
mod fuse_norm_quantize;
mod fuse_qkv;
mod fuse_residual;
mod join_weights;
mod manager;
mod operands;
mod pass;
pub mod pipeline;
mod plan_memory;
mod precision;
mod quantize_activations;
mod quantize_kv;
mod quantize_weights;
mod raise_attention;
mod role;
mod row_layouts;
mod share_kv_heads;
mod simplify_masks;
mod split_class;
mod storage;
mod tile_attention;

pub use choose_layouts::ChooseLayouts;
pub use cse::Cse;
pub use dce::Dce;
pub use enter_stage::EnterStage;
pub use form_kernels::FormKernels;
pub use fuse_activation::FuseActivation;
pub use fuse_gate_up::FuseGateUp;
pub use fuse_norm_linear::FuseNormLinear;
pub use fuse_norm_quantize::FuseNormQuantize;
pub use fuse_qkv::FuseQkv;
pub use fuse_residual::FuseResidual;
pub use manager::{Dump, Manager, PassRun, PipelineError, Report, Verify};
pub use operands::{AttentionOperands, ExpertsOperands, Keys, LinearOperands};
pub use pass::{Pass, PassError, Remark, Remarks, Stats};
pub use plan_memory::PlanMemory;
pub use precision::{Activations, Kv, Precision, Quant};
pub use quantize_activations::QuantizeActivations;
pub use quantize_kv::QuantizeKv;
pub use quantize_weights::QuantizeWeights;
pub use raise_attention::RaiseAttention;
pub use share_kv_heads::ShareKvHeads;
pub use simplify_masks::SimplifyMasks;
pub use tile_attention::{TileAttention, TileFacts};
