//! Mixtral 8x7B and 8x22B.
//!
//! Jiang et al., *Mixtral of Experts* (arXiv:2401.04088): Mistral with eight feed-forward parts a layer, of which
//! every token goes through two. Their weights are a softmax over the two logits.

use llmc_ir::Mask;
use llmc_ir::ops::Gate;

use super::{Family, Request, Task, llama};
use crate::blocks::mlp::activation;
use crate::blocks::moe::{ExpertCount, ExpertTensors, OwnTensors};
use crate::blocks::{Blueprint, Moe, Projection};
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "mixtral",
    architectures: &[("MixtralForCausalLM", Task::CausalLm), ("MixtralModel", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(Some(8))?;
    let window = c.optional_count("sliding_window", 1..=limits::POSITIONS)?;
    let attention = llama::attention(c, heads, Mask::causal(window))?;
    let (hidden, inner) = (c.hidden_size()?, c.intermediate_size()?);
    let moe = Moe {
        hidden,
        inner: (inner, "intermediate_size"),
        sizes: ExpertCount::of(c, &["num_local_experts"], (8, 2), [hidden, inner])?,
        renormalize: true,
        gate: Gate::plain(activation(c, "hidden_act", "silu")?),
        router: Projection::plain("model.layers.{layer}.block_sparse_moe.gate"),
        bias: false,
        tensors: ExpertTensors {
            stacked: "model.layers.{layer}.block_sparse_moe.experts",
            own: OwnTensors::Each([
                "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1",
                "model.layers.{layer}.block_sparse_moe.experts.{expert}.w3",
                "model.layers.{layer}.block_sparse_moe.experts.{expert}.w2",
            ]),
        },
    };
    let rope = Rope::of(c, heads.dim, Defaults { theta: 1_000_000.0, ..Defaults::default() })?;
    llama::decoder(request, vec![("angles", rope)], attention, moe)
}
