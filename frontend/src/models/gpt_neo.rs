//! GPT-Neo: the open models of GPT-3's kind, with alternating global and local attention.
//!
//! Black et al., *GPT-Neo* (2021), after Brown et al., *Language Models are Few-Shot Learners* (arXiv:2005.14165):
//! GPT-2 with unscaled scores, no biases on queries, keys and values, and layers that see a window of
//! `window_size` tokens, as `attention_layers` (or `attention_types`) says.

use llmc_ir::Mask;

use super::{Family, Request, Task, gpt2};
use crate::blocks::mlp::activation;
use crate::blocks::{Attention, Blueprint, DecoderLayer, Mlp, Projection};
use crate::config::Config;
use crate::error::Result;
use crate::json::Json;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "gpt_neo",
    architectures: &[("GPTNeoForCausalLM", Task::CausalLm), ("GPTNeoModel", Task::Base)],
    prefix: "transformer.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let sizes = sizes(c)?;
    let qkv = [
        Projection::plain("transformer.h.{layer}.attn.attention.q_proj"),
        Projection::plain("transformer.h.{layer}.attn.attention.k_proj"),
        Projection::plain("transformer.h.{layer}.attn.attention.v_proj"),
    ];
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let out = part("transformer.h.{layer}.attn.attention.out_proj");
    let inner = match c.optional_count("intermediate_size", 1..=limits::WIDTH)? {
        Some(inner) => inner,
        None => 4 * sizes.hidden,
    };
    let mlp = Mlp {
        hidden: sizes.hidden,
        inner,
        act: activation(c, "activation_function", "gelu_new")?,
        gate: None,
        up: part("transformer.h.{layer}.mlp.c_fc"),
        down: part("transformer.h.{layer}.mlp.c_proj"),
    };
    let attention = Attention { scale: 1.0, ..gpt2::attention(c, sizes, qkv, out)? };
    let full = gpt2::layer(c, attention, mlp)?;
    let slides = local(c, sizes.layers)?;
    let window = c.count_or("window_size", 1..=limits::POSITIONS, 256)?;
    gpt2::decoder(request, sizes, vec![full], vec![0; sizes.layers as usize])?.with_sliding(&slides, |full| {
        let attention = Attention { mask: Mask::causal(Some(window)), ..full.attention.clone() };
        Ok(DecoderLayer { attention, ..full.clone() })
    })
}

fn sizes(c: &Config) -> Result<gpt2::Sizes> {
    let hidden = c.hidden_size()?;
    let heads = c.count_or("num_heads", 1..=limits::HEADS, 16)?;
    if !hidden.is_multiple_of(heads) {
        let what = format!("found {heads}, expected a divisor of hidden_size ({hidden})");
        return Err(c.problem("num_heads", what).input());
    }
    let layers = c.count("num_layers", 1..=limits::LAYERS)?;
    Ok(gpt2::Sizes { hidden, heads, layers, positions: c.positions()? })
}

/// Whether each layer is local.
fn local(c: &Config, layers: u32) -> Result<Vec<bool>> {
    let (field, kinds) = kinds(c, layers)?;
    let is_local = |kind: &&str| match *kind {
        "global" => Ok(false),
        "local" => Ok(true),
        _ => Err(c.wrong(field, "\"global\" and \"local\"")),
    };
    kinds.iter().map(is_local).collect()
}

/// The kind of each layer, and the field that says so.
pub fn kinds(c: &Config, layers: u32) -> Result<(&'static str, Vec<&str>)> {
    let (field, kinds) = match c.optional_texts("attention_layers")? {
        Some(kinds) => ("attention_layers", kinds),
        None => ("attention_types", expand(c, layers)?),
    };
    if kinds.len() != layers as usize {
        let what = format!("found {} layers, expected num_layers ({layers})", kinds.len());
        return Err(c.problem(field, what).input());
    }
    Ok((field, kinds))
}

/// `[[["global", "local"], 12]]`: lists of kinds, each repeated.
fn expand(c: &Config, layers: u32) -> Result<Vec<&str>> {
    const FIELD: &str = "attention_types";
    let wrong = || c.wrong(FIELD, "an array of pairs: an array of kinds of layers, and how often");
    let mut kinds = Vec::new();
    for pair in c.get(FIELD).and_then(Json::as_array).ok_or_else(wrong)?.iter() {
        let Some([list, times]) = pair.as_array() else {
            return Err(wrong());
        };
        let list: Option<Vec<&str>> = list.as_array().and_then(|list| list.iter().map(Json::as_str).collect());
        let (list, times) = list.zip(times.as_u64()).ok_or_else(wrong)?;
        for _ in 0..times.min(u64::from(layers) + 1) {
            kinds.extend(&list);
            if kinds.len() > layers as usize {
                return Ok(kinds);
            }
        }
    }
    Ok(kinds)
}
