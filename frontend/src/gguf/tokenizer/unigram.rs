//! `t5`: Unigram, the likeliest way to cut a text into tokens.
//!
//! In: tokens with scores, the table that normalises texts. Out: what T5's own `tokenizer.json` has.
//!
//! T5's sentinels are no pieces of its SentencePiece model, so that the converter leaves their rows unused: they get
//! their names here. Other rows that are unused between tokens hold a space, which no piece of a text does. Neither
//! has a score: the least one tells how unlikely an unknown character is.

use serde_json::{Value, json};

use super::parts::{self, Around, Parts};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;
use crate::tokenizer::charsmap;

/// The table that normalises texts.
pub const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const SQUEEZE: &str = "tokenizer.ggml.remove_extra_whitespaces";
const BEGIN: &str = "tokenizer.ggml.add_bos_token";
/// How T5's sentinels begin, and how many there are.
const SENTINEL: &str = "<extra_id_";
const SENTINELS: u32 = 100;

/// The `tokenizer.json`.
pub fn write(tokens: &mut Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    tokens.check_scores()?;
    let prefix = metadata.optional_flag(PREFIX)?.unwrap_or(true);
    let squeeze = metadata.optional_flag(SQUEEZE)?.unwrap_or(false);
    if squeeze && !prefix {
        let supported = "true where extra whitespaces are removed";
        return Err(metadata.refuse(PREFIX, supported));
    }
    name_sentinels(tokens);
    let end = tokens.used().last().map_or(0, |(id, _)| id + 1);
    for id in 0..end {
        match tokens.ty(id) {
            TokenType::Unused => tokens.set(id, format!(" {id}"), TokenType::Normal),
            ty @ TokenType::UserDefined => tokens.set(id, tokens.text(id), ty),
            _ => {}
        }
    }
    tokens.index(|id| tokens.text(id))?;
    let around = Around::read(tokens, (false, true))?;
    if around.begin.is_some() {
        return Err(metadata.refuse(BEGIN, "false"));
    }
    let Some(unknown) = tokens.unknown()? else {
        let expected = "the id of the unknown token";
        return Err(metadata.wrong("tokenizer.ggml.unknown_token_id", expected));
    };
    let pieces = (0..end).map(|id| json!([tokens.token(id), tokens.score(id)]));
    let is_byte = |(_, ty): (u32, TokenType)| ty == TokenType::Byte;
    let model = json!({
        "type": "Unigram",
        "unk_id": unknown,
        "vocab": pieces.collect::<Vec<Value>>(),
        "byte_fallback": tokens.used().any(is_byte),
    });
    let spaces = json!({
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": if prefix { "always" } else { "never" },
        "split": true,
    });
    let charsmap = metadata.optional_bytes(CHARSMAP)?;
    if let Some(Err(what)) = charsmap.map(charsmap::check) {
        return Err(metadata.problem(CHARSMAP, what).input());
    }
    let normalizer = charsmap
        .map(|map| json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(map)}));
    let parts = Parts {
        normalizer: normalizer.unwrap_or(Value::Null),
        pre_tokenizer: match squeeze {
            true => {
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]})
            }
            false => spaces.clone(),
        },
        post_processor: around.template(0).unwrap_or(Value::Null),
        decoder: spaces,
    };
    Ok(parts::file(tokens, |id| tokens.text(id), parts, model))
}

/// Names the sentinels where their rows are unused: T5's, behind the pieces. They are special wherever they stand.
fn name_sentinels(tokens: &mut Vocabulary) {
    // mT5 has them as pieces, behind the mark of a space.
    let is_sentinel = |id: &u32| tokens.token(*id).contains(SENTINEL);
    let named: Vec<u32> = tokens
        .used()
        .map(|(id, _)| id)
        .filter(is_sentinel)
        .collect();
    for id in &named {
        if tokens.token(*id).starts_with(SENTINEL) {
            tokens.set(*id, tokens.text(*id), TokenType::Control);
        }
    }
    let has = |text: &str| tokens.used().any(|(id, _)| tokens.token(id) == text);
    if !named.is_empty() || !has("</s>") || !has("<pad>") || has("<s>") {
        return;
    }
    let pieces = tokens
        .used()
        .filter(|(_, ty)| *ty != TokenType::UserDefined);
    let first = pieces.last().map_or(0, |(id, _)| id + 1);
    let unused = (first..tokens.size()).take_while(|id| tokens.ty(*id) == TokenType::Unused);
    let count = (unused.count() as u32).min(SENTINELS);
    for (id, n) in (first..).zip((0..count).rev()) {
        tokens.set(id, format!("{SENTINEL}{n}>"), TokenType::Control);
    }
}
