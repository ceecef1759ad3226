//! GPT-2, and what is built like it (DistilGPT-2, DialoGPT).
//!
//! Radford et al., *Language Models are Unsupervised Multitask Learners* (2019):
//!
//! ```text
//! x  = token + position
//! x += attention(norm(x))           learned positions, one fused projection
//! x += down(gelu(up(norm(x))))
//! ```
//!
//! Weights are stored as `[in, out]` (Conv1D). Checkpoints of the base model lack the prefix `transformer.`; old
//! ones hold mask buffers (`attn.bias`), which are left alone. Where a GGUF file is read, `stored_out_in` says that
//! its converter has transposed the weights.

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Embeddings, Mlp, Norm, Positions, Projection, Table,
};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "gpt2",
    architectures: &[("GPT2LMHeadModel", Task::CausalLm), ("GPT2Model", Task::Base)],
    prefix: "transformer.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    for field in ["add_cross_attention", "scale_attn_by_inverse_layer_idx"] {
        if c.flag_or(field, false)? {
            return Err(c.refuse(field, "false"));
        }
    }
    let sizes = Sizes::of(c)?;
    let plain = c.flag_or("stored_out_in", false)?;
    let part = |tensor| match Projection::plain(tensor).with_bias(true) {
        part if plain => part,
        part => part.conv1d(),
    };
    let Sizes { hidden, .. } = sizes;
    let qkv = part("transformer.h.{layer}.attn.c_attn").split([hidden; 3]);
    let attention = attention(c, sizes, qkv, part("transformer.h.{layer}.attn.c_proj"))?;
    let mlp = mlp(c, sizes, "gelu_new", part)?;
    decoder(request, sizes, vec![layer(c, attention, mlp)?], vec![0; sizes.layers as usize])
}

/// The sizes that GPT-2's configurations call `n_embd`, `n_head`, `n_layer`, `n_positions`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `n_embd`.
    pub hidden: u32,
    /// `n_head`.
    pub heads: u32,
    /// `n_layer`.
    pub layers: u32,
    /// `n_positions`.
    pub positions: u32,
}

impl Sizes {
    /// Reads them; heads divide the width.
    pub fn of(c: &Config) -> Result<Self> {
        let hidden = c.count("n_embd", 1..=limits::WIDTH)?;
        let heads = c.count("n_head", 1..=limits::HEADS)?;
        if !hidden.is_multiple_of(heads) {
            let what = format!("found {heads}, expected a divisor of n_embd ({hidden})");
            return Err(c.problem("n_head", what).input());
        }
        let layers = c.count("n_layer", 1..=limits::LAYERS)?;
        Ok(Self { hidden, heads, layers, positions: c.count("n_positions", 1..=limits::POSITIONS)? })
    }
}

/// Multi-head attention; scaled by 1/√dim unless `scale_attn_weights` is off.
pub fn attention(c: &Config, sizes: Sizes, [q, k, v]: [Projection; 3], o: Projection) -> Result<Attention> {
    let dim = sizes.hidden / sizes.heads;
    let scaled = c.flag_or("scale_attn_weights", true)?;
    Ok(Attention {
        hidden: sizes.hidden,
        heads: Heads { query: sizes.heads, key_value: sizes.heads, dim },
        q,
        k,
        v,
        o,
        head_norm: None,
        positions: Positions::Learned,
        mask: Mask::causal(None),
        scale: if scaled { f64::from(dim).powf(-0.5) as f32 } else { 1.0 },
        softcap: None,
        sinks: None,
    })
}

/// The feed-forward part, `n_inner` or four times as wide as the stream.
pub fn mlp(c: &Config, sizes: Sizes, act: &str, part: impl Fn(&'static str) -> Projection) -> Result<Mlp> {
    let inner = match c.optional_count("n_inner", 1..=limits::WIDTH)? {
        Some(inner) => inner,
        None => 4 * sizes.hidden,
    };
    Ok(Mlp {
        hidden: sizes.hidden,
        inner,
        act: activation(c, "activation_function", act)?,
        gate: None,
        up: part("transformer.h.{layer}.mlp.c_fc"),
        down: part("transformer.h.{layer}.mlp.c_proj"),
    })
}

/// A layer under GPT-2's names.
pub fn layer(c: &Config, attention: Attention, mlp: Mlp) -> Result<DecoderLayer> {
    Ok(DecoderLayer {
        name: "layer",
        attention,
        mlp: mlp.into(),
        norm: Norm::layer(c.epsilon("layer_norm_epsilon", 1e-5)?),
        arrangement: Arrangement::Pre { attention: "transformer.h.{layer}.ln_1", mlp: "transformer.h.{layer}.ln_2" },
    })
}

/// A decoder under GPT-2's names.
pub fn decoder(
    request: &Request,
    sizes: Sizes,
    classes: Vec<DecoderLayer>,
    layers: Vec<usize>,
) -> Result<Blueprint> {
    let c = request.config;
    let table = |tensor, rows, field| Table { tensor, rows, skip: 0, field };
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden: sizes.hidden,
        context: sizes.positions,
        embeddings: Embeddings {
            hidden: sizes.hidden,
            tokens: table("transformer.wte.weight", c.vocab_size()?, "vocab_size"),
            scale: 1.0,
            types: None,
            positions: Some(table("transformer.wpe.weight", sizes.positions, "n_positions")),
            narrow: None,
        },
        embedding_norm: None,
        ropes: Vec::new(),
        classes,
        layers,
        norm: Some((Norm::layer(c.epsilon("layer_norm_epsilon", 1e-5)?), "transformer.ln_f")),
        head: llama::head(request, true)?,
    })))
}
