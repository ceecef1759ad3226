//! StableLM (3B 4E1T, Zephyr 3B, 2 1.6B, Code 3B).
//!
//! Bellagente et al., *Stable LM 2 1.6B Technical Report* (arXiv:2402.17834): Llama with layer norms, of whose heads
//! only a part is rotated, perhaps with biases on queries, keys and values, perhaps with both parts of a layer on
//! the same normalised input.
//!
//! ```text
//! x += attention(norm(x))           partial rope, grouped queries, causal
//! x += down(silu(gate(h)) · up(h))  h = norm(x)
//! ```
//!
//! Not here: `qk_layernorm`, a norm with weights of its own for every single head (2 12B).

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::{Arrangement, Blueprint, Decoder, DecoderLayer, Norm};
use crate::error::Result;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "stablelm",
    architectures: &[("StableLmForCausalLM", Task::CausalLm), ("StableLmModel", Task::Base)],
    prefix: "model.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.flag_or("qk_layernorm", false)? {
        return Err(c.refuse("qk_layernorm", "false"));
    }
    let heads = c.grouped_heads(None)?;
    let norm = Norm::layer(c.epsilon("layer_norm_eps", 1e-5)?);
    let first = "model.layers.{layer}.input_layernorm";
    let layer = DecoderLayer {
        name: "layer",
        attention: llama::attention(c, heads, Mask::causal(None))?.with_bias(c.flag_or("use_qkv_bias", false)?, false),
        mlp: llama::mlp(c, false)?.into(),
        norm,
        arrangement: match c.flag_or("use_parallel_residual", false)? {
            true => Arrangement::Parallel { attention: first, mlp: first },
            false => Arrangement::LLAMA,
        },
    };
    let rope = Rope::of(c, heads.dim, Defaults { partial: 0.25, ..Defaults::default() })?;
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden: c.hidden_size()?,
        context: c.positions()?,
        embeddings: llama::tokens(c, 1.0)?,
        embedding_norm: None,
        ropes: vec![("angles", rope)],
        classes: vec![layer],
        layers: vec![0; c.layers()? as usize],
        norm: Some((norm, "model.norm")),
        head: llama::head(request, false)?,
    })))
}
