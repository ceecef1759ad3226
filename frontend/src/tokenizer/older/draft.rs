//! A `tokenizer.json` to be.
//!
//! In: a vocabulary in order of ids, a model, the parts around it. Out: the file.
//!
//! Invariants: a text has one id; the tokens that the post-processor names exist.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::Settings;
use super::added::{self, Added};
use super::kind::Kind;
use crate::error::{Excerpt, FrontendError, Problem, Result};
use crate::limits;

/// Bytes of one token.
const LENGTH: usize = 4096;

/// Texts with their ids.
#[derive(Debug, Default)]
pub struct Vocabulary {
    ids: HashMap<String, u32>,
    /// One more than the largest id.
    end: u32,
}

impl Vocabulary {
    /// Adds a token; else what is wrong with it.
    pub fn add(&mut self, text: &str, id: u32) -> Result<(), String> {
        if text.is_empty() || text.len() > LENGTH {
            return Err(format!(
                "a token of {} bytes, expected 1 to {LENGTH}",
                text.len()
            ));
        }
        if id >= limits::VOCABULARY {
            return Err(format!(
                "`{}` has id {id}, expected one below {}",
                Excerpt(text),
                limits::VOCABULARY
            ));
        }
        match self.ids.insert(text.to_owned(), id) {
            Some(other) => Err(format!(
                "`{}` occurs twice, as {other} and {id}",
                Excerpt(text)
            )),
            None => {
                self.end = self.end.max(id + 1);
                Ok(())
            }
        }
    }

    /// The id of a text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// One more than the largest id.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// An object of texts and ids, in the order of the ids.
    pub fn to_json(&self) -> Value {
        let mut entries: Vec<(&String, &u32)> = self.ids.iter().collect();
        entries.sort_by(|a, b| a.1.cmp(b.1).then(a.0.cmp(b.0)));
        let entries = entries
            .into_iter()
            .map(|(text, id)| (text.clone(), Value::from(*id)));
        Value::Object(entries.collect::<Map<_, _>>())
    }
}

/// What is put around texts.
pub enum Frame {
    /// The byte-level processor, which only mends offsets.
    Offsets,
    Nothing,
    /// Token names around one text and around two, `A` and `B` being the texts; each with its token type.
    Template(Vec<(Piece, u32)>, Vec<(Piece, u32)>),
    /// RoBERTa's: cls A sep sep B sep.
    Roberta {
        cls: String,
        sep: String,
        trim_offsets: bool,
    },
}

/// A piece of a frame.
#[derive(Clone)]
pub enum Piece {
    Token(String),
    A,
    B,
}

impl Frame {
    /// `cls A sep` and `cls A sep B sep`, the second text with token type 1.
    pub fn bert(cls: &str, sep: &str) -> Self {
        let (cls, sep) = (Piece::Token(cls.into()), Piece::Token(sep.into()));
        let one = vec![(cls, 0), (Piece::A, 0), (sep.clone(), 0)];
        let two = [one.clone(), vec![(Piece::B, 1), (sep, 1)]].concat();
        Self::Template(one, two)
    }

    /// Tokens before and behind each text.
    pub fn around(begin: Option<&str>, end: Option<&str>, second_type: u32) -> Self {
        let token = |text: Option<&str>| text.map(|text| Piece::Token(text.into()));
        let text = |text: Piece, ty: u32| {
            let pieces = [token(begin), Some(text), token(end)];
            pieces
                .into_iter()
                .flatten()
                .map(|piece| (piece, ty))
                .collect::<Vec<_>>()
        };
        let one = text(Piece::A, 0);
        let two = [one.clone(), text(Piece::B, second_type)].concat();
        Self::Template(one, two)
    }
}

/// A file to be.
pub struct Draft {
    pub kind: Option<Kind>,
    pub vocabulary: Vocabulary,
    /// Tokens that the vocabulary's own file sets apart: id, text, whether it is special.
    pub apart: Vec<(u32, String, bool)>,
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoder: Value,
    pub model: Value,
    /// What is put around texts, by the tokens of the roles.
    pub frame: Frame,
}

impl Draft {
    /// The whole file. `file` is named in errors.
    pub fn finish(mut self, file: &Path, settings: &Settings<'_>) -> Result<Value> {
        let added = added::gather(file, &self, settings)?;
        self.close_gaps(&added);
        let post_processor = self.post_processor(file, &added)?;
        let added: Vec<Value> = added.iter().map(Added::to_json).collect();
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": post_processor,
            "decoder": self.decoder,
            "model": self.model,
        }))
    }

    /// Added tokens get the ids that follow the vocabulary; where theirs are others they stand in it.
    fn close_gaps(&mut self, added: &[Added]) {
        let Some(vocab) = self.model.get_mut("vocab").and_then(Value::as_object_mut) else {
            return;
        };
        let new: Vec<&Added> = added
            .iter()
            .filter(|token| self.vocabulary.id(&token.text).is_none())
            .collect();
        let follow = new.iter().zip(vocab.len()..);
        let mut follow = follow.map(|(token, next)| token.id as usize == next);
        if !follow.all(|follows| follows) {
            for token in new {
                vocab.insert(token.text.clone(), token.id.into());
            }
        }
    }

    fn post_processor(&self, file: &Path, added: &[Added]) -> Result<Value> {
        let id = |text: &str| -> Result<u32> {
            let added = added.iter().find(|a| a.text == text).map(|a| a.id);
            let id = self.vocabulary.id(text).or(added);
            id.ok_or_else(|| missing(file, text))
        };
        let template = |pieces: &[(Piece, u32)]| {
            let piece = |(piece, ty): &(Piece, u32)| match piece {
                Piece::Token(text) => json!({"SpecialToken": {"id": text, "type_id": ty}}),
                Piece::A => json!({"Sequence": {"id": "A", "type_id": ty}}),
                Piece::B => json!({"Sequence": {"id": "B", "type_id": ty}}),
            };
            pieces.iter().map(piece).collect::<Vec<_>>()
        };
        Ok(match &self.frame {
            Frame::Nothing => Value::Null,
            Frame::Offsets => byte_level(true, false),
            Frame::Template(one, two) => {
                let mut tokens = Map::new();
                for (piece, _) in one.iter().chain(two) {
                    if let Piece::Token(text) = piece {
                        let entry = json!({"id": text, "ids": [id(text)?], "tokens": [text]});
                        tokens.insert(text.clone(), entry);
                    }
                }
                json!({
                    "type": "TemplateProcessing",
                    "single": template(one),
                    "pair": template(two),
                    "special_tokens": tokens,
                })
            }
            Frame::Roberta {
                cls,
                sep,
                trim_offsets,
            } => json!({
                "type": "RobertaProcessing",
                "sep": [sep, id(sep)?],
                "cls": [cls, id(cls)?],
                "trim_offsets": trim_offsets,
                "add_prefix_space": false,
            }),
        })
    }
}

/// The error of a token that has to be there.
pub fn missing(file: &Path, text: &str) -> FrontendError {
    let what = format!("no token `{}`, which is put around texts", Excerpt(text));
    Problem::of(file, what).input()
}

/// The byte-level step as decoder or post-processor.
pub fn byte_level(add_prefix_space: bool, trim_offsets: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": trim_offsets,
        "use_regex": true,
    })
}
