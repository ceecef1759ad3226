//! `vocab.txt`: WordPiece, a token a line, the line's number its id.

use std::path::Path;

use serde_json::json;

use super::Settings;
use super::draft::{Draft, Frame, Vocabulary, missing};
use super::kind::Kind;
use crate::error::{Problem, Result};
use crate::json::{Json, Limits, read_bounded};

/// Characters of a word; longer ones are unknown.
const WORD: u32 = 100;

/// Reads the file.
pub fn write(file: &Path, settings: &Settings<'_>, kind: Kind) -> Result<Draft> {
    let bytes = read_bounded(file, Limits::TOKENIZER.bytes)?;
    let text =
        String::from_utf8(bytes).map_err(|_| Problem::of(file, "not valid UTF-8").input())?;
    let mut vocabulary = Vocabulary::default();
    let text = text.strip_suffix('\n').unwrap_or(&text);
    for (line, id) in text.split('\n').zip(0u32..) {
        let token = line.strip_suffix('\r').unwrap_or(line);
        let added = vocabulary.add(token, id);
        added.map_err(|what| Problem::of(file, format!("line {}: {what}", id + 1)).input())?;
    }
    let unk = role(settings, kind, "unk")?;
    let (cls, sep) = (role(settings, kind, "cls")?, role(settings, kind, "sep")?);
    for token in [&unk, &cls, &sep] {
        if vocabulary.id(token).is_none() {
            return Err(missing(file, token));
        }
    }
    if !settings.flag("do_basic_tokenize", true)? {
        let config = settings
            .config
            .map(|c| c.refuse("do_basic_tokenize", "true"));
        return Err(config.unwrap_or_else(|| missing(file, "do_basic_tokenize")));
    }
    let strip_accents = settings.config.and_then(|c| c.get("strip_accents"));
    let strip_accents = match strip_accents {
        None => json!(null),
        Some(Json::Bool(value)) => json!(value),
        Some(_) => {
            let wrong = settings
                .config
                .map(|c| c.wrong("strip_accents", "true or false"));
            return Err(wrong.unwrap_or_else(|| missing(file, "strip_accents")));
        }
    };
    Ok(Draft {
        kind: Some(kind),
        apart: Vec::new(),
        normalizer: json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars", true)?,
            "strip_accents": strip_accents,
            "lowercase": settings.flag("do_lower_case", true)?,
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: json!({
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": WORD,
            "vocab": vocabulary.to_json(),
        }),
        frame: match kind {
            Kind::MpNet => Frame::Roberta {
                cls,
                sep,
                trim_offsets: true,
            },
            _ => Frame::bert(&cls, &sep),
        },
        vocabulary,
    })
}

/// The token of a role: what the folder says, else the kind's.
pub fn role(settings: &Settings<'_>, kind: Kind, role: &str) -> Result<String> {
    let field = format!("{role}_token");
    let configs = [settings.config, settings.map.as_ref()];
    for config in configs.into_iter().flatten() {
        let text = match config.get(&field) {
            None => continue,
            Some(Json::String(text)) => Some(text.as_str()),
            Some(Json::Object(members)) => members.get("content").and_then(Json::as_str),
            Some(_) => None,
        };
        let wrong = || config.wrong(&field, "a string, or an object with a string `content`");
        return text.map(str::to_owned).ok_or_else(wrong);
    }
    let default = kind.roles().iter().find(|(other, _)| *other == role);
    Ok(default.map_or(String::new(), |(_, text)| (*text).to_owned()))
}
