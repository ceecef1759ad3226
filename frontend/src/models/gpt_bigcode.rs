//! GPTBigCode: SantaCoder, StarCoder.
//!
//! Li et al., *StarCoder* (arXiv:2305.06161): GPT-2 with one key and value head for all queries (*Fast Transformer
//! Decoding*, arXiv:1911.02150), and weights stored as `[out, in]`.

use super::{Family, Request, Task, gpt2};
use crate::blocks::{Attention, Blueprint, Projection};
use crate::config::Heads;
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "gpt_bigcode",
    architectures: &[("GPTBigCodeForCausalLM", Task::CausalLm), ("GPTBigCodeModel", Task::Base)],
    prefix: "transformer.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.flag_or("add_cross_attention", false)? {
        return Err(c.refuse("add_cross_attention", "false"));
    }
    let sizes = gpt2::Sizes::of(c)?;
    let dim = sizes.hidden / sizes.heads;
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let fused = part("transformer.h.{layer}.attn.c_attn");
    let shared = c.flag_or("multi_query", true)?;
    let (qkv, key_value) = match shared {
        true => (fused.split([sizes.hidden, dim, dim]), 1),
        false => (fused.split_groups(sizes.heads, [dim; 3]), sizes.heads),
    };
    let attention = Attention {
        heads: Heads { query: sizes.heads, key_value, dim },
        ..gpt2::attention(c, sizes, qkv, part("transformer.h.{layer}.attn.c_proj"))?
    };
    let mlp = gpt2::mlp(c, sizes, "gelu_pytorch_tanh", part)?;
    gpt2::decoder(request, sizes, vec![gpt2::layer(c, attention, mlp)?], vec![0; sizes.layers as usize])
}
