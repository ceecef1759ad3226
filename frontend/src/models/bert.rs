//! BERT, and sentence encoders on it (all-MiniLM, BGE, E5, GTE).
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
//! Old checkpoints call the norms' tensors `gamma` and `beta`.

use llmc_ir::Mask;

use super::{Family, Request, Task};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Embeddings, Encoder, EncoderLayer, Mlp, Norm, Positions, Projection, Table,
};
use crate::config::Config;
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family =
    Family { name: "bert", architectures: &[("BertModel", Task::Base)], prefix: "bert.", build };

/// Queries, keys, values, output.
const NAMES: [&str; 4] = [
    "encoder.layer.{layer}.attention.self.query",
    "encoder.layer.{layer}.attention.self.key",
    "encoder.layer.{layer}.attention.self.value",
    "encoder.layer.{layer}.attention.output.dense",
];

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    for field in ["is_decoder", "add_cross_attention"] {
        if c.flag_or(field, false)? {
            return Err(c.refuse(field, "false"));
        }
    }
    if c.optional_text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(c.refuse("position_embedding_type", "\"absolute\""));
    }
    let types = types(c, 2)?;
    Ok(Blueprint::Encoder(Box::new(Encoder {
        embeddings: Embeddings { types: Some(types), ..embeddings(c)? },
        ..encoder(request)?
    })))
}

/// An encoder of BERT's kind: what its descendants start from.
pub fn encoder(request: &Request) -> Result<Encoder> {
    let c = request.config;
    Ok(Encoder {
        hidden: c.hidden_size()?,
        context: c.positions()?,
        embeddings: embeddings(c)?,
        norm: (Norm::layer(c.epsilon("layer_norm_eps", 1e-12)?), "embeddings.LayerNorm"),
        positions_after_pad: None,
        layer: layer(c)?,
        layers: vec![0; c.layers()? as usize],
        conv: None,
        pooler: Some("pooler.dense"),
        sentence: Encoder::sentence(request.sentence),
    })
}

/// Attention with biases, scaled by 1/√head_dim.
pub fn attention(c: &Config, names: [&'static str; 4], positions: Positions) -> Result<Attention> {
    let heads = c.heads()?;
    let [q, k, v, o] = names.map(|tensor| Projection::plain(tensor).with_bias(true));
    Ok(Attention {
        hidden: c.hidden_size()?,
        heads,
        q,
        k,
        v,
        o,
        head_norm: None,
        positions,
        mask: Mask::Bidirectional,
        scale: f64::from(heads.dim).powf(-0.5) as f32,
        softcap: None,
        sinks: None,
    })
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
        norm: Norm::layer(c.epsilon("layer_norm_eps", 1e-12)?),
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
