//! BLOOM (560M to 176B) and BLOOMZ.
//!
//! Le Scao et al., *BLOOM: A 176B-Parameter Open-Access Multilingual Language Model* (arXiv:2211.05100): GPT-2's
//! layers without position embeddings. A bias that falls with the distance takes their place (ALiBi), and the
//! embeddings are normalised.
//!
//! ```text
//! x  = norm(token)
//! x += attention(norm(x))           alibi, queries, keys and values of each head side by side in one tensor
//! x += down(gelu_tanh(up(norm(x))))
//! ```
//!
//! Where a GGUF file is read, `stored_qkv_apart` says that its converter has put all queries before all keys before
//! all values. The context is `seq_length`, which transformers does not read; ALiBi itself has no limit.

use llmc_ir::Mask;
use llmc_ir::ops::{ActKind, Alibi};

use super::{Family, Request, Task, llama};
use crate::blocks::{
    Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Embeddings, Mlp, Norm, Positions, Projection, Table,
};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "bloom",
    architectures: &[("BloomForCausalLM", Task::CausalLm), ("BloomModel", Task::Base)],
    prefix: "transformer.",
    build,
};

/// The exponent of the last head's slope.
const MAX_BIAS: f32 = 8.0;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    const POST_NORM: &str = "apply_residual_connection_post_layernorm";
    if c.flag_or(POST_NORM, false)? {
        return Err(c.refuse(POST_NORM, "false"));
    }
    let hidden = either(c, ["hidden_size", "n_embed"], limits::WIDTH)?;
    let heads = either(c, ["n_head", "num_attention_heads"], limits::HEADS)?;
    let layers = either(c, ["n_layer", "num_hidden_layers"], limits::LAYERS)?;
    if !hidden.is_multiple_of(heads) {
        let what = format!("{heads} heads, expected a divisor of the width ({hidden})");
        return Err(c.problem("n_head", what).input());
    }
    let dim = hidden / heads;
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let fused = part("transformer.h.{layer}.self_attention.query_key_value");
    let [q, k, v] = match c.flag_or("stored_qkv_apart", false)? {
        true => fused.split([hidden; 3]),
        false => fused.split_groups(heads, [dim; 3]),
    };
    let norm = Norm::layer(c.epsilon("layer_norm_epsilon", 1e-5)?);
    let layer = DecoderLayer {
        name: "layer",
        attention: Attention {
            hidden,
            heads: Heads { query: heads, key_value: heads, dim },
            q,
            k,
            v,
            o: part("transformer.h.{layer}.self_attention.dense"),
            head_norm: None,
            positions: Positions::Alibi(Alibi { max_bias: MAX_BIAS }),
            mask: Mask::causal(None),
            scale: f64::from(dim).powf(-0.5) as f32,
            softcap: None,
            sinks: None,
        },
        mlp: Mlp {
            hidden,
            inner: 4 * hidden,
            act: ActKind::GeluTanh,
            gate: None,
            up: part("transformer.h.{layer}.mlp.dense_h_to_4h"),
            down: part("transformer.h.{layer}.mlp.dense_4h_to_h"),
        }
        .into(),
        norm,
        arrangement: Arrangement::Pre {
            attention: "transformer.h.{layer}.input_layernorm",
            mlp: "transformer.h.{layer}.post_attention_layernorm",
        },
    };
    let tokens = Table {
        tensor: "transformer.word_embeddings.weight",
        rows: c.vocab_size()?,
        skip: 0,
        field: "vocab_size",
    };
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden,
        context: c.count_or("seq_length", 1..=limits::POSITIONS, 2048)?,
        embeddings: Embeddings { hidden, tokens, scale: 1.0, types: None, positions: None, narrow: None },
        embedding_norm: Some((norm, "transformer.word_embeddings_layernorm")),
        ropes: Vec::new(),
        classes: vec![layer],
        layers: vec![0; layers as usize],
        norm: Some((norm, "transformer.ln_f")),
        head: llama::head(request, true)?,
    })))
}

/// A size under one name or an older one.
fn either(c: &Config, [name, older]: [&str; 2], most: u32) -> Result<u32> {
    match c.optional_count(older, 1..=most)? {
        Some(size) if !c.has(name) => Ok(size),
        _ => c.count(name, 1..=most),
    }
}
