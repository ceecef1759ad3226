//! Word level: a piece of text is a token, or unknown.

use super::model::Vocabulary;
use serde::{Deserialize, Serialize};
use tokenizers::Token;

/// The fields of tokenizer.json's `model`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WordLevelSettings {
    pub unk_token: String,
}

/// A word level model.
#[derive(Debug)]
pub(super) struct WordLevel<'a> {
    settings: WordLevelSettings,
    unk: Option<u32>,
    vocabulary: Vocabulary<'a>,
}

impl<'a> WordLevel<'a> {
    pub fn new(settings: WordLevelSettings, vocabulary: Vocabulary<'a>) -> WordLevel<'a> {
        WordLevel {
            unk: vocabulary.id(&settings.unk_token),
            settings,
            vocabulary,
        }
    }

    pub fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let (id, value) = match (self.vocabulary.id(text), self.unk) {
            (Some(id), _) => (id, text),
            (None, Some(unk)) => (unk, self.settings.unk_token.as_str()),
            (None, None) => return Err(no_unknown(&self.settings.unk_token)),
        };
        Ok(vec![Token::new(id, value.to_owned(), (0, text.len()))])
    }
}

/// The error of a word that needs an unknown token.
pub(super) fn no_unknown(name: &str) -> tokenizers::Error {
    format!("it has a word that is no token, and `{name}` is not in the vocabulary").into()
}
