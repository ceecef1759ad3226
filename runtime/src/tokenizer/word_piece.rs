//! WordPiece: the longest token first, then the longest continuation, and so on.
//!
//! In: a word, the vocabulary. Out: its tokens, or the unknown token where one part has none.

use super::model::Vocabulary;
use super::word_level::no_unknown;
use serde::{Deserialize, Serialize};
use tokenizers::Token;

/// The fields of tokenizer.json's `model`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WordPieceSettings {
    pub unk_token: String,
    pub continuing_subword_prefix: String,
    pub max_input_chars_per_word: u64,
}

/// A WordPiece model.
#[derive(Debug)]
pub(super) struct WordPiece<'a> {
    settings: WordPieceSettings,
    unk: Option<u32>,
    vocabulary: Vocabulary<'a>,
}

impl<'a> WordPiece<'a> {
    pub fn new(settings: WordPieceSettings, vocabulary: Vocabulary<'a>) -> WordPiece<'a> {
        WordPiece {
            unk: vocabulary.id(&settings.unk_token),
            settings,
            vocabulary,
        }
    }

    pub fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let short = word.chars().count() as u64 <= self.settings.max_input_chars_per_word;
        if let Some(tokens) = short.then(|| self.pieces(word)).flatten() {
            return Ok(tokens);
        }
        let name = &self.settings.unk_token;
        let unk = self.unk.ok_or_else(|| no_unknown(name))?;
        Ok(vec![Token::new(unk, name.clone(), (0, word.len()))])
    }

    /// The word's tokens; `None` where a part has none.
    fn pieces(&self, word: &str) -> Option<Vec<Token>> {
        let prefix = &self.settings.continuing_subword_prefix;
        let mut tokens = Vec::new();
        let mut start = 0;
        // What is left of the word, with the prefix of continuations.
        let mut left = word.to_owned();
        while start < word.len() {
            let marked = if start > 0 { prefix.len() } else { 0 };
            let (len, id) = self
                .vocabulary
                .prefixes(&left)
                .filter(|(len, _)| *len > marked)
                .last()?;
            let end = start + len - marked;
            tokens.push(Token::new(id, left[..len].to_owned(), (start, end)));
            start = end;
            left.replace_range(..len, prefix);
        }
        Some(tokens)
    }
}
