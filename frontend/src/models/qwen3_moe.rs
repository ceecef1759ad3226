//! Qwen 3, the mixtures of experts (30B-A3B, 235B-A22B).
//!
//! Yang et al., *Qwen3 Technical Report* (arXiv:2505.09388): Qwen 3 with mixtures of experts in the place of
//! feed-forward parts. Layers of `mlp_only_layers`, and those that `decoder_sparse_step` leaves out, stay dense.

use llmc_ir::Mask;
use llmc_ir::ops::Gate;

use super::{Family, Request, Task, layer_types, llama};
use crate::blocks::mlp::activation;
use crate::blocks::moe::{ExpertCount, ExpertTensors, OwnTensors};
use crate::blocks::{Attention, Blueprint, DecoderLayer, Moe, Norm, Projection};
use crate::config::Config;
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "qwen3_moe",
    architectures: &[("Qwen3MoeForCausalLM", Task::CausalLm), ("Qwen3MoeModel", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(Some(4))?;
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(layer_types::window(c, 4096)?),
        false => None,
    };
    let bias = c.flag_or("attention_bias", false)?;
    let norm = Norm::rms(c.epsilon("rms_norm_eps", 1e-6)?);
    let attention = Attention {
        head_norm: Some(llama::head_norm(norm)),
        ..llama::attention(c, heads, Mask::causal(window))?.with_bias(bias, bias)
    };
    let rope = Rope::of(c, heads.dim, Defaults::default())?;
    let dense = llama::decoder(request, vec![("angles", rope)], attention, llama::mlp(c, false)?)?;
    dense.with_other(&sparse(c)?, ["layer.dense", "layer.moe"], |dense| {
        Ok(DecoderLayer { mlp: moe(c)?.into(), ..dense.clone() })
    })
}

/// Which layers are mixtures.
fn sparse(c: &Config) -> Result<Vec<bool>> {
    let layers = c.layers()?;
    let step = c.count_or("decoder_sparse_step", 1..=limits::LAYERS, 1)?;
    let dense = c.counts("mlp_only_layers", 0..=limits::LAYERS)?;
    Ok((0..layers).map(|layer| (layer + 1).is_multiple_of(step) && !dense.contains(&layer)).collect())
}

fn moe(c: &Config) -> Result<Moe> {
    let hidden = c.hidden_size()?;
    let inner = c.count_or("moe_intermediate_size", 1..=limits::WIDTH, 768)?;
    Ok(Moe {
        hidden,
        inner: (inner, "moe_intermediate_size"),
        sizes: ExpertCount::of(c, &["num_experts", "num_local_experts"], (128, 8), [hidden, inner])?,
        renormalize: c.flag_or("norm_topk_prob", false)?,
        gate: Gate::plain(activation(c, "hidden_act", "silu")?),
        router: Projection::plain("model.layers.{layer}.mlp.gate"),
        bias: false,
        tensors: ExpertTensors {
            stacked: "model.layers.{layer}.mlp.experts",
            own: OwnTensors::Each([
                "model.layers.{layer}.mlp.experts.{expert}.gate_proj",
                "model.layers.{layer}.mlp.experts.{expert}.up_proj",
                "model.layers.{layer}.mlp.experts.{expert}.down_proj",
            ]),
        },
    })
}
