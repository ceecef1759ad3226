//! Phi-3 and Phi-3.5 (mini, medium).
//!
//! *Phi-3 Technical Report* (arXiv:2404.14219): Llama with queries, keys and values in one tensor, gate and up in
//! another, perhaps a window on all layers, and perhaps only part of each head rotated. The models with long
//! contexts have a longrope, which their first configurations call `su` or `yarn`.

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::{Attention, Blueprint, Mlp, Projection};
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "phi3",
    architectures: &[("Phi3ForCausalLM", Task::CausalLm), ("Phi3Model", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(None)?;
    let window = c.optional_count("sliding_window", 1..=limits::POSITIONS)?;
    let (query, key) = (heads.query * heads.dim, heads.key_value * heads.dim);
    let [q, k, v] = Projection::plain("model.layers.{layer}.self_attn.qkv_proj").split([query, key, key]);
    let attention = Attention { q, k, v, ..llama::attention(c, heads, Mask::causal(window))? };
    let plain = llama::mlp(c, false)?;
    let [gate, up] =
        Projection::plain("model.layers.{layer}.mlp.gate_up_proj").split([plain.inner, plain.inner]);
    let mlp = Mlp { gate: Some(gate), up, ..plain };
    let defaults = Defaults { longrope: &["su", "yarn"], ..Defaults::default() };
    let rope = Rope::of(c, heads.dim, defaults)?;
    llama::decoder(request, vec![("angles", rope)], attention, mlp)
}
