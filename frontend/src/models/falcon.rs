//! Falcon (7B, 40B, 180B).
//!
//! Almazrouei et al., *The Falcon Series of Open Language Models* (arXiv:2311.16867): attention and feed-forward
//! part side by side on the same input, a rope, one fused projection.
//!
//! ```text
//! x += attention(norm(x)) + down(gelu(up(norm(x))))
//! ```
//!
//! The 7B model has one norm for both parts, and all queries before the one key and value head; the new
//! architecture has a norm for each part, and groups of queries each followed by their key and value head. Where a
//! GGUF file is read, `stored_qkv_apart` says that its converter has put all queries before all keys before all
//! values, and the norms under other names.

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Embeddings, Mlp, Norm, Positions, Projection, Table,
};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;
use crate::rope::{Defaults, Rope};

pub const FAMILY: Family = Family {
    name: "falcon",
    architectures: &[("FalconForCausalLM", Task::CausalLm), ("FalconModel", Task::Base)],
    prefix: "transformer.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.flag_or("alibi", false)? {
        return Err(c.refuse("alibi", "false"));
    }
    let hidden = c.hidden_size()?;
    let bias = c.flag_or("bias", false)?;
    let part = |tensor| Projection::plain(tensor).with_bias(bias);
    let (heads, [q, k, v]) = projections(c, part("transformer.h.{layer}.self_attention.query_key_value"))?;
    let norm = Norm::layer(c.epsilon("layer_norm_epsilon", 1e-5)?);
    let inner = match c.optional_count("ffn_hidden_size", 1..=limits::WIDTH)? {
        Some(inner) => inner,
        None => 4 * hidden,
    };
    let layer = DecoderLayer {
        name: "layer",
        attention: Attention {
            hidden,
            heads,
            q,
            k,
            v,
            o: part("transformer.h.{layer}.self_attention.dense"),
            head_norm: None,
            positions: Positions::Rope(0),
            mask: Mask::causal(None),
            scale: f64::from(heads.dim).powf(-0.5) as f32,
            softcap: None,
            sinks: None,
        },
        mlp: Mlp {
            hidden,
            inner,
            act: activation(c, "activation", "gelu")?,
            gate: None,
            up: part("transformer.h.{layer}.mlp.dense_h_to_4h"),
            down: part("transformer.h.{layer}.mlp.dense_4h_to_h"),
        }
        .into(),
        norm,
        arrangement: arrangement(c)?,
    };
    let tokens = Table {
        tensor: "transformer.word_embeddings.weight",
        rows: c.vocab_size()?,
        skip: 0,
        field: "vocab_size",
    };
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden,
        context: c.count_or("max_position_embeddings", 1..=limits::POSITIONS, 2048)?,
        embeddings: Embeddings { hidden, tokens, scale: 1.0, types: None, positions: None, narrow: None },
        embedding_norm: None,
        ropes: vec![("angles", Rope::of(c, heads.dim, Defaults::default())?)],
        classes: vec![layer],
        layers: vec![0; c.layers()? as usize],
        norm: Some((norm, "transformer.ln_f")),
        head: llama::head(request, true)?,
    })))
}

/// How the fused projection is cut.
fn projections(c: &Config, fused: Projection) -> Result<(Heads, [Projection; 3])> {
    let all = c.heads()?;
    let Heads { query, dim, .. } = all;
    if c.flag_or("new_decoder_architecture", false)? {
        const FIELD: &str = "num_kv_heads";
        let key_value = c.count_or(FIELD, 1..=limits::HEADS, query)?;
        if !query.is_multiple_of(key_value) {
            let what = format!("found {key_value}, expected a divisor of num_attention_heads ({query})");
            return Err(c.problem(FIELD, what).input());
        }
        let (group, heads) = (query / key_value * dim, Heads { query, key_value, dim });
        return Ok((heads, match c.flag_or("stored_qkv_apart", false)? {
            true => fused.split([query * dim, key_value * dim, key_value * dim]),
            false => fused.split_groups(key_value, [group, dim, dim]),
        }));
    }
    Ok(match c.flag_or("multi_query", true)? {
        true => (Heads { query, key_value: 1, dim }, fused.split([query * dim, dim, dim])),
        false => (all, fused.split_groups(query, [dim; 3])),
    })
}

fn arrangement(c: &Config) -> Result<Arrangement> {
    let shared = "transformer.h.{layer}.input_layernorm";
    let new = c.flag_or("new_decoder_architecture", false)?;
    let norms = c.optional_count("num_ln_in_parallel_attn", 1..=2)?;
    Ok(if new && norms.unwrap_or(2) == 2 {
        let mlp = match c.flag_or("stored_qkv_apart", false)? {
            true => shared,
            false => "transformer.h.{layer}.ln_mlp",
        };
        Arrangement::Parallel { attention: "transformer.h.{layer}.ln_attn", mlp }
    } else if new || c.flag_or("parallel_attn", true)? {
        Arrangement::Parallel { attention: shared, mlp: shared }
    } else {
        Arrangement::Pre { attention: shared, mlp: "transformer.h.{layer}.post_attention_layernorm" }
    })
}
