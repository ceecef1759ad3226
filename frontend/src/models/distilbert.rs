//! DistilBERT.
//!
//! Sanh et al., *DistilBERT* (arXiv:1910.01108): BERT without token types and without a pooler. Norms have a fixed
//! epsilon; positions are a table, also where it was filled with sines.

use llmc_ir::ops::ActKind;

use super::heads::{HeadNames, head};
use super::{Family, Request, Task, bert};
use crate::blocks::mlp::activation;
use crate::blocks::{Blueprint, Encoder, EncoderLayer, MaskedLm, Mlp, Norm, Positions, Projection};
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "distilbert",
    architectures: &[
        ("DistilBertModel", Task::Base),
        ("DistilBertForMaskedLM", Task::MaskedLm),
        ("DistilBertForQuestionAnswering", Task::QuestionAnswering),
        ("DistilBertForSequenceClassification", Task::SequenceClassification),
        ("DistilBertForTokenClassification", Task::TokenClassification),
    ],
    prefix: "distilbert.",
    build,
};

/// BERT's fields under DistilBERT's names.
const FIELDS: [(&str, &str); 5] = [
    ("hidden_size", "dim"),
    ("num_attention_heads", "n_heads"),
    ("num_hidden_layers", "n_layers"),
    ("intermediate_size", "hidden_dim"),
    ("hidden_act", "activation"),
];

/// Queries, keys, values, output.
const NAMES: [&str; 4] = [
    "transformer.layer.{layer}.attention.q_lin",
    "transformer.layer.{layer}.attention.k_lin",
    "transformer.layer.{layer}.attention.v_lin",
    "transformer.layer.{layer}.attention.out_lin",
];

const EPSILON: f64 = 1e-12;

fn build(request: &Request) -> Result<Blueprint> {
    let c = &request.config.with_names(&FIELDS);
    let request = &Request { config: c, ..*request };
    let (norm, act) = (Norm::layer(EPSILON), activation(c, "hidden_act", "gelu")?);
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    let names = HeadNames {
        masked_lm: MaskedLm {
            dense: ("vocab_transform", act),
            norm: (norm, "vocab_layer_norm"),
            bias: "vocab_projector.bias",
            decoder: "vocab_projector",
            tied: true,
        },
        sequence: ("pre_classifier", ActKind::Relu, "classifier"),
    };
    Ok(Blueprint::Encoder(Box::new(Encoder {
        norm: (norm, "embeddings.LayerNorm"),
        layer: EncoderLayer {
            attention: bert::attention(c, NAMES, Positions::Learned)?,
            mlp: Mlp {
                hidden: c.hidden_size()?,
                inner: c.intermediate_size()?,
                act,
                gate: None,
                up: part("transformer.layer.{layer}.ffn.lin1"),
                down: part("transformer.layer.{layer}.ffn.lin2"),
            },
            norm,
            attention_norm: "transformer.layer.{layer}.sa_layer_norm",
            mlp_norm: "transformer.layer.{layer}.output_layer_norm",
        },
        pooler: None,
        head: head(request, names)?,
        ..bert::encoder(request)?
    })))
}
