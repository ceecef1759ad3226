//! Llama 1 to 3, and what is built like it (Code Llama, TinyLlama, SmolLM, Vicuna, Yi).
//!
//! Touvron et al., *Llama 2: Open Foundation and Fine-Tuned Chat Models* (arXiv:2307.09288); the Llama 3 herd
//! (arXiv:2407.21783) adds grouped queries everywhere and the `llama3` rope.
//!
//! ```text
//! x += attention(rms_norm(x))       rope, grouped queries, causal
//! x += down(silu(gate(h)) · up(h))  h = rms_norm(x)
//! ```

use llmc_ir::Mask;

use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Embeddings, FeedForward, Head, HeadNorm, Mlp, Norm, Positions, Projection,
    Table,
};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "llama",
    architectures: &[("LlamaForCausalLM", Task::CausalLm), ("LlamaModel", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let heads = c.grouped_heads(None)?;
    let bias = c.flag_or("attention_bias", false)?;
    let attention = attention(c, heads, Mask::causal(None))?.with_bias(bias, bias);
    let mlp = mlp(c, c.flag_or("mlp_bias", false)?)?;
    let rope = Rope::of(c, heads.dim, Defaults::default())?;
    decoder(request, vec![("angles", rope)], attention, mlp)
}

/// Llama's attention without biases: what its descendants start from.
pub fn attention(c: &Config, heads: Heads, mask: Mask) -> Result<Attention> {
    Ok(Attention {
        hidden: c.hidden_size()?,
        heads,
        q: Projection::plain("model.layers.{layer}.self_attn.q_proj"),
        k: Projection::plain("model.layers.{layer}.self_attn.k_proj"),
        v: Projection::plain("model.layers.{layer}.self_attn.v_proj"),
        o: Projection::plain("model.layers.{layer}.self_attn.o_proj"),
        head_norm: None,
        positions: Positions::Rope(0),
        mask,
        scale: (f64::from(heads.dim).powf(-0.5)) as f32,
        softcap: None,
        sinks: None,
    })
}

/// Llama's feed-forward part.
pub fn mlp(c: &Config, bias: bool) -> Result<Mlp> {
    let act = activation(c, "hidden_act", "silu")?;
    Ok(Mlp::gated(c.hidden_size()?, c.intermediate_size()?, act, bias))
}

/// A decoder whose layers are all alike.
pub fn decoder(
    request: &Request,
    ropes: Vec<(&'static str, Rope)>,
    attention: Attention,
    mlp: impl Into<FeedForward>,
) -> Result<Blueprint> {
    let c = request.config;
    let norm = Norm::rms(c.epsilon("rms_norm_eps", 1e-6)?);
    let hidden = c.hidden_size()?;
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden,
        context: c.positions()?,
        embeddings: tokens(c, 1.0)?,
        embedding_norm: None,
        ropes,
        classes: vec![DecoderLayer { name: "layer", attention, mlp: mlp.into(), norm, arrangement: Arrangement::LLAMA }],
        layers: vec![0; c.layers()? as usize],
        norm: Some((norm, "model.norm")),
        head: head(request, false)?,
    })))
}

/// The token table, times `scale`.
pub fn tokens(c: &Config, scale: f32) -> Result<Embeddings> {
    let tokens = Table { tensor: "model.embed_tokens.weight", rows: c.vocab_size()?, skip: 0, field: "vocab_size" };
    Ok(Embeddings { hidden: c.hidden_size()?, tokens, scale, types: None, positions: None, narrow: None })
}

/// The head of the class, tied to the token table or not; `tied` is what an absent field means.
pub fn head(request: &Request, tied: bool) -> Result<Option<Head>> {
    let tied = request.config.flag_or("tie_word_embeddings", tied)?;
    let tensor = (!tied).then_some("lm_head.weight");
    Ok((request.task == Task::CausalLm).then_some(Head { tensor, softcap: None }))
}

/// The norms of query and key heads of those descendants that have them.
pub fn head_norm(norm: Norm) -> HeadNorm {
    HeadNorm {
        norm,
        q: "model.layers.{layer}.self_attn.q_norm",
        k: "model.layers.{layer}.self_attn.k_norm",
    }
}
