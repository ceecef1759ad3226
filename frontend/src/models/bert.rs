//! BERT, and what is built on it: sentence encoders (all-MiniLM, BGE, E5, GTE), classifiers, taggers.
//!
//! Devlin et al., *BERT* (arXiv:1810.04805):
//!
//! ```text
//! x = norm(token + type + position)
//! x = norm(x + attention(x))                every token sees every token
//! x = norm(x + down(gelu(up(x))))
//! pooler_output = tanh(linear(x of [CLS]))
//! ```
//!
//! Classifiers of sequences read the pooler's output.
//!
//! Old checkpoints call the norms' tensors `gamma` and `beta`.

use llmc_ir::Mask;
use llmc_ir::ops::ActKind;

use super::heads::{HeadNames, head};
use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Embeddings, Encoder, EncoderLayer, MaskedLm, Mlp, Norm, Positions, Projection, Table,
};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "bert",
    architectures: &[
        ("BertModel", Task::Base),
        ("BertForMaskedLM", Task::MaskedLm),
        ("BertForQuestionAnswering", Task::QuestionAnswering),
        ("BertForSequenceClassification", Task::SequenceClassification),
        ("BertForTokenClassification", Task::TokenClassification),
    ],
    prefix: "bert.",
    build,
};

/// Queries, keys, values, output.
const NAMES: [&str; 4] = [
    "encoder.layer.{layer}.attention.self.query",
    "encoder.layer.{layer}.attention.self.key",
    "encoder.layer.{layer}.attention.self.value",
    "encoder.layer.{layer}.attention.output.dense",
];

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    check(c)?;
    let names = HeadNames {
        masked_lm: MaskedLm {
            dense: ("cls.predictions.transform.dense", activation(c, "hidden_act", "gelu")?),
            norm: (norm(c)?, "cls.predictions.transform.LayerNorm"),
            bias: "cls.predictions.bias",
            decoder: "cls.predictions.decoder",
            tied: true,
        },
        sequence: ("pooler.dense", ActKind::Tanh, "classifier"),
    };
    Ok(Blueprint::Encoder(Box::new(Encoder {
        embeddings: Embeddings { types: Some(types(c, 2)?), ..embeddings(c)? },
        head: head(request, names)?,
        ..encoder(request)?
    })))
}

/// Refuses what makes something else of an encoder.
pub fn check(c: &Config) -> Result<()> {
    for field in ["is_decoder", "add_cross_attention"] {
        if c.flag_or(field, false)? {
            return Err(c.refuse(field, "false"));
        }
    }
    match c.optional_text("position_embedding_type")? {
        None | Some("absolute") => Ok(()),
        Some(_) => Err(c.refuse("position_embedding_type", "\"absolute\"")),
    }
}

/// An encoder of BERT's kind: what its descendants start from.
pub fn encoder(request: &Request) -> Result<Encoder> {
    let c = request.config;
    Ok(Encoder {
        hidden: c.hidden_size()?,
        context: c.positions()?,
        embeddings: embeddings(c)?,
        norm: (norm(c)?, "embeddings.LayerNorm"),
        widening: None,
        mapping: None,
        positions_after_pad: None,
        layer: layer(c)?,
        layers: vec![0; c.layers()? as usize],
        conv: None,
        order: None,
        group: 1,
        pooler: Some("pooler.dense").filter(|_| request.task == Task::Base),
        sentence: Encoder::sentence(request.sentence),
        head: None,
    })
}

/// Layer norm with the configured epsilon.
pub fn norm(c: &Config) -> Result<Norm> {
    Ok(Norm::layer(c.epsilon("layer_norm_eps", 1e-12)?))
}

/// Attention with biases, scaled by 1/√head_dim.
pub fn attention(c: &Config, names: [&'static str; 4], positions: Positions) -> Result<Attention> {
    let parts = names.map(|tensor| Projection::plain(tensor).with_bias(true));
    let plain = Attention::plain(c.hidden_size()?, c.heads()?, parts, Mask::Bidirectional);
    Ok(Attention { positions, ..plain })
}

/// A layer under BERT's names.
pub fn layer(c: &Config) -> Result<EncoderLayer> {
    let act = activation(c, "hidden_act", "gelu")?;
    let part = |tensor| Projection::plain(tensor).with_bias(true);
    Ok(EncoderLayer {
        attention: attention(c, NAMES, Positions::Learned)?,
        mlp: Mlp {
            hidden: c.hidden_size()?,
            inner: c.intermediate_size()?,
            act,
            gate: None,
            up: part("encoder.layer.{layer}.intermediate.dense"),
            down: part("encoder.layer.{layer}.output.dense"),
        },
        norm: norm(c)?,
        attention_norm: "encoder.layer.{layer}.attention.output.LayerNorm",
        mlp_norm: "encoder.layer.{layer}.output.LayerNorm",
    })
}

/// Token types; `default` of them where the configuration does not say.
pub fn types(c: &Config, default: u32) -> Result<Table> {
    Ok(Table {
        tensor: "embeddings.token_type_embeddings.weight",
        rows: c.count_or("type_vocab_size", 1..=limits::VOCABULARY, default)?,
        skip: 0,
        field: "type_vocab_size",
    })
}

/// Tokens and positions.
pub fn embeddings(c: &Config) -> Result<Embeddings> {
    Ok(Embeddings {
        hidden: c.hidden_size()?,
        tokens: Table {
            tensor: "embeddings.word_embeddings.weight",
            rows: c.vocab_size()?,
            skip: 0,
            field: "vocab_size",
        },
        scale: 1.0,
        types: None,
        narrow: None,
        positions: Some(Table {
            tensor: "embeddings.position_embeddings.weight",
            rows: c.positions()?,
            skip: 0,
            field: "max_position_embeddings",
        }),
    })
}
