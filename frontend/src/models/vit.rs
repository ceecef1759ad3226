//! ViT: pictures as sequences of patches.
//!
//! Dosovitskiy et al., *An Image is Worth 16x16 Words* (arXiv:2010.11929):
//!
//! ```text
//! x = [class token; linear(patches)] + position
//! x = x + attention(norm(x)); x = x + down(gelu(up(norm(x))))
//! logits = classifier(norm(x) of the class token)
//! ```

use llmc_ir::Mask;

use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Grid, Leading, Mlp, Norm, Projection, Vision, VisionHead, VisionLayer,
};
use crate::error::Result;
use crate::labels::Labels;

pub const FAMILY: Family = Family {
    name: "vit",
    architectures: &[
        ("ViTModel", Task::Base),
        ("ViTForImageClassification", Task::ImageClassification),
    ],
    prefix: "vit.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.optional_text("pooler_act")?.is_some_and(|act| act != "tanh") {
        return Err(c.refuse("pooler_act", "\"tanh\""));
    }
    let hidden = c.hidden_size()?;
    if c.count_or("pooler_output_size", 1..=crate::limits::WIDTH, hidden)? != hidden {
        return Err(c.refuse("pooler_output_size", format_args!("hidden_size ({hidden})")));
    }
    let heads = c.heads()?;
    let norm = Norm::layer(c.epsilon("layer_norm_eps", 1e-12)?);
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let bias = c.flag_or("qkv_bias", true)?;
    Ok(Blueprint::Vision(Box::new(Vision {
        hidden,
        grid: Grid::read(c)?,
        patches: ("embeddings.patch_embeddings.projection", true),
        class: ("embeddings.cls_token", Leading(2)),
        positions: ("embeddings.position_embeddings", Leading(1)),
        pre_norm: None,
        layer: VisionLayer {
            attention: Attention::plain(
                hidden,
                heads,
                [
                    Projection::plain("encoder.layer.{layer}.attention.attention.query"),
                    Projection::plain("encoder.layer.{layer}.attention.attention.key"),
                    Projection::plain("encoder.layer.{layer}.attention.attention.value"),
                    Projection::plain("encoder.layer.{layer}.attention.output.dense"),
                ],
                Mask::Bidirectional,
            )
            .with_bias(bias, true),
            mlp: Mlp {
                hidden,
                inner: c.intermediate_size()?,
                act: activation(c, "hidden_act", "gelu")?,
                gate: None,
                up: part("encoder.layer.{layer}.intermediate.dense"),
                down: part("encoder.layer.{layer}.output.dense"),
            },
            norm,
            attention_norm: "encoder.layer.{layer}.layernorm_before",
            mlp_norm: "encoder.layer.{layer}.layernorm_after",
        },
        layers: vec![0; c.layers()? as usize],
        norm: Some((norm, "layernorm")),
        head: match request.task {
            Task::ImageClassification => VisionHead::Classes {
                out: "classifier",
                labels: Labels::of(c)?.names.len() as u32,
            },
            _ => VisionHead::Pooler("pooler.dense"),
        },
    })))
}
