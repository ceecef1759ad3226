//! XLM-RoBERTa: RoBERTa over a hundred languages, with another tokenizer.
//!
//! Conneau et al., *Unsupervised Cross-lingual Representation Learning at Scale* (arXiv:1911.02116).

use super::{Family, Task, roberta};

pub const FAMILY: Family = Family {
    name: "xlm-roberta",
    architectures: &[
        ("XLMRobertaModel", Task::Base),
        ("XLMRobertaForMaskedLM", Task::MaskedLm),
        ("XLMRobertaForQuestionAnswering", Task::QuestionAnswering),
        ("XLMRobertaForSequenceClassification", Task::SequenceClassification),
        ("XLMRobertaForTokenClassification", Task::TokenClassification),
    ],
    prefix: "roberta.",
    build: roberta::build,
};
