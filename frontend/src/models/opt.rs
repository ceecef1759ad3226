//! OPT.
//!
//! Zhang et al., *OPT: Open Pre-trained Transformer Language Models* (arXiv:2205.01068): GPT-2's structure with
//! ReLU. The position table's first two rows are not used. The 350M model has its norms behind the sums, none
//! behind the last layer, and token rows narrower than the stream.

use llmc_ir::Mask;

use super::{Family, Request, Task, llama};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Arrangement, Attention, Blueprint, Decoder, DecoderLayer, Embeddings, Mlp, Narrow, Norm, Projection,
    Table,
};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "opt",
    architectures: &[("OPTForCausalLM", Task::CausalLm), ("OPTModel", Task::Base)],
    prefix: "model.",
    build,
};

/// Epsilon of all norms: a constant of the reference implementation.
const EPS: f64 = 1e-5;
/// Unused rows before the first position.
const OFFSET: u32 = 2;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if !c.flag_or("layer_norm_elementwise_affine", true)? {
        return Err(c.refuse("layer_norm_elementwise_affine", "true"));
    }
    let (hidden, heads) = (c.hidden_size()?, c.heads()?);
    let bias = c.flag_or("enable_bias", true)?;
    let part = |tensor| Projection::plain(tensor).with_bias(bias);
    let norm = Norm::layer(EPS);
    let before = c.flag_or("do_layer_norm_before", true)?;
    let norms = (
        "model.decoder.layers.{layer}.self_attn_layer_norm",
        "model.decoder.layers.{layer}.final_layer_norm",
    );
    let layer = DecoderLayer {
        name: "layer",
        attention: Attention::plain(
            hidden,
            heads,
            [
                part("model.decoder.layers.{layer}.self_attn.q_proj"),
                part("model.decoder.layers.{layer}.self_attn.k_proj"),
                part("model.decoder.layers.{layer}.self_attn.v_proj"),
                part("model.decoder.layers.{layer}.self_attn.out_proj"),
            ],
            Mask::causal(None),
        ),
        mlp: Mlp {
            hidden,
            inner: c.count("ffn_dim", 1..=limits::WIDTH)?,
            act: activation(c, "activation_function", "relu")?,
            gate: None,
            up: part("model.decoder.layers.{layer}.fc1"),
            down: part("model.decoder.layers.{layer}.fc2"),
        }
        .into(),
        norm,
        arrangement: match before {
            true => Arrangement::Pre { attention: norms.0, mlp: norms.1 },
            false => Arrangement::Post { attention: norms.0, mlp: norms.1 },
        },
    };
    let narrow = c.optional_count("word_embed_proj_dim", 1..=limits::WIDTH)?.filter(|width| *width != hidden);
    let table = |tensor, rows, skip, field| Table { tensor, rows, skip, field };
    let context = c.positions()?;
    Ok(Blueprint::Decoder(Box::new(Decoder {
        hidden,
        context,
        embeddings: Embeddings {
            hidden,
            tokens: table("model.decoder.embed_tokens.weight", c.vocab_size()?, 0, "vocab_size"),
            scale: 1.0,
            types: None,
            positions: Some(table(
                "model.decoder.embed_positions.weight",
                context,
                OFFSET,
                "max_position_embeddings",
            )),
            narrow: narrow.map(|width| Narrow {
                width,
                into: Projection::plain("model.decoder.project_in"),
                out: Projection::plain("model.decoder.project_out"),
            }),
        },
        embedding_norm: None,
        ropes: Vec::new(),
        classes: vec![layer],
        layers: vec![0; c.layers()? as usize],
        norm: (before && !c.flag_or("_remove_final_layer_norm", false)?)
            .then_some((norm, "model.decoder.final_layer_norm")),
        head: llama::head(request, true)?,
    })))
}
