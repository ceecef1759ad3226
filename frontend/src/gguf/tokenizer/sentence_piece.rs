//! `llama`: SentencePiece's BPE, which merges the pair that makes the token of the highest score.
//!
//! In: tokens with scores. Out: BPE with merges in order, as Hugging Face's converter of SentencePiece models finds
//! them: every way to cut a token into two tokens is a merge; merges are sorted by the score of the whole, then by
//! the length of the left and of the right part, all descending.
//!
//! User-defined tokens come first, as in SentencePiece, which cuts them out before anything else. llama.cpp's
//! converter writes the spaces of such tokens as spaces, where SentencePiece has `▁`.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::parts::{self, Around, Parts};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;

const SCORES: &str = "tokenizer.ggml.scores";
const TOKENS: &str = "tokenizer.ggml.tokens";
/// Gemma has 580 thousand.
const MERGES: usize = 4 << 20;
/// Bytes of one token: every cut is looked up.
const LENGTH: usize = 512;

/// The `tokenizer.json`.
pub fn write(tokens: &Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    if !tokens.has_scores() {
        return Err(metadata.wrong(SCORES, "a number for each token"));
    }
    let squeeze = "tokenizer.ggml.remove_extra_whitespaces";
    if metadata.optional_flag(squeeze)? == Some(true) {
        return Err(metadata.refuse(squeeze, "false"));
    }
    let prefix = metadata
        .optional_flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = match tokens.id("tokenizer.ggml.unknown_token_id")? {
        Some(id) => Some(id),
        None => tokens
            .used()
            .find(|(_, ty)| *ty == TokenType::Unknown)
            .map(|(id, _)| id),
    };
    let text = |id: u32| spelling(tokens, id);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let parts = Parts {
        normalizer: match prefix {
            true => {
                let prepend = json!({"type": "Prepend", "prepend": "▁"});
                json!({"type": "Sequence", "normalizers": [prepend, spaces]})
            }
            false => spaces,
        },
        pre_tokenizer: match prefix {
            true => Value::Null,
            false => json!({
                "type": "Split",
                "pattern": {"String": " "},
                "behavior": "MergedWithPrevious",
                "invert": false,
            }),
        },
        post_processor: Around::read(tokens, (true, false))?
            .template()
            .unwrap_or(Value::Null),
        decoder: json!({"type": "Sequence", "decoders": decoders}),
    };
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown.map(text),
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": true,
        "byte_fallback": true,
        "ignore_merges": false,
        "vocab": parts::vocab(tokens, text),
        "merges": merges(tokens)?,
    });
    Ok(parts::file(tokens, text, parts, model))
}

/// A token as SentencePiece has it.
fn spelling(tokens: &Vocabulary, id: u32) -> String {
    let text = tokens.token(id);
    let is_spaces = !text.is_empty() && text.bytes().all(|byte| byte == b' ');
    match is_spaces && tokens.ty(id) == TokenType::UserDefined {
        true => text.replace(' ', "▁"),
        false => text.to_owned(),
    }
}

/// Two tokens, and what decides when they are merged.
struct Merge {
    score: f32,
    /// Characters of the left and the right part.
    lengths: (usize, usize),
    /// Ids of the parts.
    ids: (u32, u32),
    whole: u32,
}

fn merges(tokens: &Vocabulary) -> Result<Value> {
    let ids = tokens.index(|id| spelling(tokens, id))?;
    let mut merges: Vec<Merge> = Vec::new();
    let mut local = Vec::new();
    for (whole, ty) in tokens.used() {
        let text = spelling(tokens, whole);
        if text.len() > LENGTH {
            let what = format!("found {} bytes, expected at most {LENGTH}", text.len());
            return Err(tokens
                .metadata
                .problem(&format!("{TOKENS}[{whole}]"), what)
                .input());
        }
        let score = match ty {
            TokenType::UserDefined => f32::INFINITY,
            _ => tokens.score(whole),
        };
        let characters = text.chars().count();
        let cuts = text.char_indices().enumerate().skip(1);
        local.extend(cuts.filter_map(|(count, (at, _))| {
            let (left, right) = text.split_at(at);
            let ids = (*ids.get(left)?, *ids.get(right)?);
            let lengths = (count, characters - count);
            Some(Merge {
                score,
                lengths,
                ids,
                whole,
            })
        }));
        local.sort_by_key(|merge| merge.ids);
        merges.append(&mut local);
        if merges.len() > MERGES {
            let what = format!("tokens that can be cut into others in more than {MERGES} ways");
            return Err(tokens.metadata.problem(TOKENS, what).input());
        }
    }
    // Stable: equal ones stay in the order of the vocabulary.
    merges.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then(b.lengths.cmp(&a.lengths))
    });
    let pair = |merge: &Merge| {
        let text = spelling(tokens, merge.whole);
        let at = text
            .char_indices()
            .nth(merge.lengths.0)
            .map_or(text.len(), |(at, _)| at);
        let (left, right) = text.split_at(at);
        json!([left, right])
    };
    Ok(merges.iter().map(pair).collect())
}
