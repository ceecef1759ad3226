//! Tokens, their types and scores.
//!
//! In: `tokenizer.ggml.{tokens,token_type,scores}`. Out: [`Vocabulary`].
//!
//! Invariants: the three lists are of one length; types are known; a token that is used has a text that no other
//! used token has; tokens that nobody uses are left out of the tokenizer.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::error::{Excerpt, Result};
use crate::gguf::metadata::Metadata;
use crate::limits;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
/// Bytes of one token.
const LENGTH: usize = 1024;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// A part of texts.
    Normal,
    /// What is no other token.
    Unknown,
    /// Begins, ends, separates.
    Control,
    /// A text that is always one token.
    UserDefined,
    /// Fills the vocabulary.
    Unused,
    /// One byte, as `<0x0A>`.
    Byte,
}

impl TokenType {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }
}

/// A vocabulary, by id.
pub struct Vocabulary<'g> {
    /// The file.
    pub metadata: &'g Metadata,
    tokens: Vec<Cow<'g, str>>,
    types: Vec<TokenType>,
    scores: Option<Vec<f32>>,
}

impl<'g> Vocabulary<'g> {
    /// Reads the lists; none if the file has no tokenizer.
    pub fn read(metadata: &'g Metadata) -> Result<Option<Self>> {
        if matches!(
            metadata.optional_text(MODEL)?,
            None | Some("none" | "no_vocab")
        ) {
            return Ok(None);
        }
        let Some(tokens) = metadata.optional_texts(TOKENS)? else {
            return Err(metadata.wrong(TOKENS, "texts"));
        };
        if let Some(at) = tokens.iter().position(|token| token.len() > LENGTH) {
            let what = format!(
                "found {} bytes, expected at most {LENGTH}",
                tokens[at].len()
            );
            return Err(metadata.problem(&format!("{TOKENS}[{at}]"), what).input());
        }
        let one_each = |key: &str, found: usize| match found == tokens.len() {
            true => Ok(()),
            false => {
                Err(metadata.wrong(key, format_args!("one for each of {} tokens", tokens.len())))
            }
        };
        let types = match metadata.optional_counts(TYPES)? {
            None => vec![TokenType::Normal; tokens.len()],
            Some(numbers) => {
                one_each(TYPES, numbers.len())?;
                let ty = |(at, number): (usize, &u32)| {
                    TokenType::from_number(*number).ok_or_else(|| {
                        let what = format!("found {number}, expected 1 to 6");
                        metadata.problem(&format!("{TYPES}[{at}]"), what).input()
                    })
                };
                numbers.iter().enumerate().map(ty).collect::<Result<_>>()?
            }
        };
        let scores = metadata.optional_reals(SCORES)?;
        if let Some(scores) = &scores {
            one_each(SCORES, scores.len())?;
        }
        Ok(Some(Self {
            metadata,
            tokens: tokens.into_iter().map(Cow::Borrowed).collect(),
            types,
            scores,
        }))
    }

    /// Compares the number of tokens with the rows of the model's table.
    pub fn check_size(&self, rows: Option<u32>) -> Result<()> {
        let rows = rows.unwrap_or(limits::VOCABULARY) as usize;
        match self.tokens.len() <= rows {
            true => Ok(()),
            false => Err(self
                .metadata
                .wrong(TOKENS, format_args!("at most {rows}, the model's rows"))),
        }
    }

    /// The id at a key, if the key is there; it is an id of this vocabulary.
    pub fn id(&self, key: &str) -> Result<Option<u32>> {
        let last = self.tokens.len().saturating_sub(1) as u32;
        self.metadata.optional_count(key, 0..=last)
    }

    /// The id at the key of the token that fills rows; one past the vocabulary means that there is none.
    pub fn pad(&self, key: &str) -> Result<Option<u32>> {
        let id = self.metadata.optional_count(key, 0..=u32::MAX)?;
        Ok(id.filter(|id| (*id as usize) < self.tokens.len()))
    }

    /// The id of the token that stands for what is no other: the one that the file names, else the first of its type.
    pub fn unknown(&self) -> Result<Option<u32>> {
        let named = self.id("tokenizer.ggml.unknown_token_id")?;
        let mut used = self.used();
        Ok(named.or_else(|| {
            used.find(|(_, ty)| *ty == TokenType::Unknown)
                .map(|(id, _)| id)
        }))
    }

    /// Tokens, the unused ones among them.
    pub fn size(&self) -> u32 {
        self.tokens.len() as u32
    }

    /// Says otherwise than the file what a token is; it has no score then.
    pub fn set(&mut self, id: u32, text: String, ty: TokenType) {
        let at = id as usize;
        (self.tokens[at], self.types[at]) = (text.into(), ty);
        if let Some(scores) = &mut self.scores {
            scores[at] = 0.0;
        }
    }

    /// The text of a token as it stands in the file.
    pub fn token(&self, id: u32) -> &str {
        self.tokens.get(id as usize).map_or("", |text| text)
    }

    /// The same, to keep.
    pub fn text(&self, id: u32) -> String {
        self.token(id).to_owned()
    }

    /// What a token is for.
    pub fn ty(&self, id: u32) -> TokenType {
        self.types
            .get(id as usize)
            .copied()
            .unwrap_or(TokenType::Unused)
    }

    /// The score of a token; 0 where there are none.
    pub fn score(&self, id: u32) -> f32 {
        let scores = self.scores.as_ref();
        scores
            .and_then(|scores| scores.get(id as usize))
            .copied()
            .unwrap_or(0.0)
    }

    /// An error unless every token has a score that is a number.
    pub fn check_scores(&self) -> Result<()> {
        let Some(scores) = &self.scores else {
            return Err(self.metadata.wrong(SCORES, "a number for each token"));
        };
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let what = format!("found {}, expected a finite number", scores[at]);
                Err(self
                    .metadata
                    .problem(&format!("{SCORES}[{at}]"), what)
                    .input())
            }
        }
    }

    /// All tokens but the unused ones: id and type.
    pub fn used(&self) -> impl Iterator<Item = (u32, TokenType)> {
        let all = (0..).zip(self.types.iter().copied());
        all.filter(|(_, ty)| *ty != TokenType::Unused)
    }

    /// The tokens that are looked for in texts before anything else: id and text.
    pub fn added(&self) -> impl Iterator<Item = (u32, &str)> {
        let is_added = |ty| {
            matches!(
                ty,
                TokenType::Unknown | TokenType::Control | TokenType::UserDefined
            )
        };
        let added = self.used().filter(move |(_, ty)| is_added(*ty));
        added.map(|(id, _)| (id, self.token(id)))
    }

    /// Ids by text, where `text` says how a token is spelled in a `tokenizer.json`.
    pub fn index(&self, text: impl Fn(u32) -> String) -> Result<HashMap<String, u32>> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, _) in self.used() {
            let text = text(id);
            if text.is_empty() {
                let what = "found an empty token";
                return Err(self
                    .metadata
                    .problem(&format!("{TOKENS}[{id}]"), what)
                    .input());
            }
            let shown = Excerpt(&text).to_string();
            if let Some(other) = ids.insert(text, id) {
                let what = format!("found \"{shown}\", which is token {other} too");
                return Err(self
                    .metadata
                    .problem(&format!("{TOKENS}[{id}]"), what)
                    .input());
            }
        }
        Ok(ids)
    }
}
