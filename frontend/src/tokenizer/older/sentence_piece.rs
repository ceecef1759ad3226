//! A SentencePiece model: `tokenizer.model`, `spiece.model`, `spm.model`.
//!
//! In: the protocol buffer: pieces with scores and types, how it was trained, how it normalises. Out: BPE with merges
//! found from the scores (Llama, Gemma), or Unigram (T5, ALBERT, DeBERTa v2 and v3), with the steps around it that
//! the model's own `tokenizer.json` has.
//!
//! Invariants: the algorithm is the one that the kind has; scores are finite; piece and control tokens keep their
//! ids.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::Settings;
use super::draft::{Draft, Frame, Vocabulary};
use super::kind::Kind;
use super::protobuf::{Fields, Value as Field};
use super::word_piece::role;
use crate::error::{Excerpt, FrontendError, Problem, Result};
use crate::json::{Limits, read_bounded};
use crate::limits;
use crate::tokenizer::piece_merges::{self, Piece};

/// Sentinels of T5 unless the folder says otherwise.
const SENTINELS: u32 = 100;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

struct Proto {
    /// By id.
    pieces: Vec<(String, f32, Type)>,
    is_bpe: bool,
    byte_fallback: bool,
    unk: Option<u32>,
    charsmap: Vec<u8>,
    /// Whether texts get a space before them.
    prefix: bool,
}

fn broken(file: &Path, what: impl std::fmt::Display) -> FrontendError {
    Problem::of(file, format!("not a SentencePiece model: {what}"))
        .help("is the download complete?")
        .input()
}

fn read(file: &Path) -> Result<Proto> {
    let bytes = read_bounded(file, Limits::TOKENIZER.bytes)?;
    let mut proto = Proto {
        pieces: Vec::new(),
        is_bpe: false,
        byte_fallback: false,
        unk: None,
        charsmap: Vec::new(),
        prefix: true,
    };
    let mut trained = false;
    for field in Fields::new(&bytes) {
        match field.map_err(|what| broken(file, what))? {
            (1, Field::Bytes(piece)) => {
                let id = proto.pieces.len();
                if id >= limits::VOCABULARY as usize {
                    return Err(broken(file, "too many pieces"));
                }
                let piece = read_piece(piece);
                let piece = piece.map_err(|what| broken(file, format_args!("piece {id}: {what}")));
                proto.pieces.push(piece?);
            }
            (2, Field::Bytes(trainer)) => {
                trained = true;
                read_trainer(file, trainer, &mut proto)?;
            }
            (3, Field::Bytes(normalizer)) => {
                for field in Fields::new(normalizer) {
                    match field.map_err(|what| broken(file, what))? {
                        (2, Field::Bytes(map)) => proto.charsmap = map.to_vec(),
                        (3, Field::Varint(flag)) => proto.prefix = flag != 0,
                        (5, Field::Varint(0)) => {
                            let what = "found escape_whitespaces = false, supported is true";
                            return Err(Problem::of(file, what).unsupported());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    match !proto.pieces.is_empty() && trained {
        true => Ok(proto),
        false => Err(broken(
            file,
            "no pieces, or no word of how they were trained",
        )),
    }
}

fn read_piece(bytes: &[u8]) -> Result<(String, f32, Type), String> {
    let (mut text, mut score, mut ty) = (None, 0.0, Type::Normal);
    for field in Fields::new(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => {
                let valid = std::str::from_utf8(bytes).map_err(|_| "it is not valid UTF-8")?;
                text = Some(valid.to_owned());
            }
            (2, Field::Fixed32(bits)) => score = f32::from_bits(bits),
            (3, Field::Varint(number)) => {
                ty = match number {
                    1 => Type::Normal,
                    2 => Type::Unknown,
                    3 => Type::Control,
                    4 => Type::UserDefined,
                    5 => Type::Unused,
                    6 => Type::Byte,
                    _ => return Err(format!("its type is {number}, expected 1 to 6")),
                };
            }
            _ => {}
        }
    }
    if !score.is_finite() {
        return Err(format!("its score is {score}"));
    }
    match text {
        Some(text) if !text.is_empty() => Ok((text, score, ty)),
        _ => Err("it has no text".into()),
    }
}

fn read_trainer(file: &Path, bytes: &[u8], proto: &mut Proto) -> Result<()> {
    let mut unk = 0;
    for field in Fields::new(bytes) {
        match field.map_err(|what| broken(file, what))? {
            (3, Field::Varint(1)) => proto.is_bpe = false,
            (3, Field::Varint(2)) => proto.is_bpe = true,
            (3, Field::Varint(other)) => {
                let what =
                    format!("found model type {other}, supported are 1 (Unigram) and 2 (BPE)");
                return Err(Problem::of(file, what).unsupported());
            }
            (24, Field::Varint(1)) => {
                let what = "found treat_whitespace_as_suffix = true, supported is false";
                return Err(Problem::of(file, what).unsupported());
            }
            (35, Field::Varint(flag)) => proto.byte_fallback = flag != 0,
            (40, Field::Varint(id)) => unk = id as i64,
            _ => {}
        }
    }
    proto.unk = u32::try_from(unk).ok();
    Ok(())
}

/// Reads the file.
pub fn write(file: &Path, settings: &Settings<'_>, rows: Option<u32>) -> Result<Draft> {
    let proto = read(file)?;
    let kind = match Kind::named(settings)? {
        Some(kind) => kind,
        None => guess(file, &proto)?,
    };
    let bpe = [Kind::Llama, Kind::Gemma];
    let unigram = [Kind::Albert, Kind::DebertaV2, Kind::T5];
    let kind = kind.among(if proto.is_bpe { &bpe[..] } else { &unigram[..] }, file)?;
    let mut vocabulary = Vocabulary::default();
    for ((text, _, _), id) in proto.pieces.iter().zip(0u32..) {
        let added = vocabulary.add(text, id);
        added.map_err(|what| broken(file, format_args!("piece {id}: {what}")))?;
    }
    let is_apart = |ty: Type| matches!(ty, Type::Control | Type::UserDefined);
    let apart = proto.pieces.iter().zip(0u32..);
    let apart = apart.filter(|((_, _, ty), _)| is_apart(*ty));
    let apart = apart.map(|((text, _, ty), id)| (id, text.clone(), *ty == Type::Control));
    let draft = Draft {
        kind: Some(kind),
        apart: apart.collect(),
        vocabulary,
        normalizer: Value::Null,
        pre_tokenizer: Value::Null,
        decoder: Value::Null,
        model: Value::Null,
        frame: Frame::Nothing,
    };
    match proto.is_bpe {
        true => write_bpe(file, settings, kind, proto, draft),
        false => write_unigram(file, settings, kind, proto, draft, rows),
    }
}

/// What the model itself tells: BPE is Llama's, the space before texts being a setting; the control tokens of a
/// Unigram model are those of ALBERT or of T5.
fn guess(file: &Path, proto: &Proto) -> Result<Kind> {
    let has = |text: &str| {
        let mut pieces = proto.pieces.iter();
        pieces.any(|(piece, _, ty)| piece == text && *ty == Type::Control)
    };
    match proto.is_bpe {
        true if proto.prefix => Ok(Kind::Llama),
        true => Ok(Kind::Gemma),
        false if has("[CLS]") && has("[SEP]") => Ok(Kind::Albert),
        false if has("</s>") && has("<pad>") && !has("<s>") => Ok(Kind::T5),
        false => Err(super::kind::unknown(file)),
    }
}

fn write_bpe(
    file: &Path,
    settings: &Settings<'_>,
    kind: Kind,
    proto: Proto,
    mut draft: Draft,
) -> Result<Draft> {
    if !proto.charsmap.is_empty() {
        let what = "BPE with a normalisation table is not supported";
        return Err(Problem::of(file, what).unsupported());
    }
    let prefix = proto.prefix && settings.flag("add_prefix_space", true)?;
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    draft.decoder = json!({"type": "Sequence", "decoders": decoders});
    if !prefix {
        draft.normalizer = spaces;
        draft.pre_tokenizer = json!({
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": false,
        });
    } else if settings.flag("legacy", true)? {
        // Every part between special tokens gets its space.
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        draft.normalizer = json!({"type": "Sequence", "normalizers": [prepend, spaces]});
    } else {
        draft.pre_tokenizer = metaspace("first", false);
    }
    let unknown = proto.pieces.iter().find(|(_, _, ty)| *ty == Type::Unknown);
    let unknown = unknown.map(|(text, _, _)| text.clone());
    let used = proto.pieces.iter().zip(0u32..);
    // Control pieces are made of no text, whatever they look like.
    let used = used.filter(|((_, _, ty), _)| !matches!(ty, Type::Unused | Type::Control));
    let pieces: Vec<Piece> = used
        .map(|((text, score, ty), id)| Piece {
            id,
            text: text.clone(),
            score: match ty {
                Type::UserDefined => f32::INFINITY,
                _ => *score,
            },
        })
        .collect();
    let ids: HashMap<String, u32> = pieces.iter().map(|p| (p.text.clone(), p.id)).collect();
    let merges = piece_merges::merges(&pieces, &ids).map_err(|(id, what)| match id {
        Some(id) => broken(file, format_args!("piece {id}: {what}")),
        None => broken(file, what),
    })?;
    draft.model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": true,
        "byte_fallback": true,
        "ignore_merges": false,
        "vocab": draft.vocabulary.to_json(),
        "merges": merges,
    });
    let (bos, eos) = (role(settings, kind, "bos")?, role(settings, kind, "eos")?);
    let begin = settings
        .flag("add_bos_token", true)?
        .then_some(bos.as_str());
    let end = settings
        .flag("add_eos_token", false)?
        .then_some(eos.as_str());
    draft.frame = Frame::around(begin, end, 1);
    Ok(draft)
}

fn write_unigram(
    file: &Path,
    settings: &Settings<'_>,
    kind: Kind,
    proto: Proto,
    mut draft: Draft,
    rows: Option<u32>,
) -> Result<Draft> {
    let unk = proto.unk.filter(|id| (*id as usize) < proto.pieces.len());
    let unk = unk.ok_or_else(|| broken(file, "the unknown token's id is not in the vocabulary"))?;
    let charsmap = (!proto.charsmap.is_empty()).then(|| {
        json!({
            "type": "Precompiled",
            "precompiled_charsmap": base64::encode(&proto.charsmap),
        })
    });
    let replace =
        |from: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": "\""});
    let lower = |default: bool| -> Result<Option<Value>> {
        let lower = settings.flag("do_lower_case", default)?;
        Ok(lower.then(|| json!({"type": "Lowercase"})))
    };
    let mut steps: Vec<Value> = Vec::new();
    match kind {
        Kind::Albert => {
            steps.extend([replace("``"), replace("''")]);
            if !settings.flag("keep_accents", false)? {
                steps.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
            }
            steps.extend(lower(true)?);
        }
        Kind::DebertaV2 => {
            if settings.flag("split_by_punct", false)? {
                let refuse = settings.config.map(|c| c.refuse("split_by_punct", "false"));
                return Err(refuse.unwrap_or_else(|| super::kind::unknown(file)));
            }
            steps.extend(lower(false)?);
            steps.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        }
        _ => {}
    }
    steps.extend(charsmap);
    if kind == Kind::DebertaV2 {
        steps.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    draft.normalizer = match steps.len() {
        0 => Value::Null,
        1 => steps.remove(0),
        _ => json!({"type": "Sequence", "normalizers": steps}),
    };
    let scheme = if proto.prefix { "always" } else { "never" };
    draft.pre_tokenizer = metaspace(scheme, true);
    draft.decoder = metaspace(scheme, true);
    let (cls, sep) = (role(settings, kind, "cls")?, role(settings, kind, "sep")?);
    let eos = role(settings, kind, "eos")?;
    draft.frame = match kind {
        Kind::T5 => Frame::around(None, Some(&eos), 0),
        _ => Frame::bert(&cls, &sep),
    };
    let said = settings
        .config
        .is_some_and(|c| c.has("added_tokens_decoder"));
    if kind == Kind::T5 && !said && settings.added.is_none() {
        add_sentinels(file, settings, &mut draft, rows)?;
    }
    let piece = |(text, score, _): &(String, f32, Type)| json!([text, f64::from(*score)]);
    draft.model = json!({
        "type": "Unigram",
        "unk_id": unk,
        "vocab": proto.pieces.iter().map(piece).collect::<Vec<Value>>(),
        "byte_fallback": proto.byte_fallback,
    });
    Ok(draft)
}

/// T5's sentinels, the last first, behind the pieces: as many as `extra_ids` says, else as its models have and the
/// model has rows for.
fn add_sentinels(
    file: &Path,
    settings: &Settings<'_>,
    draft: &mut Draft,
    rows: Option<u32>,
) -> Result<()> {
    let first = draft.vocabulary.end();
    let said = settings
        .config
        .map(|c| c.optional_count("extra_ids", 0..=1000));
    let count = match said.transpose()?.flatten() {
        Some(count) => count,
        None => SENTINELS.min(rows.map_or(SENTINELS, |rows| rows.saturating_sub(first))),
    };
    for (n, id) in (0..count).rev().zip(first..) {
        let text = format!("<extra_id_{n}>");
        if draft.vocabulary.id(&text).is_some() {
            let what = format!("`{}` is a piece already", Excerpt(&text));
            return Err(broken(file, what));
        }
        draft.apart.push((id, text, true));
    }
    Ok(())
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": scheme,
        "split": split,
    })
}
