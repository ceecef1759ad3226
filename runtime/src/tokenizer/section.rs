//! The compiled tokenizer's bytes: a header and the parts, used where they lie.
//!
//! ```text
//! 0    magic "LLMCTOK\0"
//! 8    version u32, number of parts u32
//! 16   BLAKE3 of the part `settings` (32 bytes)
//! 48   for each part of [`Part`], in order: offset u64 (from the section's start), length u64
//! …    the parts, each aligned to 64 bytes
//! ```
//! All integers are little endian; tables of u32 and f64 have no further framing.
//!
//! In: the parts when writing, any bytes when reading. Out: the section, or views of its parts.
//! Invariants: opening costs the same whatever the vocabulary's size; every access to a table is
//! checked where it happens, so altered tables give wrong tokens at worst, never a panic. The part
//! that is parsed (`settings`) is compared with its digest.
//! Not here: what the parts mean (the files beside this one).

use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"LLMCTOK\0";
/// Changes with the layout or the meaning of any part.
const VERSION: u32 = 1;
const DIGEST_AT: usize = 16;
const TABLE_AT: usize = 48;
const HEADER_BYTES: usize = TABLE_AT + Part::COUNT * 16;
const ALIGN: usize = 64;

/// The parts of a section, in the order of the header's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// JSON: the model's settings, normalizer, pre-tokenizer, post-processor, decoder.
    Settings,
    /// [`Strings`] of the model's vocabulary by id.
    TokenStarts,
    TokenText,
    /// Trie from a token's text to its id.
    Vocabulary,
    /// BPE: merges of each left id, by right id; their ranks; by rank, the merged ids.
    MergeStarts,
    MergeRights,
    MergeRanks,
    MergeResults,
    /// Unigram: a score for each id, and the score of an unknown character behind them (f64).
    Scores,
    /// Added tokens: pairs (id, flags), ascending by id.
    Added,
    /// [`Strings`] of the added tokens: content at `2 i`, normalized form at `2 i + 1`.
    AddedStarts,
    AddedText,
    /// Trie of the contents that are looked for in the text as it is given.
    AddedRaw,
    /// Trie of the forms that are looked for in normalized text.
    AddedNormalized,
    /// Ids of tokens that decoding may skip, ascending.
    Special,
}

impl Part {
    const COUNT: usize = Part::Special as usize + 1;
}

/// Collects the parts of a section.
#[derive(Default)]
pub(super) struct Writer {
    parts: [Vec<u8>; Part::COUNT],
}

impl Writer {
    pub fn set(&mut self, part: Part, bytes: Vec<u8>) {
        self.parts[part as usize] = bytes;
    }

    pub fn set_words(&mut self, part: Part, words: impl IntoIterator<Item = u32>) {
        self.set(part, words.into_iter().flat_map(u32::to_le_bytes).collect());
    }

    /// Words that a part holds by now.
    pub fn words(&self, part: Part) -> usize {
        self.parts[part as usize].len() / 4
    }

    /// Stores texts by index; `None` where there is none.
    pub fn set_strings<'s>(
        &mut self,
        (starts, text): (Part, Part),
        strings: impl IntoIterator<Item = Option<&'s str>>,
    ) {
        let mut bytes = Vec::new();
        let mut words = Vec::new();
        for string in strings {
            let start = bytes.len() as u32;
            words.push(start | if string.is_none() { ABSENT } else { 0 });
            bytes.extend_from_slice(string.unwrap_or_default().as_bytes());
        }
        words.push(bytes.len() as u32);
        self.set_words(starts, words);
        self.set(text, bytes);
    }

    /// The section's bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((Part::COUNT as u32).to_le_bytes());
        out.extend(blake3::hash(&self.parts[Part::Settings as usize]).as_bytes());
        let mut offset = HEADER_BYTES;
        for part in &self.parts {
            offset = offset.next_multiple_of(ALIGN);
            out.extend((offset as u64).to_le_bytes());
            out.extend((part.len() as u64).to_le_bytes());
            offset += part.len();
        }
        for part in &self.parts {
            out.resize(out.len().next_multiple_of(ALIGN), 0);
            out.extend_from_slice(part);
        }
        out
    }
}

/// A section whose header was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    parts: [&'a [u8]; Part::COUNT],
}

impl<'a> Section<'a> {
    /// Checks the header, the bounds of the parts and the digest of the settings.
    pub fn open(bytes: &'a [u8]) -> Result<Section<'a>> {
        let header = bytes
            .get(..HEADER_BYTES)
            .ok_or_else(|| damaged("it is cut off"))?;
        let word = |at: usize| Words(header).at_byte(at);
        if header[..8] != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        if word(8) != Some(VERSION) {
            return Err(damaged(&format!(
                "it is of version {}, this code reads version {VERSION}",
                word(8).unwrap_or(0)
            )));
        }
        if word(12) != Some(Part::COUNT as u32) {
            return Err(damaged("its number of parts is wrong"));
        }
        let size = |at: usize| {
            let low = u64::from(word(at)?);
            let high = u64::from(word(at + 4)?);
            usize::try_from(high << 32 | low).ok()
        };
        let mut parts: [&[u8]; Part::COUNT] = [&[]; Part::COUNT];
        for (i, part) in parts.iter_mut().enumerate() {
            let at = TABLE_AT + i * 16;
            let range = size(at).zip(size(at + 8));
            let range = range.and_then(|(start, len)| Some(start..start.checked_add(len)?));
            *part = range
                .and_then(|range| bytes.get(range))
                .ok_or_else(|| damaged("a part lies outside of it"))?;
        }
        let settings = parts[Part::Settings as usize];
        if header[DIGEST_AT..TABLE_AT] != *blake3::hash(settings).as_bytes() {
            return Err(damaged("its settings do not match their digest"));
        }
        Ok(Section { parts })
    }

    pub fn bytes(&self, part: Part) -> &'a [u8] {
        self.parts[part as usize]
    }

    pub fn words(&self, part: Part) -> Words<'a> {
        Words(self.bytes(part))
    }

    pub fn strings(&self, (starts, text): (Part, Part)) -> Strings<'a> {
        Strings {
            starts: self.words(starts),
            text: self.bytes(text),
        }
    }
}

/// The error of a section that cannot be used.
pub(super) fn damaged(why: &str) -> Error {
    Error::Payload(format!("the compiled tokenizer is damaged: {why}"))
}

/// A table of u32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    pub fn len(&self) -> usize {
        self.0.len() / 4
    }

    pub fn get(&self, index: usize) -> Option<u32> {
        self.at_byte(index.checked_mul(4)?)
    }

    fn at_byte(&self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    }

    /// The first index in `range` whose word is at least `word`, the words being ascending.
    pub fn lower_bound(&self, range: std::ops::Range<usize>, word: u32) -> usize {
        let (mut low, mut high) = (range.start, range.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle) {
                Some(found) if found < word => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

/// Marks a start that belongs to no text.
const ABSENT: u32 = 1 << 31;

/// Texts by index: `starts[i]` and `starts[i + 1]` bound text `i`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strings<'a> {
    starts: Words<'a>,
    text: &'a [u8],
}

impl<'a> Strings<'a> {
    pub fn bytes(&self, index: u32) -> Option<&'a [u8]> {
        let index = index as usize;
        let start = self.starts.get(index).filter(|s| s & ABSENT == 0)?;
        let end = self.starts.get(index.checked_add(1)?)? & !ABSENT;
        self.text.get(start as usize..end as usize)
    }

    pub fn get(&self, index: u32) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(index)?).ok()
    }
}
