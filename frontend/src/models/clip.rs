//! CLIP: pictures and texts in one space.
//!
//! Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (arXiv:2103.00020):
//!
//! ```text
//! picture: x = norm([class token; patches] + position); pre-norm layers; norm and projection of the class token
//! text:    x = token + position; pre-norm layers that see no later token; norm and projection of the last token
//! logits   = exp(scale) · image · textᵀ                both of length 1
//! ```
//!
//! The first norm's tensor is spelled `pre_layrnorm`. Old configurations say `eos_token_id` 2, which is none: there
//! the token of the greatest id ends a text.

use llmc_ir::Mask;

use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Dual, Embeddings, Grid, Leading, Mlp, Norm, Projection, Table, TextEnd,
    TextTower, Vision, VisionHead, VisionLayer,
};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family =
    Family { name: "clip", architectures: &[("CLIPModel", Task::Base)], prefix: "clip.", build };

/// Queries, keys, values, output; the feed-forward part; the norms.
const VISION: [&str; 8] = [
    "vision_model.encoder.layers.{layer}.self_attn.q_proj",
    "vision_model.encoder.layers.{layer}.self_attn.k_proj",
    "vision_model.encoder.layers.{layer}.self_attn.v_proj",
    "vision_model.encoder.layers.{layer}.self_attn.out_proj",
    "vision_model.encoder.layers.{layer}.mlp.fc1",
    "vision_model.encoder.layers.{layer}.mlp.fc2",
    "vision_model.encoder.layers.{layer}.layer_norm1",
    "vision_model.encoder.layers.{layer}.layer_norm2",
];
const TEXT: [&str; 8] = [
    "text_model.encoder.layers.{layer}.self_attn.q_proj",
    "text_model.encoder.layers.{layer}.self_attn.k_proj",
    "text_model.encoder.layers.{layer}.self_attn.v_proj",
    "text_model.encoder.layers.{layer}.self_attn.out_proj",
    "text_model.encoder.layers.{layer}.mlp.fc1",
    "text_model.encoder.layers.{layer}.mlp.fc2",
    "text_model.encoder.layers.{layer}.layer_norm1",
    "text_model.encoder.layers.{layer}.layer_norm2",
];

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let section = |field: &str| c.section(field)?.ok_or_else(|| c.wrong(field, "an object"));
    let (vision, text) = (section("vision_config")?, section("text_config")?);
    let width = c.count_or("projection_dim", 1..=limits::WIDTH, 512)?;
    let vision_norm = norm(&vision)?;
    let context = text.positions()?;
    Ok(Blueprint::Dual(Box::new(Dual {
        vision: Vision {
            hidden: vision.hidden_size()?,
            grid: Grid::read(&vision)?,
            patches: ("vision_model.embeddings.patch_embedding", false),
            class: ("vision_model.embeddings.class_embedding", Leading(0)),
            positions: ("vision_model.embeddings.position_embedding.weight", Leading(0)),
            pre_norm: Some((vision_norm, "vision_model.pre_layrnorm")),
            layer: layer(&vision, VISION, Mask::Bidirectional)?,
            layers: vec![0; vision.layers()? as usize],
            norm: None,
            head: VisionHead::Shared {
                norm: (vision_norm, "vision_model.post_layernorm"),
                projection: "visual_projection",
                width,
            },
        },
        text: TextTower {
            hidden: text.hidden_size()?,
            context,
            embeddings: embeddings(&text, context)?,
            layer: layer(&text, TEXT, Mask::causal(None))?,
            layers: vec![0; text.layers()? as usize],
            norm: (norm(&text)?, "text_model.final_layer_norm"),
            projection: ("text_projection", width),
            end: match text.count_or("eos_token_id", 0..=limits::VOCABULARY, 49407)? {
                2 => TextEnd::Greatest,
                id => TextEnd::First(id),
            },
        },
        scale: "logit_scale",
    })))
}

fn norm(c: &Config) -> Result<Norm> {
    Ok(Norm::layer(c.epsilon("layer_norm_eps", 1e-5)?))
}

fn layer(c: &Config, names: [&'static str; 8], mask: Mask) -> Result<VisionLayer> {
    let (hidden, heads) = (c.hidden_size()?, c.heads()?);
    let part = |i: usize| Projection::plain(names[i]).with_bias(true);
    Ok(VisionLayer {
        attention: Attention::plain(hidden, heads, [part(0), part(1), part(2), part(3)], mask),
        mlp: Mlp {
            hidden,
            inner: c.intermediate_size()?,
            act: activation(c, "hidden_act", "quick_gelu")?,
            gate: None,
            up: part(4),
            down: part(5),
        },
        norm: norm(c)?,
        attention_norm: names[6],
        mlp_norm: names[7],
    })
}

fn embeddings(c: &Config, context: u32) -> Result<Embeddings> {
    let table = |tensor, rows, field| Table { tensor, rows, skip: 0, field };
    Ok(Embeddings {
        hidden: c.hidden_size()?,
        tokens: table("text_model.embeddings.token_embedding.weight", c.vocab_size()?, "vocab_size"),
        scale: 1.0,
        types: None,
        positions: Some(table(
            "text_model.embeddings.position_embedding.weight",
            context,
            "max_position_embeddings",
        )),
        narrow: None,
    })
}
