//! The model of a tokenizer: a piece of normalized text to tokens, by tables of the section.
//!
//! In: a [`Section`] and its settings. Out: [`Model`], whose `tokenize` gives what the `tokenizers`
//! crate's model of the same kind gives, offsets within the piece included.
//! Not here: what splits a text into pieces (`pipeline`), the algorithms (a file each).

use super::bpe::{Bpe, BpeSettings};
use super::section::{Part, Section, Strings};
use super::trie::Trie;
use super::unigram::{Unigram, UnigramSettings};
use super::word_level::{WordLevel, WordLevelSettings};
use super::word_piece::{WordPiece, WordPieceSettings};
use serde::{Deserialize, Serialize};
use tokenizers::Token;

/// The texts and ids of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vocabulary<'a> {
    texts: Strings<'a>,
    ids: Trie<'a>,
}

impl<'a> Vocabulary<'a> {
    /// Where the texts are in a section.
    pub const TEXTS: (Part, Part) = (Part::TokenStarts, Part::TokenText);

    pub fn new(section: &Section<'a>) -> Vocabulary<'a> {
        let texts = section.strings(Self::TEXTS);
        let ids = Trie::new(section.words(Part::Vocabulary), texts);
        Vocabulary { texts, ids }
    }

    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text.as_bytes())
    }

    pub fn text(&self, id: u32) -> Option<&'a str> {
        self.texts.get(id)
    }

    /// Tokens that `text` begins with: lengths in bytes and ids, shortest first; never the empty one.
    pub fn prefixes(&self, text: &str) -> impl Iterator<Item = (usize, u32)> {
        let is_border = |(len, _): &(usize, u32)| *len > 0 && text.is_char_boundary(*len);
        self.ids.prefixes(text.as_bytes()).filter(is_border)
    }

    /// A token with its text.
    pub fn token(&self, id: u32, offsets: (usize, usize)) -> Token {
        Token::new(id, self.text(id).unwrap_or_default().to_owned(), offsets)
    }

    /// The ids of the tokens `<0x00>`…, which spell the bytes of `text`; `None` if one is missing.
    pub fn spell(&self, text: &str) -> Option<Vec<u32>> {
        let byte = |b| self.id(&format!("<0x{b:02X}>"));
        text.bytes().map(byte).collect()
    }
}

/// What the tables do not hold.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ModelSettings {
    Bpe(BpeSettings),
    Unigram(UnigramSettings),
    WordLevel(WordLevelSettings),
    WordPiece(WordPieceSettings),
}

/// A model of one of the kinds.
#[derive(Debug)]
pub(super) enum Model<'a> {
    Bpe(Bpe<'a>),
    Unigram(Unigram<'a>),
    WordLevel(WordLevel<'a>),
    WordPiece(WordPiece<'a>),
}

impl<'a> Model<'a> {
    pub fn new(
        settings: ModelSettings,
        vocabulary: Vocabulary<'a>,
        section: &Section<'a>,
    ) -> Model<'a> {
        match settings {
            ModelSettings::Bpe(s) => Model::Bpe(Bpe::new(s, vocabulary, section)),
            ModelSettings::Unigram(s) => Model::Unigram(Unigram::new(s, vocabulary, section)),
            ModelSettings::WordLevel(s) => Model::WordLevel(WordLevel::new(s, vocabulary)),
            ModelSettings::WordPiece(s) => Model::WordPiece(WordPiece::new(s, vocabulary)),
        }
    }

    /// The tokens of a piece of text.
    pub fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        match self {
            Model::Bpe(m) => m.tokenize(text),
            Model::Unigram(m) => m.tokenize(text),
            Model::WordLevel(m) => m.tokenize(text),
            Model::WordPiece(m) => m.tokenize(text),
        }
    }
}
