//! `llama`: SentencePiece's BPE, which merges the pair that makes the token of the highest score.
//!
//! In: tokens with scores. Out: BPE with merges in order (`piece_merges`).
//!
//! llama.cpp's converter writes the spaces of such tokens as spaces, where SentencePiece has `▁`.

use serde_json::{Value, json};

use super::parts::{self, Around, Parts};
use super::vocabulary::{TokenType, Vocabulary};
use crate::error::Result;
use crate::tokenizer::piece_merges::{self, Piece};

const TOKENS: &str = "tokenizer.ggml.tokens";

/// The `tokenizer.json`.
pub fn write(tokens: &Vocabulary) -> Result<Value> {
    let metadata = tokens.metadata;
    tokens.check_scores()?;
    let squeeze = "tokenizer.ggml.remove_extra_whitespaces";
    if metadata.optional_flag(squeeze)? == Some(true) {
        return Err(metadata.refuse(squeeze, "false"));
    }
    let prefix = metadata
        .optional_flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let unknown = tokens.unknown()?;
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
            .template(1)
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

fn merges(tokens: &Vocabulary) -> Result<Value> {
    let ids = tokens.index(|id| spelling(tokens, id))?;
    let piece = |(id, ty)| Piece {
        id,
        text: spelling(tokens, id),
        score: match ty {
            TokenType::UserDefined => f32::INFINITY,
            _ => tokens.score(id),
        },
    };
    let pieces: Vec<Piece> = tokens.used().map(piece).collect();
    piece_merges::merges(&pieces, &ids).map_err(|(id, what)| {
        let field = id.map_or(TOKENS.to_owned(), |id| format!("{TOKENS}[{id}]"));
        tokens.metadata.problem(&field, what).input()
    })
}
