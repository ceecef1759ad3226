//! What the `tokenizer.json` of every kind is made of.

use serde_json::{Map, Value, json};

use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;

/// The parts around a model.
pub struct Parts {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub post_processor: Value,
    pub decoder: Value,
}

/// The whole file. `text` says how a token is spelled.
pub fn file(
    tokens: &Vocabulary,
    text: impl Fn(u32) -> String,
    parts: Parts,
    model: Value,
) -> Value {
    let added: Vec<Value> = tokens
        .added()
        .map(|(id, _)| {
            json!({
                "id": id,
                "content": text(id),
                "single_word": false,
                "lstrip": false,
                "rstrip": false,
                "normalized": false,
                "special": tokens.ty(id) != TokenType::UserDefined,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": parts.post_processor,
        "decoder": parts.decoder,
        "model": model,
    })
}

/// Tokens and ids, in the order of the ids.
pub fn vocab(tokens: &Vocabulary, text: impl Fn(u32) -> String) -> Value {
    let entries = tokens.used().map(|(id, _)| (text(id), Value::from(id)));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// The tokens put around every text.
pub struct Around {
    /// Text and id of the first token.
    pub begin: Option<(String, u32)>,
    /// Text and id of the last one.
    pub end: Option<(String, u32)>,
}

impl Around {
    /// Reads `add_bos_token` and `add_eos_token`; `defaults` are what absent keys mean.
    pub fn read(tokens: &Vocabulary, defaults: (bool, bool)) -> Result<Self> {
        let token = |flag: &str, default: bool, key: &str| {
            let flag = format!("tokenizer.ggml.{flag}");
            if !tokens.metadata.optional_flag(&flag)?.unwrap_or(default) {
                return Ok(None);
            }
            match tokens.id(key)? {
                Some(id) => Ok(Some((tokens.text(id), id))),
                None => Err(tokens.metadata.wrong(key, "the id of the token to add")),
            }
        };
        Ok(Self {
            begin: token("add_bos_token", defaults.0, "tokenizer.ggml.bos_token_id")?,
            end: token("add_eos_token", defaults.1, "tokenizer.ggml.eos_token_id")?,
        })
    }

    /// The post-processor that adds them; none if there are none. The second text of a pair has this type.
    pub fn template(&self, second: u32) -> Option<Value> {
        if self.begin.is_none() && self.end.is_none() {
            return None;
        }
        let special = |token: &Option<(String, u32)>, ty: u32| {
            let token = token.as_ref();
            token.map(|(text, _)| json!({"SpecialToken": {"id": text, "type_id": ty}}))
        };
        let one = |name: &str, ty: u32| {
            let text = json!({"Sequence": {"id": name, "type_id": ty}});
            let parts = [special(&self.begin, ty), Some(text), special(&self.end, ty)];
            parts.into_iter().flatten().collect::<Vec<Value>>()
        };
        let tokens = [&self.begin, &self.end].into_iter().flatten();
        let tokens: Map<String, Value> = tokens
            .map(|(text, id)| {
                (
                    text.clone(),
                    json!({"id": text, "ids": [id], "tokens": [text]}),
                )
            })
            .collect();
        let pair = [one("A", 0), one("B", second)].concat();
        Some(json!({
            "type": "TemplateProcessing",
            "single": one("A", 0),
            "pair": pair,
            "special_tokens": tokens,
        }))
    }
}
