//! From tokenizer.json to a section: the compiler's half.
//!
//! In: the bytes of a tokenizer.json. Out: a section that encodes and decodes as the `tokenizers`
//! crate does with that file. The crate reads the file; its vocabulary, scores and added tokens are
//! taken from what it has read, so that old forms of the file and its own corrections need no second
//! reader. Merges, which it does not give out, are read beside it.
//! Refused: merges dropped at random, one id for two texts, ids far beyond the number of tokens.

use super::Settings;
use super::added::{AddedTokens, flags};
use super::bpe::BpeSettings;
use super::model::{ModelSettings, Vocabulary};
use super::section::{Part, Writer};
use super::trie;
use super::unigram::{UNKNOWN_PENALTY, UnigramSettings};
use super::word_level::WordLevelSettings;
use super::word_piece::WordPieceSettings;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::{AddedToken, Model, ModelWrapper};

/// Ids are below it.
const MAX_IDS: u32 = 1 << 24;
/// Bytes of all tokens together.
const MAX_TEXT: usize = 1 << 30;

/// What the file says beside the vocabulary.
#[derive(Deserialize)]
struct File {
    model: FileModel,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
}

#[derive(Deserialize)]
struct FileModel {
    #[serde(default)]
    merges: Vec<Merge>,
}

/// Two tokens, apart or with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

fn wrong(e: impl std::fmt::Display) -> Error {
    Error::Input(format!("the tokenizer.json cannot be read: {e}"))
}

/// Compiles a tokenizer.json; the bytes are for [`super::Tokenizer::open`].
pub fn compile(json: &[u8]) -> Result<Vec<u8>> {
    let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(wrong)?;
    let file: File = serde_json::from_slice(json).map_err(wrong)?;
    let mut writer = Writer::default();
    let model = match tokenizer.get_model() {
        ModelWrapper::BPE(bpe) => {
            let settings = bpe_settings(bpe)?;
            let ids = bpe.get_vocab();
            write_vocabulary(&mut writer, &texts_by_id(&ids)?)?;
            write_merges(&mut writer, &ids, file.model.merges, bpe)?;
            ModelSettings::Bpe(settings)
        }
        ModelWrapper::Unigram(unigram) => {
            ModelSettings::Unigram(write_unigram(&mut writer, unigram)?)
        }
        ModelWrapper::WordLevel(model) => {
            write_vocabulary(&mut writer, &texts_by_id(&model.get_vocab())?)?;
            ModelSettings::WordLevel(WordLevelSettings {
                unk_token: model.unk_token.clone(),
            })
        }
        ModelWrapper::WordPiece(model) => {
            write_vocabulary(&mut writer, &texts_by_id(&model.get_vocab())?)?;
            ModelSettings::WordPiece(WordPieceSettings {
                unk_token: model.unk_token.clone(),
                continuing_subword_prefix: model.continuing_subword_prefix.clone(),
                max_input_chars_per_word: model.max_input_chars_per_word as u64,
            })
        }
    };
    let tokens = writer.words(Part::TokenStarts).saturating_sub(1);
    write_added(&mut writer, &tokenizer, tokens);
    let settings = Settings {
        model,
        normalizer: file.normalizer,
        pre_tokenizer: file.pre_tokenizer,
        post_processor: file.post_processor,
        decoder: file.decoder,
    };
    writer.set(
        Part::Settings,
        serde_json::to_vec(&settings).map_err(wrong)?,
    );
    Ok(writer.finish())
}

/// The texts of ids `0..`, `None` where an id has none.
fn texts_by_id(ids: &HashMap<String, u32>) -> Result<Vec<Option<&str>>> {
    let len = ids.values().max().map_or(0, |&id| id.saturating_add(1));
    if len > MAX_IDS {
        return Err(wrong(format!("the id {} is too large", len - 1)));
    }
    let mut texts = vec![None; len as usize];
    for (text, &id) in ids {
        if let Some(other) = texts[id as usize].replace(text.as_str()) {
            let (a, b) = (text.as_str().min(other), text.as_str().max(other));
            return Err(wrong(format!("`{a}` and `{b}` have the same id {id}")));
        }
    }
    Ok(texts)
}

fn write_vocabulary(writer: &mut Writer, texts: &[Option<&str>]) -> Result<()> {
    let bytes: usize = texts.iter().flatten().map(|t| t.len()).sum();
    if bytes > MAX_TEXT || texts.len() > MAX_IDS as usize {
        return Err(wrong("its vocabulary is too large"));
    }
    let keys = texts.iter().zip(0..);
    let keys = keys.filter_map(|(text, id)| Some((text.as_ref()?.as_bytes(), id)));
    writer.set_words(Part::Vocabulary, trie::build(keys.collect()));
    writer.set_strings(Vocabulary::TEXTS, texts.iter().copied());
    Ok(())
}

fn bpe_settings(bpe: &BPE) -> Result<BpeSettings> {
    if let Some(p) = bpe.dropout.filter(|&p| p != 0.0) {
        return Err(Error::Unsupported(format!(
            "tokenizer.json, model.dropout: found {p}, supported is none: \
             merges left out at random are for training"
        )));
    }
    Ok(BpeSettings {
        unk_token: bpe.unk_token.clone(),
        continuing_subword_prefix: bpe.continuing_subword_prefix.clone(),
        end_of_word_suffix: bpe.end_of_word_suffix.clone(),
        fuse_unk: bpe.fuse_unk,
        byte_fallback: bpe.byte_fallback,
        ignore_merges: bpe.ignore_merges,
    })
}

/// Writes merges by left id, then right id. The rank of a merge is its place; of equal pairs the
/// last one counts.
fn write_merges(
    writer: &mut Writer,
    ids: &HashMap<String, u32>,
    merges: Vec<Merge>,
    bpe: &BPE,
) -> Result<()> {
    let prefix = bpe
        .continuing_subword_prefix
        .as_ref()
        .map_or(0, String::len);
    let id = |text: &str| {
        let id = ids.get(text).copied();
        id.ok_or_else(|| {
            wrong(format!(
                "the merged token `{text}` is not in the vocabulary"
            ))
        })
    };
    let mut table = Vec::with_capacity(merges.len());
    let mut results = Vec::with_capacity(merges.len());
    let lines = merges.iter().filter_map(|merge| match merge {
        Merge::Pair(left, right) => Some(Some((left.as_str(), right.as_str()))),
        Merge::Line(line) if line.starts_with("#version") => None,
        Merge::Line(line) => Some(line.split_once(' ')),
    });
    for (pair, rank) in lines.zip(0u32..) {
        let (left, right) = pair.ok_or_else(|| wrong(format!("merge {rank} is no pair")))?;
        let rest = right.get(prefix..);
        let rest = rest.ok_or_else(|| wrong(format!("`{right}` lacks the subword prefix")))?;
        results.push(id(&format!("{left}{rest}"))?);
        table.push(((id(left)?, id(right)?), rank));
    }
    table.sort_unstable_by_key(|&(pair, rank)| (pair, Reverse(rank)));
    table.dedup_by_key(|(pair, _)| *pair);
    let lefts = ids.values().max().map_or(0, |&id| id + 1);
    let mut starts = vec![0u32; lefts as usize + 1];
    for ((left, _), _) in &table {
        starts[*left as usize + 1] += 1;
    }
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    writer.set_words(Part::MergeStarts, starts);
    writer.set_words(Part::MergeRights, table.iter().map(|t| t.0.1));
    writer.set_words(Part::MergeRanks, table.iter().map(|t| t.1));
    writer.set_words(Part::MergeResults, results);
    Ok(())
}

fn write_unigram(writer: &mut Writer, unigram: &Unigram) -> Result<UnigramSettings> {
    let texts: Vec<Option<&str>> = unigram
        .iter()
        .map(|(text, _)| Some(text.as_str()))
        .collect();
    write_vocabulary(writer, &texts)?;
    let scores = unigram.iter().map(|(_, score)| *score);
    let unknown = unigram.min_score - UNKNOWN_PENALTY;
    let scores = scores.chain([unknown]).flat_map(f64::to_le_bytes);
    writer.set(Part::Scores, scores.collect());
    // The crate does not show the id itself, but writes it.
    #[derive(Deserialize)]
    struct Written {
        unk_id: Option<u32>,
    }
    let written = serde_json::to_vec(unigram).map_err(wrong)?;
    let Written { unk_id } = serde_json::from_slice(&written).map_err(wrong)?;
    Ok(UnigramSettings {
        unk_id,
        byte_fallback: unigram.byte_fallback(),
    })
}

/// Writes the added tokens; the model has ids below `tokens`.
fn write_added(writer: &mut Writer, tokenizer: &tokenizers::Tokenizer, tokens: usize) {
    let vocabulary = tokenizer.get_added_vocabulary();
    let added: BTreeMap<u32, &AddedToken> = vocabulary
        .get_added_tokens_decoder()
        .iter()
        .map(|(&id, token)| (id, token))
        .collect();
    let record = |token: &AddedToken| {
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        flag(token.single_word, flags::SINGLE_WORD)
            | flag(token.lstrip, flags::LSTRIP)
            | flag(token.rstrip, flags::RSTRIP)
    };
    let records = added.iter().flat_map(|(&id, token)| [id, record(token)]);
    writer.set_words(Part::Added, records);
    let texts: Vec<(String, String)> = added
        .iter()
        .map(|(&id, token)| {
            let form = vocabulary.simple_id_to_token(id);
            (token.content.clone(), form.unwrap_or_default())
        })
        .collect();
    let strings = texts.iter().flat_map(|(content, form)| [content, form]);
    writer.set_strings(AddedTokens::TEXTS, strings.map(|t| Some(t.as_str())));
    let numbered = || added.values().zip(&texts).zip(0u32..);
    let raw = numbered().filter(|((token, _), _)| !token.normalized);
    let raw = raw.map(|((_, (content, _)), i)| (content.as_bytes(), 2 * i));
    writer.set_words(Part::AddedRaw, trie::build(raw.collect()));
    let normalized = numbered().filter(|((token, _), _)| token.normalized);
    let normalized = normalized.map(|((_, (_, form)), i)| (form.as_bytes(), 2 * i + 1));
    writer.set_words(Part::AddedNormalized, trie::build(normalized.collect()));

    // By their texts, as the crate decides it: several ids may have one.
    let ids = (0..tokens as u32).chain(added.into_keys());
    let mut special: Vec<u32> = ids
        .filter(|&id| {
            let text = tokenizer.id_to_token(id);
            text.is_some_and(|t| vocabulary.is_special_token(&t))
        })
        .collect();
    special.sort_unstable();
    special.dedup();
    writer.set_words(Part::Special, special);
}
