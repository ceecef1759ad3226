//! Byte pair encoding: characters, then merges by rank.
//!
//! In: a piece of text, the vocabulary, the merges: for each left id its right ids, ascending, each
//! with the merge's rank, which tells the result. Out: tokens.
//! The order of merging, unknown characters, byte fallback, prefixes and suffixes follow the
//! `tokenizers` crate step by step; merges left out at random (dropout) do not exist here.

use super::model::Vocabulary;
use super::section::{Part, Section, Words};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tokenizers::Token;

/// The fields of tokenizer.json's `model`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BpeSettings {
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
}

/// What a pair of tokens becomes, and which pair goes first.
#[derive(Clone, Copy, Debug)]
struct Merges<'a> {
    starts: Words<'a>,
    rights: Words<'a>,
    ranks: Words<'a>,
    results: Words<'a>,
}

impl Merges<'_> {
    /// Rank of a pair.
    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        let left = left as usize;
        let start = self.starts.get(left)? as usize;
        let end = self.starts.get(left + 1)? as usize;
        let at = self.rights.lower_bound(start..end, right);
        if at >= end || self.rights.get(at)? != right {
            return None;
        }
        self.ranks.get(at)
    }

    /// What the pair of this rank becomes.
    fn result(&self, rank: u32) -> Option<u32> {
        self.results.get(rank as usize)
    }
}

/// A BPE model.
#[derive(Debug)]
pub(super) struct Bpe<'a> {
    settings: BpeSettings,
    unk: Option<u32>,
    vocabulary: Vocabulary<'a>,
    merges: Merges<'a>,
}

/// A token being merged: a link of the list of those that are left.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// Bytes; 0 once it was merged into the one before it.
    len: usize,
    before: Option<usize>,
    after: Option<usize>,
}

#[derive(Default)]
struct Word(Vec<Symbol>);

impl Word {
    fn push(&mut self, id: u32, len: usize) {
        let index = self.0.len();
        if let Some(last) = self.0.last_mut() {
            last.after = Some(index);
        }
        self.0.push(Symbol {
            id,
            len,
            before: index.checked_sub(1),
            after: None,
        });
    }

    /// Merges the pair of lowest rank, the leftmost of equals, until none is left.
    fn merge(&mut self, merges: &Merges<'_>) {
        let symbols = &mut self.0;
        // Rank and place in one number, so that the queue is small and quick to compare.
        let entry = |left: u32, right: u32, at: usize| {
            let rank = merges.rank(left, right)?;
            Some(Reverse(u64::from(rank) << 32 | at as u64))
        };
        let mut queue: BinaryHeap<Reverse<u64>> = symbols
            .windows(2)
            .enumerate()
            .filter_map(|(at, pair)| entry(pair[0].id, pair[1].id, at))
            .collect();
        while let Some(Reverse(next)) = queue.pop() {
            let at = (next & u64::from(u32::MAX)) as usize;
            let result = merges.result((next >> 32) as u32);
            let left = symbols[at];
            let Some(next) = left.after.filter(|_| left.len > 0) else {
                continue;
            };
            let right = symbols[next];
            // The pair may have changed since it was queued.
            let rank = merges.rank(left.id, right.id);
            let Some(result) = result.filter(|_| rank.and_then(|r| merges.result(r)) == result)
            else {
                continue;
            };
            symbols[at].id = result;
            symbols[at].len += right.len;
            symbols[at].after = right.after;
            symbols[next].len = 0;
            if let Some(after) = right.after {
                symbols[after].before = Some(at);
                queue.extend(entry(result, symbols[after].id, at));
            }
            if let Some(before) = left.before {
                queue.extend(entry(symbols[before].id, result, before));
            }
        }
        symbols.retain(|s| s.len > 0);
    }
}

impl<'a> Bpe<'a> {
    pub fn new(
        settings: BpeSettings,
        vocabulary: Vocabulary<'a>,
        section: &Section<'a>,
    ) -> Bpe<'a> {
        let unk = settings.unk_token.as_deref();
        Bpe {
            unk: unk.and_then(|unk| vocabulary.id(unk)),
            settings,
            vocabulary,
            merges: Merges {
                starts: section.words(Part::MergeStarts),
                rights: section.words(Part::MergeRights),
                ranks: section.words(Part::MergeRanks),
                results: section.words(Part::MergeResults),
            },
        }
    }

    pub fn tokenize(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        if self.settings.ignore_merges
            && let Some(id) = self.vocabulary.id(text)
        {
            return Ok(vec![Token::new(id, text.to_owned(), (0, text.len()))]);
        }
        let mut word = self.characters(text)?;
        word.merge(&self.merges);
        let mut start = 0;
        let token = |symbol: &Symbol| {
            let offsets = (start, start + symbol.len);
            start = offsets.1;
            self.vocabulary.token(symbol.id, offsets)
        };
        Ok(word.0.iter().map(token).collect())
    }

    /// The text's characters as tokens: their own, else their bytes', else the unknown one.
    fn characters(&self, text: &str) -> tokenizers::Result<Word> {
        if u32::try_from(text.len()).is_err() {
            return Err("a piece of it has more than four gigabytes".into());
        }
        let s = &self.settings;
        let mut word = Word(Vec::with_capacity(text.len()));
        // Length of the unknown text that is not in the word yet.
        let mut unknown: Option<usize> = None;
        for (start, c) in text.char_indices() {
            let len = c.len_utf8();
            let mut spelt = Cow::Borrowed(&text[start..start + len]);
            if let Some(prefix) = s.continuing_subword_prefix.as_ref().filter(|_| start > 0) {
                spelt.to_mut().insert_str(0, prefix);
            }
            let is_last = start + len == text.len();
            if let Some(suffix) = s.end_of_word_suffix.as_ref().filter(|_| is_last) {
                spelt.to_mut().push_str(suffix);
            }
            if let Some(id) = self.vocabulary.id(&spelt) {
                if let Some((unk, unknown)) = self.unk.zip(unknown.take()) {
                    word.push(unk, unknown);
                }
                word.push(id, len);
                continue;
            }
            // As the crate does, bytes go in front of unknown text that still waits.
            if s.byte_fallback
                && let Some(bytes) = self.vocabulary.spell(&spelt)
            {
                bytes.into_iter().for_each(|id| word.push(id, 1));
                continue;
            }
            let Some(name) = &s.unk_token else {
                continue;
            };
            let unk = self
                .unk
                .ok_or_else(|| format!("the unknown token `{name}` is not in the vocabulary"))?;
            unknown = match unknown {
                Some(waiting) if s.fuse_unk => Some(waiting + len),
                Some(waiting) => {
                    word.push(unk, waiting);
                    Some(len)
                }
                None => Some(len),
            };
        }
        if let Some((unk, unknown)) = self.unk.zip(unknown) {
            word.push(unk, unknown);
        }
        Ok(word)
    }
}
