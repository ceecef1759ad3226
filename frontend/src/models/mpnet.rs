//! MPNet, and sentence encoders on it (all-mpnet-base).
//!
//! Song et al., *MPNet* (arXiv:2004.09297): BERT without token types, with T5's relative position bias, one table
//! for all layers, and RoBERTa's positions, which count from behind the pad token's id.
//!
//! The bias has 32 buckets up to a distance of 128 whatever the configuration says, and the pad token is 1: both
//! are constants of the reference implementation. A table of another size is refused.

use llmc_ir::ops::RelativeBias;

use super::heads::head;
use super::{Family, Request, Task, bert, roberta};
use crate::blocks::{Blueprint, Encoder, EncoderLayer, Positions};
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "mpnet",
    architectures: &[
        ("MPNetModel", Task::Base),
        ("MPNetForMaskedLM", Task::MaskedLm),
        ("MPNetForQuestionAnswering", Task::QuestionAnswering),
        ("MPNetForSequenceClassification", Task::SequenceClassification),
        ("MPNetForTokenClassification", Task::TokenClassification),
    ],
    prefix: "mpnet.",
    build,
};

/// Queries, keys, values, output.
const NAMES: [&str; 4] = [
    "encoder.layer.{layer}.attention.attn.q",
    "encoder.layer.{layer}.attention.attn.k",
    "encoder.layer.{layer}.attention.attn.v",
    "encoder.layer.{layer}.attention.attn.o",
];

const BUCKETS: u32 = 32;
const PAD: u32 = 1;

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    let buckets = c.count_or("relative_attention_num_buckets", 1..=1 << 16, BUCKETS)?;
    if buckets != BUCKETS {
        return Err(c.refuse("relative_attention_num_buckets", BUCKETS));
    }
    let positions = Positions::Relative {
        tensor: "encoder.relative_attention_bias.weight",
        name: "relative_bias",
        bias: RelativeBias { buckets, max_distance: 128, bidirectional: true },
    };
    Ok(Blueprint::Encoder(Box::new(Encoder {
        context: roberta::context(c, PAD)?,
        positions_after_pad: Some(PAD),
        layer: EncoderLayer {
            attention: bert::attention(c, NAMES, positions)?,
            attention_norm: "encoder.layer.{layer}.attention.LayerNorm",
            ..bert::layer(c)?
        },
        head: head(request, roberta::heads(c)?)?,
        ..bert::encoder(request)?
    })))
}
