//! Added tokens: found in a text before the model sees it, and cut out of it.
//!
//! In: a text (as given, or normalized), the tables of the section. Out: its pieces, those that are
//! added tokens with their ids. Matches are leftmost, the longest of those that begin at one place,
//! and do not overlap; the flags of a token widen a match over white space or drop it within a word.
//! Nothing is built at start: the tries are used where they lie.

use super::section::{Part, Section, Strings, Words};
use super::trie::Trie;
use tokenizers::normalizer::Range;
use tokenizers::{NormalizedString, Token};

/// Flags of an added token.
pub(super) mod flags {
    /// Only between characters that are no word's.
    pub const SINGLE_WORD: u32 = 1;
    /// Takes the white space before it.
    pub const LSTRIP: u32 = 2;
    /// Takes the white space after it.
    pub const RSTRIP: u32 = 4;
}

/// A piece of a text, with its token if it is one.
pub(super) type Piece = (NormalizedString, Option<Vec<Token>>);

/// The added tokens of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddedTokens<'a> {
    /// Pairs (id, flags), ascending by id.
    records: Words<'a>,
    texts: Strings<'a>,
    raw: Trie<'a>,
    normalized: Trie<'a>,
}

impl<'a> AddedTokens<'a> {
    /// Where the texts are in a section: content at `2 i`, normalized form at `2 i + 1`.
    pub const TEXTS: (Part, Part) = (Part::AddedStarts, Part::AddedText);

    pub fn new(section: &Section<'a>) -> AddedTokens<'a> {
        let texts = section.strings(Self::TEXTS);
        let trie = |part| Trie::new(section.words(part), texts);
        AddedTokens {
            records: section.words(Part::Added),
            texts,
            raw: trie(Part::AddedRaw),
            normalized: trie(Part::AddedNormalized),
        }
    }

    /// What decoders see of a token: its normalized form.
    pub fn form(&self, id: u32) -> Option<&'a str> {
        let (mut low, mut high) = (0, self.records.len() / 2);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.records.get(middle * 2)? {
                found if found < id => low = middle + 1,
                found if found > id => high = middle,
                _ => return self.texts.get(middle as u32 * 2 + 1),
            }
        }
        None
    }

    /// The id of a token's content, for tokens that the model does not have: a search through all.
    pub fn id(&self, content: &str) -> Option<u32> {
        let mut indices = 0..self.records.len() / 2;
        let index = indices.find(|&i| self.texts.get(i as u32 * 2) == Some(content))?;
        self.records.get(index * 2)
    }

    /// Cuts out the tokens that are looked for in the text as it is given.
    pub fn split_raw(&self, text: NormalizedString) -> tokenizers::Result<Vec<Piece>> {
        self.split(text, self.raw)
    }

    /// Cuts out the tokens that are looked for in normalized text.
    pub fn split_normalized(&self, text: NormalizedString) -> tokenizers::Result<Vec<Piece>> {
        self.split(text, self.normalized)
    }

    fn split(&self, text: NormalizedString, trie: Trie<'_>) -> tokenizers::Result<Vec<Piece>> {
        let matches = self.find(text.get(), trie);
        if matches.is_empty() {
            return Ok(vec![(text, None)]);
        }
        let slice = |start, end| {
            let piece = text.slice(Range::Normalized(start..end));
            piece.ok_or("an added token cannot be cut out of it")
        };
        let mut pieces = Vec::with_capacity(2 * matches.len() + 1);
        let mut done = 0;
        for (id, start, end) in matches {
            if done < start {
                pieces.push((slice(done, start)?, None));
            }
            let piece = slice(start, end)?;
            let value = piece.get().to_owned();
            let token = Token::new(id, value, (0, piece.len()));
            pieces.push((piece, Some(vec![token])));
            done = end;
        }
        if done < text.len() {
            pieces.push((slice(done, text.len())?, None));
        }
        Ok(pieces)
    }

    /// The tokens in a text: id, start, end.
    fn find(&self, text: &str, trie: Trie<'_>) -> Vec<(u32, usize, usize)> {
        let mut matches = Vec::new();
        // Up to where the text belongs to a match, and up to where it was searched.
        let (mut taken, mut from) = (0, 0);
        for (start, _) in text.char_indices() {
            if start < from {
                continue;
            }
            let longest = trie.prefixes(&text.as_bytes()[start..]).last();
            let Some((len, number)) = longest.filter(|(len, _)| *len > 0) else {
                continue;
            };
            from = start + len;
            let record = (number / 2) as usize * 2;
            let (Some(id), Some(flags)) = (self.records.get(record), self.records.get(record + 1))
            else {
                continue;
            };
            if !text.is_char_boundary(from) {
                continue;
            }
            let (before, after) = (&text[..start], &text[from..]);
            if flags & flags::SINGLE_WORD != 0
                && (before.chars().next_back().is_some_and(is_word)
                    || after.chars().next().is_some_and(is_word))
            {
                continue;
            }
            let (mut start, mut end) = (start, from);
            if flags & flags::LSTRIP != 0 {
                // White space may belong to the match before.
                start = before.trim_end().len().max(taken);
            }
            if flags & flags::RSTRIP != 0 {
                end = text.len() - after.trim_start().len();
            }
            matches.push((id, start, end));
            taken = end;
        }
        matches
    }
}

/// A character of `\w`.
fn is_word(c: char) -> bool {
    regex_syntax::is_word_character(c)
}
