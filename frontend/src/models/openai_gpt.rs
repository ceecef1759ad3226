//! GPT (the first).
//!
//! Radford et al., *Improving Language Understanding by Generative Pre-Training* (2018):
//!
//! ```text
//! x = token + position
//! x = norm(x + attention(x))        norms behind the sums, and none behind the last layer
//! x = norm(x + down(gelu(up(x))))   gelu is its tanh form
//! ```

use llmc_ir::ops::ActKind;

use super::{Family, Request, Task, gpt2};
use crate::blocks::{Arrangement, Blueprint, Decoder, DecoderLayer, Embeddings, Mlp, Projection, Table};
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "openai-gpt",
    architectures: &[("OpenAIGPTLMHeadModel", Task::CausalLm), ("OpenAIGPTModel", Task::Base)],
    prefix: "transformer.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let act = match c.optional_text("afn")?.unwrap_or("gelu") {
        "gelu" => ActKind::GeluTanh,
        "relu" => ActKind::Relu,
        "silu" | "swish" => ActKind::Silu,
        _ => return Err(c.refuse("afn", "gelu, relu, silu or swish")),
    };
    let sizes = gpt2::Sizes::of(c)?;
    let part = |tensor| Projection::plain(tensor).with_bias(true).conv1d();
    let qkv = part("transformer.h.{layer}.attn.c_attn").split([sizes.hidden; 3]);
    let attention = gpt2::attention(c, sizes, qkv, part("transformer.h.{layer}.attn.c_proj"))?;
    let mlp = Mlp {
        hidden: sizes.hidden,
        inner: 4 * sizes.hidden,
        act,
        gate: None,
        up: part("transformer.h.{layer}.mlp.c_fc"),
        down: part("transformer.h.{layer}.mlp.c_proj"),
    };
    let layer = DecoderLayer {
        arrangement: Arrangement::Post {
            attention: "transformer.h.{layer}.ln_1",
            mlp: "transformer.h.{layer}.ln_2",
        },
        ..gpt2::layer(c, attention, mlp)?
    };
    let Blueprint::Decoder(decoder) = gpt2::decoder(request, sizes, vec![layer], vec![0; sizes.layers as usize])?
    else {
        unreachable!("GPT-2 is a decoder")
    };
    let table = |tensor, rows, field| Table { tensor, rows, skip: 0, field };
    Ok(Blueprint::Decoder(Box::new(Decoder {
        embeddings: Embeddings {
            tokens: table("transformer.tokens_embed.weight", c.vocab_size()?, "vocab_size"),
            positions: Some(table("transformer.positions_embed.weight", sizes.positions, "n_positions")),
            ..decoder.embeddings.clone()
        },
        norm: None,
        ..*decoder
    })))
}
