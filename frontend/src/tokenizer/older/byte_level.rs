//! `vocab.json` with `merges.txt`: BPE, over bytes spelled as letters or (GPT-1) over characters.
//!
//! In: an object of tokens and ids; a merge a line, in order of rank. Out: the same as BPE of a `tokenizer.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::Settings;
use super::draft::{Draft, Frame, Vocabulary, byte_level, missing};
use super::kind::Kind;
use super::word_piece::role;
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Json, Limits, read_bounded};

/// How Qwen cuts texts: single digits, words with the sign before them.
pub const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// How CLIP does: what matches is a word, the rest is dropped.
const CLIP: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Reads both files.
pub fn write(file: &Path, settings: &Settings<'_>, kind: Kind) -> Result<Draft> {
    let vocabulary = vocabulary(file)?;
    let merges = merges(&file.with_file_name("merges.txt"), &vocabulary, kind)?;
    let bos = role(settings, kind, "bos")?;
    let eos = role(settings, kind, "eos")?;
    let (cls, sep) = (role(settings, kind, "cls")?, role(settings, kind, "sep")?);
    let unk = role(settings, kind, "unk")?;
    let prefix = settings.flag("add_prefix_space", false)?;
    let step = |prefix: bool, use_regex: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": prefix,
            "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let mut draft = Draft {
        kind: Some(kind),
        vocabulary,
        apart: Vec::new(),
        normalizer: Value::Null,
        pre_tokenizer: step(prefix, true),
        decoder: byte_level(true, true),
        model: Value::Null,
        frame: Frame::Offsets,
    };
    let (mut unknown, mut suffix) = (None, None);
    match kind {
        Kind::Gpt2 => {
            if settings.flag("add_bos_token", false)? {
                draft.frame = Frame::around(Some(&bos), None, 1);
            }
        }
        Kind::Roberta => {
            let trim_offsets = settings.flag("trim_offsets", true)?;
            draft.frame = Frame::Roberta {
                cls,
                sep,
                trim_offsets,
            };
        }
        Kind::DebertaV1 => draft.frame = Frame::bert(&cls, &sep),
        Kind::Qwen2 => {
            draft.normalizer = json!({"type": "NFC"});
            draft.pre_tokenizer = pieces(split(QWEN, "Isolated", false), step(prefix, false));
        }
        Kind::Clip => {
            let spaces = json!({"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "});
            let steps = json!([{"type": "NFC"}, spaces, {"type": "Lowercase"}]);
            draft.normalizer = json!({"type": "Sequence", "normalizers": steps});
            draft.pre_tokenizer = pieces(split(CLIP, "Removed", true), step(false, true));
            draft.frame = Frame::Roberta {
                cls: bos,
                sep: eos,
                trim_offsets: false,
            };
            (unknown, suffix) = (Some(unk), Some("</w>"));
        }
        Kind::Gpt1 => {
            if draft.vocabulary.id(&unk).is_none() {
                return Err(missing(file, &unk));
            }
            draft.normalizer = json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": true,
            });
            draft.pre_tokenizer = json!({"type": "BertPreTokenizer"});
            draft.decoder = json!({"type": "BPEDecoder", "suffix": "</w>"});
            draft.frame = Frame::Nothing;
            (unknown, suffix) = (Some(unk), Some("</w>"));
        }
        Kind::Albert
        | Kind::Bert
        | Kind::DebertaV2
        | Kind::Gemma
        | Kind::Llama
        | Kind::MpNet
        | Kind::T5 => return Err(super::kind::unknown(file)),
    }
    draft.model = model(&draft.vocabulary, merges, unknown, suffix, false);
    Ok(draft)
}

/// A pattern as a pre-tokenizer.
pub fn split(pattern: &str, behavior: &str, invert: bool) -> Value {
    json!({
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": behavior,
        "invert": invert,
    })
}

/// One pre-tokenizer after the other.
pub fn pieces(first: Value, second: Value) -> Value {
    json!({"type": "Sequence", "pretokenizers": [first, second]})
}

/// BPE.
pub fn model(
    vocabulary: &Vocabulary,
    merges: Value,
    unknown: Option<String>,
    suffix: Option<&str>,
    ignore_merges: bool,
) -> Value {
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": suffix,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": ignore_merges,
        "vocab": vocabulary.to_json(),
        "merges": merges,
    })
}

fn vocabulary(file: &Path) -> Result<Vocabulary> {
    let root = Json::read(file, Limits::TOKENIZER)?;
    let Some(members) = root.as_object() else {
        let what = format!(
            "found {}, expected an object of tokens and ids",
            root.describe()
        );
        return Err(Problem::of(file, what).input());
    };
    let mut vocabulary = Vocabulary::default();
    for (text, value) in members.iter() {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| {
            let what = format!("found {}, expected an id", value.describe());
            Problem::of(file, what).field(text).input()
        })?;
        let added = vocabulary.add(text, id);
        added.map_err(|what| Problem::of(file, what).input())?;
    }
    match vocabulary.end() {
        0 => Err(Problem::of(file, "no tokens").input()),
        _ => Ok(vocabulary),
    }
}

fn merges(file: &Path, vocabulary: &Vocabulary, kind: Kind) -> Result<Value> {
    let bytes = read_bounded(file, Limits::TOKENIZER.bytes)?;
    let text =
        String::from_utf8(bytes).map_err(|_| Problem::of(file, "not valid UTF-8").input())?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if number == 0 && line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let pair = line.split_once(' ').filter(|(left, right)| {
            let whole = format!("{left}{right}");
            let parts = [*left, *right, whole.as_str()];
            parts.iter().all(|part| vocabulary.id(part).is_some())
        });
        let Some((left, right)) = pair else {
            // CLIP's file goes on behind the merges that its vocabulary knows.
            if kind == Kind::Clip {
                break;
            }
            let what = format!(
                "line {}: found \"{}\", expected two tokens that make a third, and a space between them",
                number + 1,
                Excerpt(line)
            );
            return Err(Problem::of(file, what).input());
        };
        merges.push(json!([left, right]));
    }
    Ok(Value::Array(merges))
}
