//! Inputs of a bounded length: texts that are cut, or read in windows that overlap.
//!
//! Input: a text or a pair of them, the longest input. Output: one [`Window`] for a text that fits or is cut,
//! several for one that is read in windows, each with the tokens that the model expects around it and the
//! bytes that every token stands for. Of a pair that is cut the longer text loses tokens first, of a pair
//! that is read in windows the second one slides.

use super::{Tokenizer, failed};
use crate::{Error, Result};
use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy,
    truncate_encodings,
};

/// An input of the model, and what its tokens stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Which text a token is of: 0, or 1 for that of a pair's second; none for tokens that were added.
    pub texts: Vec<Option<usize>>,
    /// Start and end in bytes within the token's text.
    pub offsets: Vec<(usize, usize)>,
    /// Those of the word that the token is a part of, as far as it is in this window.
    pub words: Vec<(usize, usize)>,
}

/// What becomes of a text that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlong {
    /// Its end is left out.
    Cut,
    /// It is read in windows that share so many tokens.
    Windows { stride: usize },
}

impl Tokenizer<'_> {
    /// A text, or a pair, as inputs of at most `limit` tokens; true if it was cut.
    pub fn windows(
        &self,
        text: &str,
        pair: Option<&str>,
        limit: usize,
        overlong: Overlong,
    ) -> Result<(Vec<Window>, bool)> {
        let first = self.segment(text, 0)?;
        let second = pair.map(|pair| self.segment(pair, 1)).transpose()?;
        let added = self.post_processor.as_ref();
        let added = added.map_or(0, |p| p.added_tokens(second.is_some()));
        let len = first.len() + second.as_ref().map_or(0, Encoding::len);
        if len + added <= limit {
            return Ok((vec![self.window(first, second)?], false));
        }
        let room = limit.saturating_sub(added);
        match overlong {
            Overlong::Cut => {
                let params = TruncationParams {
                    max_length: room,
                    strategy: TruncationStrategy::LongestFirst,
                    ..TruncationParams::default()
                };
                let (first, second) = truncate_encodings(first, second, &params).map_err(failed)?;
                Ok((vec![self.window(first, second)?], true))
            }
            Overlong::Windows { stride } => {
                let fixed = if second.is_some() { first.len() } else { 0 };
                let room = room.saturating_sub(fixed);
                if room == 0 {
                    return Err(Error::Input(format!(
                        "{fixed} tokens and {added} special ones leave no room for a text within {limit}"
                    )));
                }
                // A window has to go on by a token at least.
                let stride = stride.min(room - 1);
                let (mut sliding, question) = match second {
                    Some(second) => (second, Some(first)),
                    None => (first, None),
                };
                sliding.truncate(room, stride, TruncationDirection::Right);
                let rest = sliding.take_overflowing();
                let parts = std::iter::once(sliding).chain(rest);
                let windows = parts.map(|part| match &question {
                    Some(question) => self.window(question.clone(), Some(part)),
                    None => self.window(part, None),
                });
                Ok((windows.collect::<Result<_>>()?, false))
            }
        }
    }

    /// The input that segments make.
    fn window(&self, mut first: Encoding, second: Option<Encoding>) -> Result<Window> {
        // What was cut off is of no use to the post-processor.
        first.take_overflowing();
        let second = second.map(|mut second| {
            second.take_overflowing();
            second
        });
        let whole = self.post_process(first, second, true)?;
        let texts = whole.get_sequence_ids();
        let words = word_offsets(&texts, whole.get_word_ids(), whole.get_offsets());
        Ok(Window {
            ids: whole.get_ids().to_vec(),
            type_ids: whole.get_type_ids().to_vec(),
            offsets: whole.get_offsets().to_vec(),
            texts,
            words,
        })
    }
}

/// The bytes of every token's word: a run of tokens of one text with the same number.
fn word_offsets(
    texts: &[Option<usize>],
    words: &[Option<u32>],
    offsets: &[(usize, usize)],
) -> Vec<(usize, usize)> {
    let mut all: Vec<(usize, usize)> = offsets.to_vec();
    let mut start = 0;
    for end in 1..=all.len() {
        let same =
            |i: usize| words[i].is_some() && (texts[i], words[i]) == (texts[start], words[start]);
        if end < all.len() && same(end) {
            continue;
        }
        let word = (offsets[start].0, offsets[end - 1].1);
        all[start..end].fill(word);
        start = end;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::compile;

    /// `[CLS] a b [SEP] c d [SEP]` of words that are letters.
    fn section() -> Vec<u8> {
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let specials = ["[CLS]".to_owned(), "[SEP]".to_owned(), "[UNK]".to_owned()];
        let vocab: serde_json::Map<String, serde_json::Value> = specials
            .iter()
            .chain(&letters)
            .zip(0..)
            .map(|(t, i)| (t.clone(), serde_json::json!(i)))
            .collect();
        let json = serde_json::json!({
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        });
        compile(json.to_string().as_bytes()).unwrap()
    }

    fn texts(windows: &[Window], texts: [&str; 2]) -> Vec<String> {
        let token = |w: &Window, i: usize| match w.texts[i] {
            None => "|".to_owned(),
            Some(t) => texts[t][w.offsets[i].0..w.offsets[i].1].to_owned(),
        };
        let text = |w: &Window| (0..w.ids.len()).map(|i| token(w, i)).collect();
        windows.iter().map(text).collect()
    }

    #[track_caller]
    fn check(pair: [&str; 2], limit: usize, overlong: Overlong, expected: &[&str], cut: bool) {
        let section = section();
        let tokenizer = Tokenizer::open(&section).unwrap();
        let second = Some(pair[1]).filter(|t| !t.is_empty());
        let (windows, was_cut) = tokenizer.windows(pair[0], second, limit, overlong).unwrap();
        assert_eq!(texts(&windows, pair), expected);
        assert_eq!(was_cut, cut);
        assert!(windows.iter().all(|w| w.ids.len() <= limit));
    }

    #[test]
    fn texts_that_fit_are_left_alone() {
        check(["a b c", ""], 5, Overlong::Cut, &["|abc|"], false);
        check(
            ["a b", "c"],
            6,
            Overlong::Windows { stride: 2 },
            &["|ab|c|"],
            false,
        );
    }

    #[test]
    fn the_longer_text_is_cut_first() {
        check(["a b c", ""], 4, Overlong::Cut, &["|ab|"], true);
        check(["a", "c d e f"], 6, Overlong::Cut, &["|a|cd|"], true);
        check(["a b c d", "e"], 6, Overlong::Cut, &["|ab|e|"], true);
        check(["a b c", "d e f"], 7, Overlong::Cut, &["|ab|de|"], true);
        check(["a b c", ""], 2, Overlong::Cut, &["||"], true);
    }

    #[test]
    fn windows_overlap() {
        let windows = Overlong::Windows { stride: 1 };
        check(["a b c d e", ""], 5, windows, &["|abc|", "|cde|"], false);
        check(
            ["a", "c d e f"],
            6,
            windows,
            &["|a|cd|", "|a|de|", "|a|ef|"],
            false,
        );
        // Even a stride of the whole room goes on.
        let windows = Overlong::Windows { stride: 9 };
        check(["a b c", ""], 4, windows, &["|ab|", "|bc|"], false);
    }

    #[test]
    fn a_question_has_to_leave_room() {
        let section = section();
        let tokenizer = Tokenizer::open(&section).unwrap();
        let windows = Overlong::Windows { stride: 1 };
        let e = tokenizer
            .windows("a b c", Some("d e"), 6, windows)
            .unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("leave no room"), "{e}");
    }

    #[test]
    fn words_are_runs_of_tokens() {
        let section = section();
        let tokenizer = Tokenizer::open(&section).unwrap();
        let (windows, _) = tokenizer
            .windows("ab c", Some("de"), 9, Overlong::Cut)
            .unwrap();
        assert_eq!(
            windows[0].words,
            [
                (0, 0),
                (0, 2),
                (0, 2),
                (3, 4),
                (0, 0),
                (0, 2),
                (0, 2),
                (0, 0)
            ]
        );
    }
}
