//! ALBERT.
//!
//! Lan et al., *ALBERT* (arXiv:1909.11942): BERT with narrow tables and shared layers:
//!
//! ```text
//! x = linear(norm(token + type + position))     from embedding_size to hidden_size
//! x = group_g(x)                                the i-th time g = ⌊i / (times / groups)⌋
//! ```
//!
//! A group is `inner_group_num` layers of BERT's kind; `num_hidden_layers` counts groups. The masked language model's head works in the width of the
//! tables.

use llmc_ir::ops::ActKind;

use super::heads::{HeadNames, head};
use super::{Family, Request, Task, bert};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Blueprint, Embeddings, Encoder, EncoderLayer, MaskedLm, Mlp, Positions, Projection,
};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "albert",
    architectures: &[
        ("AlbertModel", Task::Base),
        ("AlbertForMaskedLM", Task::MaskedLm),
        ("AlbertForQuestionAnswering", Task::QuestionAnswering),
        ("AlbertForSequenceClassification", Task::SequenceClassification),
        ("AlbertForTokenClassification", Task::TokenClassification),
    ],
    prefix: "albert.",
    build,
};

/// A layer's tensors: `{layer}` counts groups.
macro_rules! layer {
    ($name:literal) => {
        concat!("encoder.albert_layer_groups.{layer}.albert_layers.{inner}.", $name)
    };
}

/// Queries, keys, values, output.
const NAMES: [&str; 4] = [
    layer!("attention.query"),
    layer!("attention.key"),
    layer!("attention.value"),
    layer!("attention.dense"),
];

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    bert::check(c)?;
    let (norm, act) = (bert::norm(c)?, activation(c, "hidden_act", "gelu_new")?);
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let embeddings = Embeddings {
        hidden: c.count_or("embedding_size", 1..=limits::WIDTH, 128)?,
        types: Some(bert::types(c, 2)?),
        ..bert::embeddings(c)?
    };
    let (layers, group, order) = layers(c)?;
    let names = HeadNames {
        masked_lm: MaskedLm {
            dense: ("predictions.dense", act),
            norm: (norm, "predictions.LayerNorm"),
            bias: "predictions.bias",
            decoder: "predictions.decoder",
            tied: true,
        },
        sequence: ("pooler", ActKind::Tanh, "classifier"),
    };
    Ok(Blueprint::Encoder(Box::new(Encoder {
        embeddings,
        mapping: Some(part("encoder.embedding_hidden_mapping_in")),
        layer: EncoderLayer {
            attention: bert::attention(c, NAMES, Positions::Learned)?,
            mlp: Mlp {
                hidden: c.hidden_size()?,
                inner: c.intermediate_size()?,
                act,
                gate: None,
                up: part(layer!("ffn")),
                down: part(layer!("ffn_output")),
            },
            norm,
            attention_norm: layer!("attention.LayerNorm"),
            mlp_norm: layer!("full_layer_layer_norm"),
        },
        layers: vec![0; layers as usize],
        order: Some(order),
        group,
        pooler: Some("pooler").filter(|_| request.task == Task::Base),
        head: head(request, names)?,
        ..bert::encoder(request)?
    })))
}

/// The layers of the checkpoint, how many make a group, and the order in which they run.
fn layers(c: &Config) -> Result<(u32, u32, Vec<u32>)> {
    let (times, groups) = (c.layers()?, c.count_or("num_hidden_groups", 1..=limits::LAYERS, 1)?);
    if groups > times {
        let what = format!("found {groups}, expected at most num_hidden_layers ({times})");
        return Err(c.problem("num_hidden_groups", what).input());
    }
    let group = c.count_or("inner_group_num", 1..=limits::LAYERS / times, 1)?;
    // In floating point, as the reference implementation does.
    let each = f64::from(times) / f64::from(groups);
    let first = |i| ((f64::from(i) / each) as u32).min(groups - 1) * group;
    let order = (0..times).flat_map(|i| first(i)..first(i) + group).collect();
    Ok((groups * group, group, order))
}
