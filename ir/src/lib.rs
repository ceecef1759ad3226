//! llmc's Transformer IR.
//!
//! A [`Module`] holds weights (named, never their values), states (KV caches), and functions of
//! straight-line instructions over SSA values; `repeat` rolls the layers. The same data structure
//! passes through three [`Stage`]s: `model` (as the family wrote it), `fused`, `planned`.
//!
//! Where things are: one file an op under `ops/`; types in `types`, block formats under `quant/`, sizes known at run time in
//! `types::Sym`; where values come from in `source` (the frontend implements `TensorSource`, the
//! evaluator and the packer read it); text in `print` and `parse`; legality in `verify`; the semantics in `eval`.
//!
//! # What a model looks like at stage `model`
//!
//! A decoder (encoders take `%types: i32[N]` besides, and return `last_hidden_state`, `pooler_output`,
//! `sentence_embedding` as far as they have them):
//!
//! ```text
//! func @layer(%x: f32[N, 896], %angles: f32[N, 64], %step: step) {
//!   %h = rms_norm %x, @layer.attn_norm {eps = 1e-6}
//!   %q = linear %h, @layer.wq, @layer.bq {bias = true}        // and %k, %v
//!   %qh = split_heads %q {heads = 14}                         // and %kh, %vh: heads = 2
//!   %qr = rope %qh, %angles {style = neox}                    // and %kr
//!   %c = kv_append @kv, %kr, %vh, %step
//!   %kk, %vv = kv_read %c, %step {n_rep = 7}
//!   %s = attn_scores %qr, %kk, %step {scale = 0.125}
//!   %m = mask %s, %step {mask = causal}
//!   %p = softmax %m
//!   %o = attn_mix %p, %vv, %step
//!   %om = merge_heads %o
//!   %a = linear %om, @layer.wo
//!   %x1 = add %a, %x
//!   ...
//!   return x = %x2
//! }
//! func @forward(%ids: i32[N], %pos: i32[N], %step: step) {
//!   %e = gather %ids, @embed
//!   %angles = rope_angles %pos {theta = 1e6, dim = 64}
//!   %y = repeat %e, %angles, %step {layers = [(@layer, 0), (@layer, 1)]}
//!   %h = rms_norm %y, @norm {eps = 1e-6}
//!   %r = rows %h, %step
//!   %logits = linear %r, @lm_head
//!   return last_hidden_state = %h, logits = %logits
//! }
//! ```
//!
//! Layers of different structure are different classes (`layer.full`, `layer.sliding`), each with its
//! own weights and states, stacked by slot. A weight's `source` names the checkpoint's tensors with
//! `{layer}` for the absolute layer. Tied weights are one weight with two users.
//!
//! Deliberately not here: IO, weight values, anything about a target.

pub mod attr;
pub mod builder;
pub mod entity;
pub mod eval;
pub mod layout;
pub mod mask;
pub mod module;
pub mod op;
pub mod ops;
pub mod parse;
pub mod print;
pub mod quant;
pub mod rope;
pub mod source;
pub mod stage;
pub mod types;
pub mod verify;

pub use builder::FuncBuilder;
pub use entity::{FuncId, StateId, ValueId, WeightId};
pub use layout::{Layout, Segment};
pub use mask::Mask;
pub use module::*;
pub use op::{Op, OpDef, Operand, OperandType};
pub use parse::{ParseError, parse};
pub use quant::Format;
pub use source::TensorSource;
pub use types::{DType, Dim, Group, Sym, TensorType, Type};
pub use verify::{Violation, verify};
