//! Which kind of tokenizer a folder holds, and what its special tokens are called unless the folder says otherwise.
//!
//! In: `tokenizer_class` and `model_type`. Out: a [`Kind`].
//!
//! Not here: what a kind does with texts.

use std::path::Path;

use super::Settings;
use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};

/// A kind of tokenizer: one row for each way to cut, normalise and frame texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Albert,
    Bert,
    Clip,
    DebertaV1,
    DebertaV2,
    Gemma,
    Gpt1,
    Gpt2,
    Llama,
    MpNet,
    Qwen2,
    Roberta,
    T5,
}

/// Kinds by the tokenizer's class, without `Fast`.
const CLASSES: [(&str, Kind); 15] = [
    ("AlbertTokenizer", Kind::Albert),
    ("BertTokenizer", Kind::Bert),
    ("CLIPTokenizer", Kind::Clip),
    ("DebertaTokenizer", Kind::DebertaV1),
    ("DebertaV2Tokenizer", Kind::DebertaV2),
    ("DistilBertTokenizer", Kind::Bert),
    ("GPT2Tokenizer", Kind::Gpt2),
    ("GemmaTokenizer", Kind::Gemma),
    ("LlamaTokenizer", Kind::Llama),
    ("MPNetTokenizer", Kind::MpNet),
    ("OpenAIGPTTokenizer", Kind::Gpt1),
    ("Qwen2Tokenizer", Kind::Qwen2),
    ("RobertaTokenizer", Kind::Roberta),
    ("T5Tokenizer", Kind::T5),
    ("CodeLlamaTokenizer", Kind::Llama),
];

/// Kinds by the model's type, for folders that name no class.
const MODEL_TYPES: [(&str, Kind); 22] = [
    ("albert", Kind::Albert),
    ("bert", Kind::Bert),
    ("clip", Kind::Clip),
    ("deberta", Kind::DebertaV1),
    ("deberta-v2", Kind::DebertaV2),
    ("distilbert", Kind::Bert),
    ("gemma", Kind::Gemma),
    ("gemma2", Kind::Gemma),
    ("gemma3_text", Kind::Gemma),
    ("gpt2", Kind::Gpt2),
    ("gpt_neo", Kind::Gpt2),
    ("llama", Kind::Llama),
    ("mistral", Kind::Llama),
    ("mixtral", Kind::Llama),
    ("mpnet", Kind::MpNet),
    ("openai-gpt", Kind::Gpt1),
    ("opt", Kind::Gpt2),
    ("phi3", Kind::Llama),
    ("qwen2", Kind::Qwen2),
    ("qwen3", Kind::Qwen2),
    ("roberta", Kind::Roberta),
    ("t5", Kind::T5),
];

/// Classes that say nothing of the kind.
const GENERIC: [&str; 3] = ["PreTrainedTokenizer", "PythonBackend", "TokenizersBackend"];

impl Kind {
    /// What the folder says; none where it says nothing. A class that is not known is an error.
    pub fn named(settings: &Settings<'_>) -> Result<Option<Self>> {
        let known = |table: &[(&str, Kind)], name: &str| {
            let row = table.iter().find(|(other, _)| *other == name);
            row.map(|(_, kind)| *kind)
        };
        let class = |config: &Config| -> Result<Option<Kind>> {
            let field = "tokenizer_class";
            let Some(name) = config.optional_text(field)? else {
                return Ok(None);
            };
            let bare = name.strip_suffix("Fast").unwrap_or(name);
            if GENERIC.contains(&bare) {
                return Ok(None);
            }
            let names: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
            let kind = known(&CLASSES, bare).ok_or_else(|| {
                let help = "load it with transformers' AutoTokenizer and save it, which writes tokenizer.json";
                let what = format!(
                    "found \"{}\", without a tokenizer.json supported are {}",
                    Excerpt(name),
                    names.join(", ")
                );
                config.problem(field, what).help(help).unsupported()
            })?;
            Ok(Some(kind))
        };
        for config in [settings.config, settings.model.as_ref()]
            .into_iter()
            .flatten()
        {
            if let Some(kind) = class(config)? {
                return Ok(Some(kind));
            }
        }
        let Some(model) = &settings.model else {
            return Ok(None);
        };
        let name = model.optional_text("model_type")?;
        Ok(name.and_then(|name| known(&MODEL_TYPES, name)))
    }

    /// The kind of a `vocab.txt`: BERT's unless the folder says otherwise.
    pub fn of_words(file: &Path, settings: &Settings<'_>) -> Result<Self> {
        let kind = Self::named(settings)?.unwrap_or(Self::Bert);
        kind.among(&[Self::Bert, Self::MpNet], file)
    }

    /// The kind of a `vocab.json` with `merges.txt`.
    pub fn of_merges(file: &Path, settings: &Settings<'_>) -> Result<Self> {
        let Some(kind) = Self::named(settings)? else {
            return Err(unknown(file));
        };
        let kinds = [
            Self::Clip,
            Self::DebertaV1,
            Self::Gpt1,
            Self::Gpt2,
            Self::Qwen2,
            Self::Roberta,
        ];
        kind.among(&kinds, file)
    }

    /// This kind, if it is one of those that keep their vocabulary in such a file.
    pub fn among(self, kinds: &[Self], file: &Path) -> Result<Self> {
        match kinds.contains(&self) {
            true => Ok(self),
            false => {
                let what = format!("a tokenizer of the kind {self:?} has no such file");
                Err(Problem::of(file, what).input())
            }
        }
    }

    /// Roles and their tokens, in the order in which tokens that the vocabulary lacks get ids.
    pub fn roles(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Albert => &[
                ("bos", "[CLS]"),
                ("eos", "[SEP]"),
                ("unk", "<unk>"),
                ("sep", "[SEP]"),
                ("pad", "<pad>"),
                ("cls", "[CLS]"),
                ("mask", "[MASK]"),
            ],
            Self::DebertaV1 | Self::DebertaV2 => &[
                ("bos", "[CLS]"),
                ("eos", "[SEP]"),
                ("unk", "[UNK]"),
                ("sep", "[SEP]"),
                ("pad", "[PAD]"),
                ("cls", "[CLS]"),
                ("mask", "[MASK]"),
            ],
            Self::Bert => &[
                ("unk", "[UNK]"),
                ("sep", "[SEP]"),
                ("pad", "[PAD]"),
                ("cls", "[CLS]"),
                ("mask", "[MASK]"),
            ],
            Self::Clip => &[
                ("bos", "<|startoftext|>"),
                ("eos", "<|endoftext|>"),
                ("unk", "<|endoftext|>"),
                ("pad", "<|endoftext|>"),
            ],
            Self::Gemma => &[
                ("bos", "<bos>"),
                ("eos", "<eos>"),
                ("unk", "<unk>"),
                ("pad", "<pad>"),
            ],
            Self::Gpt1 => &[("unk", "<unk>")],
            Self::Gpt2 => &[
                ("bos", "<|endoftext|>"),
                ("eos", "<|endoftext|>"),
                ("unk", "<|endoftext|>"),
            ],
            Self::Llama => &[("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")],
            Self::MpNet => &[
                ("bos", "<s>"),
                ("eos", "</s>"),
                ("unk", "[UNK]"),
                ("sep", "</s>"),
                ("pad", "<pad>"),
                ("cls", "<s>"),
                ("mask", "<mask>"),
            ],
            Self::Qwen2 => &[
                ("eos", "<|endoftext|>"),
                ("unk", "<|endoftext|>"),
                ("pad", "<|endoftext|>"),
            ],
            Self::Roberta => &[
                ("bos", "<s>"),
                ("eos", "</s>"),
                ("unk", "<unk>"),
                ("sep", "</s>"),
                ("pad", "<pad>"),
                ("cls", "<s>"),
                ("mask", "<mask>"),
            ],
            Self::T5 => &[("eos", "</s>"), ("unk", "<unk>"), ("pad", "<pad>")],
        }
    }

    /// Whether the mask takes the space before it.
    pub fn mask_takes_space(self) -> bool {
        matches!(
            self,
            Self::Albert | Self::DebertaV1 | Self::MpNet | Self::Roberta
        )
    }
}

/// The error of files that do not say what they are.
pub fn unknown(file: &Path) -> crate::error::FrontendError {
    Problem::of(
        file,
        "neither tokenizer_config.json nor config.json says what kind of tokenizer it is",
    )
    .help("set `tokenizer_class` in tokenizer_config.json: GPT2Tokenizer, RobertaTokenizer, …")
    .input()
}
