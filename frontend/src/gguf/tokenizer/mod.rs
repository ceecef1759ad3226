//! The tokenizer of a GGUF file as a `tokenizer.json`.
//!
//! In: `tokenizer.ggml.*`. Out: a [`Tokenizer`] that is checked as one from a file is.
//!
//! Invariants: a key that is not understood is refused by name; a text gets the ids that the model's own
//! `tokenizer.json` gives it.
//!
//! Reading order: [`vocabulary`] reads tokens and their types; [`byte_level`], [`sentence_piece`], [`unigram`] and
//! [`word_piece`] write the file for their kind; [`parts`] is what they share.
//!
//! Not here: other models, which are refused by name.

mod byte_level;
mod parts;
mod pre_tokenizers;
mod sentence_piece;
mod unigram;
mod vocabulary;
mod word_piece;

pub use vocabulary::Vocabulary;

use super::Gguf;
use super::metadata::Metadata;
use crate::error::Result;
use crate::tokenizer::{ChatTemplate, Special, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const TEMPLATE: &str = "tokenizer.chat_template";
const TEMPLATES: &str = "tokenizer.chat_templates";
const NAMED_TEMPLATES: usize = 64;

/// Roles and the keys of their ids.
const ROLES: [(&str, &str); 7] = [
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("cls", "tokenizer.ggml.cls_token_id"),
    // As the specification spells it.
    ("sep", "tokenizer.ggml.seperator_token_id"),
    ("mask", "tokenizer.ggml.mask_token_id"),
];

/// Keys that are read here or by the parts, and those that change no tokens.
const KEYS: [&str; 36] = [
    "tokenizer.chat_template",
    "tokenizer.chat_templates",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.ggml.model",
    "tokenizer.ggml.normalizer.lowercase",
    "tokenizer.ggml.normalizer.strip_accents",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.precompiled_charsmap",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.remove_extra_whitespaces",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.huggingface.json",
];

impl Tokenizer {
    /// The tokenizer of a GGUF file, if it has one. `vocabulary` is the model's, where there is a model.
    pub fn of_gguf(gguf: &Gguf, vocabulary: Option<u32>) -> Result<Option<Self>> {
        let metadata = gguf.metadata();
        check_keys(metadata)?;
        let Some(mut tokens) = Vocabulary::read(metadata)? else {
            return Ok(None);
        };
        tokens.check_size(vocabulary)?;
        let model = metadata.text(MODEL)?;
        if model != "t5" && metadata.has(unigram::CHARSMAP) {
            return Err(metadata.refuse(unigram::CHARSMAP, "none beside pieces of the model t5"));
        }
        let json = match model {
            "bert" => word_piece::write(&tokens)?,
            "gpt2" => byte_level::write(&tokens)?,
            "llama" => sentence_piece::write(&tokens)?,
            "t5" => unigram::write(&mut tokens)?,
            _ => return Err(metadata.refuse(MODEL, "\"bert\", \"gpt2\", \"llama\" or \"t5\"")),
        };
        let mut tokenizer = Self::of_json(gguf.path(), json.to_string().into_bytes(), vocabulary)?;
        tokenizer.special = specials(&tokens)?;
        tokenizer.templates = templates(metadata)?;
        tokenizer.clean_up_spaces = model == "bert";
        Ok(Some(tokenizer))
    }
}

fn check_keys(metadata: &Metadata) -> Result<()> {
    let is_known = |key: &str| {
        let named_template = key
            .strip_prefix(TEMPLATE)
            .is_some_and(|rest| rest.starts_with('.'));
        !key.starts_with("tokenizer.") || KEYS.contains(&key) || named_template
    };
    match metadata.keys().find(|key| !is_known(key)) {
        None => Ok(()),
        Some(key) => {
            let what = "a key of the tokenizer that is not understood";
            let help = "give a tokenizer.json with --tokenizer";
            Err(metadata.problem(key, what).help(help).unsupported())
        }
    }
}

fn specials(tokens: &Vocabulary) -> Result<Vec<Special>> {
    let mut special = Vec::new();
    for (role, key) in ROLES {
        let id = match role {
            "pad" => tokens.pad(key)?,
            _ => tokens.id(key)?,
        };
        if let Some(id) = id {
            let text = tokens.text(id);
            special.push(Special {
                role,
                text,
                id: Some(id),
            });
        }
    }
    Ok(special)
}

/// The default template first.
fn templates(metadata: &Metadata) -> Result<Vec<ChatTemplate>> {
    let mut templates = Vec::new();
    let names = metadata.optional_texts(TEMPLATES)?.unwrap_or_default();
    if names.len() > NAMED_TEMPLATES {
        return Err(metadata.wrong(TEMPLATES, format_args!("at most {NAMED_TEMPLATES} names")));
    }
    let named = names
        .iter()
        .filter(|name| **name != "default")
        .map(|name| (*name, format!("{TEMPLATE}.{name}")));
    for (name, key) in std::iter::once(("default", TEMPLATE.to_owned())).chain(named) {
        let source = match metadata.optional_text(&key)? {
            None if name == "default" => continue,
            None => {
                return Err(metadata.wrong(&key, "a template, as tokenizer.chat_templates says"));
            }
            Some(source) => source,
        };
        let template = ChatTemplate::new(name, source);
        let template = template.map_err(|what| metadata.problem(&key, what).input())?;
        if templates
            .iter()
            .any(|other: &ChatTemplate| other.name == template.name)
        {
            let what = format!("the name {name} occurs twice");
            return Err(metadata.problem(TEMPLATES, what).input());
        }
        templates.push(template);
    }
    Ok(templates)
}
