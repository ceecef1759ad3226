//! The heads that families of encoders share: which one a class of transformers has, under the family's names.
//!
//! Labels of tokens are always a layer called `classifier`, spans one called `qa_outputs`.

use llmc_ir::ops::ActKind;

use super::{Request, Task};
use crate::blocks::{MaskedLm, TaskHead};
use crate::error::Result;
use crate::labels::Labels;

/// What a family calls the parts of its heads.
pub struct HeadNames {
    /// Of its masked language model.
    pub masked_lm: MaskedLm,
    /// Of its classifier of sequences: the layer on the first token, what follows it, and the last layer.
    pub sequence: (&'static str, ActKind, &'static str),
}

/// The head that is asked for, if one is.
pub fn head(request: &Request, names: HeadNames) -> Result<Option<TaskHead>> {
    let c = request.config;
    let labels = || Labels::of(c).map(|labels| labels.names.len() as u32);
    Ok(match request.task {
        Task::Base | Task::CausalLm | Task::ImageClassification => None,
        Task::MaskedLm => Some(TaskHead::MaskedLm(MaskedLm {
            tied: c.flag_or("tie_word_embeddings", true)?,
            ..names.masked_lm
        })),
        Task::SequenceClassification => {
            let (dense, act, out) = names.sequence;
            Some(TaskHead::Sequence {
                dense: (dense, act),
                out,
                labels: labels()?,
            })
        }
        Task::TokenClassification => Some(TaskHead::Tokens {
            out: "classifier",
            labels: labels()?,
        }),
        Task::QuestionAnswering => match labels()? {
            2 => Some(TaskHead::Span { out: "qa_outputs" }),
            found => {
                let what =
                    format!("found {found} labels, expected 2: where an answer starts and ends");
                return Err(c.problem("id2label", what).input());
            }
        },
    })
}
