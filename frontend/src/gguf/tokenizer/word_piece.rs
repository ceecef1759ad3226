//! `bert`: WordPiece.
//!
//! llama.cpp writes tokens that begin a word with `▁` and those that go on without `##`, which is undone here.
//! Whether letters keep their case most files do not say: a vocabulary without capital letters is one of
//! lower-cased texts.

use serde_json::{Value, json};

use super::parts::{self, Parts};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;

/// The `tokenizer.json`.
pub fn write(tokens: &Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    let text = |id: u32| spelling(tokens, id);
    let ids = tokens.index(text)?;
    let unknown = token(tokens, &ids, ["unknown", "unknown"], "[UNK]")?;
    let begin = token(tokens, &ids, ["cls", "bos"], "[CLS]")?;
    let end = token(tokens, &ids, ["seperator", "eos"], "[SEP]")?;
    let is_upper = |(id, ty): (u32, TokenType)| {
        ty == TokenType::Normal && tokens.token(id).chars().any(char::is_uppercase)
    };
    let lowercase = match metadata.optional_flag("tokenizer.ggml.normalizer.lowercase")? {
        Some(lowercase) => lowercase,
        None => !tokens.used().any(is_upper),
    };
    // Absent, accents go where capital letters go.
    let strip_accents = metadata.optional_flag("tokenizer.ggml.normalizer.strip_accents")?;
    let special =
        |(text, _): &(String, u32), ty: u32| json!({"SpecialToken": {"id": text, "type_id": ty}});
    let sequence = |name: &str, ty: u32| json!({"Sequence": {"id": name, "type_id": ty}});
    let first = [special(&begin, 0), sequence("A", 0), special(&end, 0)];
    let second = [sequence("B", 1), special(&end, 1)];
    let named = |(text, id): &(String, u32)| json!({"id": text, "ids": [id], "tokens": [text]});
    let parts = Parts {
        normalizer: json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": true,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        post_processor: json!({
            "type": "TemplateProcessing",
            "single": first,
            "pair": first.iter().chain(&second).collect::<Vec<_>>(),
            "special_tokens": {begin.0.clone(): named(&begin), end.0.clone(): named(&end)},
        }),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
    };
    let model = json!({
        "type": "WordPiece",
        "unk_token": unknown.0,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": parts::vocab(tokens, text),
    });
    Ok(parts::file(tokens, text, parts, model))
}

/// A token as BERT's vocabulary spells it.
fn spelling(tokens: &Vocabulary, id: u32) -> String {
    let text = tokens.token(id);
    let is_bracketed = text.starts_with('[') && text.ends_with(']') && text.len() > 2;
    match (tokens.ty(id), text.strip_prefix('▁')) {
        (TokenType::Normal, Some(word)) => word.to_owned(),
        // Early converters left these alone.
        (TokenType::Normal, None) if !is_bracketed => format!("##{text}"),
        _ => text.to_owned(),
    }
}

/// A token by the first of its keys that is there, else by its usual text.
fn token(
    tokens: &Vocabulary,
    ids: &std::collections::HashMap<String, u32>,
    keys: [&str; 2],
    usual: &str,
) -> Result<(String, u32)> {
    let key = |name: &str| format!("tokenizer.ggml.{name}_token_id");
    for name in keys {
        if let Some(id) = tokens.id(&key(name))? {
            return Ok((spelling(tokens, id), id));
        }
    }
    match ids.get(usual) {
        Some(id) => Ok((usual.to_owned(), *id)),
        None => {
            let expected = format!("a token's id, or a token {usual}");
            Err(tokens.metadata.wrong(&key(keys[0]), expected))
        }
    }
}
