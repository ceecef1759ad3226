//! RoBERTa, and what is built like it.
//!
//! Liu et al., *RoBERTa* (arXiv:1907.11692): BERT, whose positions count the tokens other than the pad token and
//! begin behind its id, and whose heads work on the first token themselves.

use llmc_ir::ops::ActKind;

use super::heads::{HeadNames, head};
use super::{Family, Request, Task, bert};
use crate::blocks::{Blueprint, Embeddings, Encoder, MaskedLm};
use crate::config::Config;
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "roberta",
    architectures: &[
        ("RobertaModel", Task::Base),
        ("RobertaForMaskedLM", Task::MaskedLm),
        ("RobertaForQuestionAnswering", Task::QuestionAnswering),
        ("RobertaForSequenceClassification", Task::SequenceClassification),
        ("RobertaForTokenClassification", Task::TokenClassification),
    ],
    prefix: "roberta.",
    build,
};

/// RoBERTa's blueprint, for families that differ in their names alone.
pub fn build(request: &Request) -> Result<Blueprint> {
    let c = request.config;
    bert::check(c)?;
    let pad = c.count_or("pad_token_id", 0..=c.vocab_size()? - 1, 1)?;
    Ok(Blueprint::Encoder(Box::new(Encoder {
        context: context(c, pad)?,
        positions_after_pad: Some(pad),
        embeddings: Embeddings { types: Some(bert::types(c, 2)?), ..bert::embeddings(c)? },
        head: head(request, heads(c)?)?,
        ..bert::encoder(request)?
    })))
}

/// The longest sequence: the first position is `pad` + 1.
pub fn context(c: &Config, pad: u32) -> Result<u32> {
    let first = pad.saturating_add(1);
    match c.positions()?.checked_sub(first).filter(|context| *context > 0) {
        Some(context) => Ok(context),
        None => {
            let expected = format!("more than {first}: positions begin at {first}");
            Err(c.wrong("max_position_embeddings", expected))
        }
    }
}

/// The heads' names. Their nonlinearities are fixed: GELU, tanh.
pub fn heads(c: &Config) -> Result<HeadNames> {
    Ok(HeadNames {
        masked_lm: MaskedLm {
            dense: ("lm_head.dense", ActKind::Gelu),
            norm: (bert::norm(c)?, "lm_head.layer_norm"),
            bias: "lm_head.bias",
            decoder: "lm_head.decoder",
            tied: true,
        },
        sequence: ("classifier.dense", ActKind::Tanh, "classifier.out_proj"),
    })
}
