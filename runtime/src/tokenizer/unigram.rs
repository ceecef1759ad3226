//! Unigram: the segmentation with the largest sum of scores.
//!
//! In: a piece of text, the vocabulary, a score (f64) for each id. Out: tokens. Sums are formed from
//! left to right and the first of equal ones stays, as in the `tokenizers` crate, so that the same
//! segmentation wins; unknown characters in a row are one token, or bytes where there are such tokens.

use super::model::Vocabulary;
use super::section::{Part, Section};
use serde::{Deserialize, Serialize};
use tokenizers::Token;

/// How much less likely than the least likely token an unknown character is.
pub(super) const UNKNOWN_PENALTY: f64 = 10.0;

/// The fields of tokenizer.json's `model`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnigramSettings {
    pub unk_id: Option<u32>,
    pub byte_fallback: bool,
}

/// A Unigram model.
#[derive(Debug)]
pub(super) struct Unigram<'a> {
    settings: UnigramSettings,
    vocabulary: Vocabulary<'a>,
    /// f64 by id, and that of an unknown character at the end.
    scores: &'a [u8],
}

/// The best way to reach a place of the text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: usize,
    id: u32,
}

impl<'a> Unigram<'a> {
    pub fn new(
        settings: UnigramSettings,
        vocabulary: Vocabulary<'a>,
        section: &Section<'a>,
    ) -> Unigram<'a> {
        Unigram {
            settings,
            vocabulary,
            scores: section.bytes(Part::Scores),
        }
    }

    fn score(&self, index: usize) -> Option<f64> {
        let at = index.checked_mul(8)?;
        let bytes = self.scores.get(at..)?.first_chunk::<8>()?;
        Some(f64::from_le_bytes(*bytes))
    }

    fn unk(&self) -> tokenizers::Result<u32> {
        let missing = "it has a character that is no token, and there is no unknown token";
        self.settings.unk_id.ok_or_else(|| missing.into())
    }

    pub fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let mut tokens = Vec::new();
        for (start, end) in self.segments(text)? {
            let piece = &text[start..end];
            match self.vocabulary.id(piece) {
                Some(id) => tokens.push(Token::new(id, piece.to_owned(), (start, end))),
                None => {
                    let bytes = self.settings.byte_fallback;
                    match bytes.then(|| self.vocabulary.spell(piece)).flatten() {
                        Some(ids) => {
                            let token = |id| self.vocabulary.token(id, (start, end));
                            tokens.extend(ids.into_iter().map(token));
                        }
                        None => {
                            tokens.push(Token::new(self.unk()?, piece.to_owned(), (start, end)));
                        }
                    }
                }
            }
        }
        Ok(tokens)
    }

    /// Where the tokens begin and end.
    fn segments(&self, text: &str) -> tokenizers::Result<Vec<(usize, usize)>> {
        let unknown = self
            .scores
            .len()
            .checked_div(8)
            .and_then(|n| self.score(n.checked_sub(1)?))
            .unwrap_or(0.0);
        let mut best: Vec<Option<Best>> = vec![None; text.len() + 1];
        for (start, c) in text.char_indices() {
            let so_far = best[start].map_or(0.0, |b| b.score);
            let mut reach = |len: usize, id: u32, score: f64| {
                let score = score + so_far;
                let place = &mut best[start + len];
                if place.is_none_or(|b| score > b.score) {
                    *place = Some(Best { score, start, id });
                }
            };
            let mut alone = false;
            for (len, id) in self.vocabulary.prefixes(&text[start..]) {
                reach(len, id, self.score(id as usize).unwrap_or(unknown));
                alone |= len == c.len_utf8();
            }
            if !alone {
                reach(c.len_utf8(), self.unk()?, unknown);
            }
        }
        let mut segments: Vec<(usize, usize)> = Vec::new();
        let mut end = text.len();
        let mut after_unknown = false;
        while end > 0 {
            // Every place that a segment starts from was reached.
            let Some(Best { start, id, .. }) = best[end] else {
                return Err("its segmentation has a gap".into());
            };
            let is_unknown = Some(id) == self.settings.unk_id;
            match segments.last_mut().filter(|_| is_unknown && after_unknown) {
                Some(last) => last.0 = start,
                None => segments.push((start, end)),
            }
            after_unknown = is_unknown;
            end = start;
        }
        segments.reverse();
        Ok(segments)
    }
}
