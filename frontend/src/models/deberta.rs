//! DeBERTa.
//!
//! He et al., *DeBERTa* (arXiv:2006.03654): BERT whose attention adds what queries and keys say of their distance:
//!
//! ```text
//! s = (q·kᵀ + q·pos_key[i − j] + k·pos_query[i − j]) / √(dim · (1 + kinds of terms))
//! ```
//!
//! Distances beyond `max_relative_positions` count as it. Queries, keys and values are one tensor, head by head;
//! keys have no bias. There are no absolute positions unless `position_biased_input`, and no pooler but that of the
//! classifier of sequences. The head of the masked language model is BERT's, or with `legacy` false one that the
//! authors trained, under names of its own.

use llmc_ir::Mask;
use llmc_ir::ops::Disentangled;

use super::heads::{HeadNames, head};
use super::{Family, Request, Task, bert};
use crate::blocks::mlp::activation;
use crate::blocks::{
    Attention, Blueprint, Embeddings, Encoder, EncoderLayer, MaskedLm, Norm, PositionTerms, Positions,
    Projection,
};
use crate::config::{Config, Heads};
use crate::error::Result;
use crate::limits;

pub const FAMILY: Family = Family {
    name: "deberta",
    architectures: &[
        ("DebertaModel", Task::Base),
        ("DebertaForMaskedLM", Task::MaskedLm),
        ("DebertaForQuestionAnswering", Task::QuestionAnswering),
        ("DebertaForSequenceClassification", Task::SequenceClassification),
        ("DebertaForTokenClassification", Task::TokenClassification),
    ],
    prefix: "deberta.",
    build,
};

fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    if c.flag_or("talking_head", false)? {
        return Err(c.refuse("talking_head", "false"));
    }
    let (heads, kinds) = (c.heads()?, pos_att_type(c)?);
    let [q, k, v] = Projection::plain("encoder.layer.{layer}.attention.self.in_proj")
        .split_groups(heads.query, [heads.dim; 3]);
    let positions = match c.flag_or("relative_attention", false)? {
        false => Positions::Learned,
        true => {
            let terms = Disentangled {
                c2p: kinds.contains(&"c2p"),
                p2c: kinds.contains(&"p2c"),
                span: max_relative_positions(c)?,
                max_distance: None,
            };
            let key = "encoder.layer.{layer}.attention.self.pos_proj";
            let query = "encoder.layer.{layer}.attention.self.pos_q_proj";
            positions(PositionTerms {
                terms,
                table: TABLE,
                norm: None,
                key: Projection::plain(key),
                query: Projection::plain(query).with_bias(true),
            })
        }
    };
    let attention = Attention {
        q: q.with_bias_of("encoder.layer.{layer}.attention.self.q_bias"),
        k,
        v: v.with_bias_of("encoder.layer.{layer}.attention.self.v_bias"),
        scale: scale(heads, kinds.len()),
        ..attention(c, heads, positions)?
    };
    Ok(Blueprint::Encoder(Box::new(encoder(request, attention)?)))
}

/// The table of relative positions.
pub const TABLE: &str = "encoder.rel_embeddings.weight";

/// An encoder of this kind, with this attention.
pub fn encoder(request: &Request, attention: Attention) -> Result<Encoder> {
    let c = request.config;
    let (norm, embeddings) = (norm(c)?, embeddings(c)?);
    let narrow = embeddings.hidden != c.hidden_size()?;
    Ok(Encoder {
        norm: (norm, "embeddings.LayerNorm"),
        widening: narrow.then(|| Projection::plain("embeddings.embed_proj")),
        head: head(request, head_names(request, embeddings.hidden)?)?,
        embeddings,
        layer: EncoderLayer { attention, norm, ..bert::layer(c)? },
        pooler: None,
        ..bert::encoder(request)?
    })
}

/// What the heads are called; `width` is that of the token table.
fn head_names(request: &Request, width: u32) -> Result<HeadNames> {
    let c = request.config;
    let (norm, act, hidden) = (norm(c)?, activation(c, "hidden_act", "gelu")?, c.hidden_size()?);
    let legacy = c.flag_or("legacy", true)?;
    if request.task == Task::MaskedLm && !legacy && width != hidden {
        return Err(c.refuse("embedding_size", format_args!("hidden_size ({hidden}) where `legacy` is false")));
    }
    if request.task == Task::SequenceClassification {
        let pooler = c.count_or("pooler_hidden_size", 1..=limits::WIDTH, hidden)?;
        if pooler != hidden {
            return Err(c.refuse("pooler_hidden_size", format_args!("hidden_size ({hidden})")));
        }
    }
    let masked_lm = match legacy {
        true => MaskedLm {
            dense: ("cls.predictions.transform.dense", act),
            norm: (norm, "cls.predictions.transform.LayerNorm"),
            bias: "cls.predictions.bias",
            decoder: "cls.predictions.decoder",
            tied: true,
        },
        false => MaskedLm {
            dense: ("lm_predictions.lm_head.dense", act),
            norm: (norm, "lm_predictions.lm_head.LayerNorm"),
            bias: "lm_predictions.lm_head.bias",
            decoder: "lm_predictions.lm_head",
            tied: true,
        },
    };
    let pooled = activation(c, "pooler_hidden_act", "gelu")?;
    Ok(HeadNames { masked_lm, sequence: ("pooler.dense", pooled, "classifier") })
}

/// Attention among all tokens, whose projections the family fills in.
pub fn attention(c: &Config, heads: Heads, positions: Positions) -> Result<Attention> {
    let projection = Projection::plain("");
    Ok(Attention {
        hidden: c.hidden_size()?,
        heads,
        q: projection.clone(),
        k: projection.clone(),
        v: projection,
        o: Projection::plain("encoder.layer.{layer}.attention.output.dense").with_bias(true),
        head_norm: None,
        positions,
        mask: Mask::Bidirectional,
        scale: 1.0,
        softcap: None,
        sinks: None,
    })
}

/// 1 / √(dim · (1 + kinds)).
pub fn scale(heads: Heads, kinds: usize) -> f32 {
    (f64::from(heads.dim) * (1 + kinds) as f64).powf(-0.5) as f32
}

/// How positions enter attention; not at all without terms.
pub fn positions(terms: PositionTerms) -> Positions {
    match terms.terms.c2p || terms.terms.p2c {
        true => Positions::Disentangled(Box::new(terms)),
        false => Positions::Learned,
    }
}

/// Layer norm with the configured epsilon.
pub fn norm(c: &Config) -> Result<Norm> {
    Ok(Norm::layer(c.epsilon("layer_norm_eps", 1e-7)?))
}

/// Tokens, and where the configuration has them positions and token types.
fn embeddings(c: &Config) -> Result<Embeddings> {
    let of_bert = bert::embeddings(c)?;
    let absolute = c.flag_or("position_biased_input", true)?;
    let types = c.count_or("type_vocab_size", 0..=limits::VOCABULARY, 0)?;
    Ok(Embeddings {
        hidden: c.count_or("embedding_size", 1..=limits::WIDTH, of_bert.hidden)?,
        positions: of_bert.positions.filter(|_| absolute),
        types: if types > 0 { Some(bert::types(c, 0)?) } else { None },
        ..of_bert
    })
}

/// The kinds of terms: a list, or words between bars.
pub fn pos_att_type(c: &Config) -> Result<Vec<&str>> {
    const FIELD: &str = "pos_att_type";
    match c.get(FIELD).and_then(|value| value.as_str()) {
        Some(text) => Ok(text.split('|').map(str::trim).filter(|kind| !kind.is_empty()).collect()),
        None => Ok(c.optional_texts(FIELD)?.unwrap_or_default()),
    }
}

/// The greatest distance: that of the context, where the field is not positive.
pub fn max_relative_positions(c: &Config) -> Result<u32> {
    match positive(c, "max_relative_positions", Disentangled::MAX_SPAN)? {
        Some(max) => Ok(max),
        None if c.positions()? <= Disentangled::MAX_SPAN => c.positions(),
        None => Err(c.wrong(
            "max_relative_positions",
            format_args!("at most {}", Disentangled::MAX_SPAN),
        )),
    }
}

/// A whole number up to `most`, if the field is there and positive.
pub fn positive(c: &Config, field: &str, most: u32) -> Result<Option<u32>> {
    let expected = format!("a whole number from -1 to {most}");
    match c.optional_real(field, -1.0..=f64::from(most))? {
        None => Ok(None),
        Some(x) if x.fract() != 0.0 => Err(c.wrong(field, expected)),
        Some(x) => Ok(Some(x as u32).filter(|_| x >= 1.0)),
    }
}
