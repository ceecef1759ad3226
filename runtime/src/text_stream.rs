//! Ids to text as they come: [`TextStream`] decodes across tokens, [`StopFilter`] finds stop
//! strings across pieces of text.
//!
//! A character may be spread over several tokens (byte-level vocabularies, byte fallback), and a
//! token's text may depend on the one before it (the leading space of SentencePiece). So a window
//! of ids is decoded, from the last place known to be a border, and what is new is given out once
//! it ends in a whole character.
//! Invariants: all pieces joined, `finish` included, are the text of all ids, where those are whole
//! characters; bytes that never become one are given out as replacement characters after a while,
//! so the window stays small.

use crate::Result;
use crate::tokenizer::Tokenizer;

/// Ids of the prompt that give the first new token its context.
const CONTEXT_IDS: usize = 8;

/// Bytes, hence ids, of the longest character.
const LONGEST_CHAR: usize = 4;

/// Ids that are waited for before broken text is given out as it is.
const PATIENCE: usize = 16;
/// Ids that are kept at most where they give no text at all (special tokens).
const MOST_IDS: usize = 256;

/// Decodes token by token.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer<'t>,
    skip_special: bool,
    ids: Vec<u32>,
    /// `ids[..border]` have been given out; they are kept for context.
    border: usize,
}

impl<'t> TextStream<'t> {
    /// A stream that continues `prompt` (empty: a text of its own, without a leading space). A
    /// character that the prompt has begun is given out whole.
    pub fn new(
        tokenizer: &'t Tokenizer<'t>,
        prompt: &[u32],
        skip_special: bool,
    ) -> Result<TextStream<'t>> {
        let broken = |ids: &[u32], at_start: bool| -> Result<bool> {
            let text = tokenizer.decode(ids, skip_special)?;
            Ok(if at_start {
                text.starts_with('\u{fffd}')
            } else {
                text.ends_with('\u{fffd}')
            })
        };
        // Both ends of the context shall be borders of characters: a few ids back there is one.
        let latest = prompt.len().saturating_sub(CONTEXT_IDS);
        let mut first = latest;
        while first > 0 && latest - first < LONGEST_CHAR && broken(&prompt[first..], true)? {
            first -= 1;
        }
        let ids = prompt[first..].to_vec();
        let mut border = ids.len();
        while border > 0 && ids.len() - border < LONGEST_CHAR && broken(&ids[..border], false)? {
            border -= 1;
        }
        if broken(&ids[..border], false)? {
            border = ids.len();
        }
        Ok(TextStream {
            tokenizer,
            skip_special,
            ids,
            border,
        })
    }

    /// Takes a token and gives out the text that it completes, which may be empty.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.is_empty() {
            // Kept as context: the next token may need to know what it follows.
            let many = self.ids.len().saturating_sub(MOST_IDS);
            self.ids.drain(..many);
            self.border = self.ids.len();
            return Ok(text);
        }
        if text.ends_with('\u{fffd}') && self.ids.len() - self.border < PATIENCE {
            return Ok(String::new());
        }
        self.ids.drain(..self.border);
        self.border = self.ids.len();
        Ok(text)
    }

    /// What is left: the replacement characters of an unfinished one.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.pending()?;
        self.border = self.ids.len();
        Ok(text)
    }

    fn pending(&self) -> Result<String> {
        let known = self
            .tokenizer
            .decode(&self.ids[..self.border], self.skip_special)?;
        let whole = self.tokenizer.decode(&self.ids, self.skip_special)?;
        let mut same = known
            .bytes()
            .zip(whole.bytes())
            .position(|(a, b)| a != b)
            .unwrap_or(known.len().min(whole.len()));
        while !whole.is_char_boundary(same) {
            same -= 1;
        }
        Ok(whole[same..].to_owned())
    }
}

/// Looks for stop strings in text that comes in pieces; holds back what may be the start of one.
#[derive(Clone, Debug, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter for these strings; empty ones never match.
    pub fn new(stops: &[String]) -> StopFilter {
        let stops = stops.iter().filter(|s| !s.is_empty()).cloned().collect();
        StopFilter {
            stops,
            held: String::new(),
        }
    }

    /// Takes a piece; gives out what is certain, and whether a stop string was met. The stop
    /// string itself is never given out.
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s)).min() {
            let text = self.held[..at].to_owned();
            self.held.clear();
            return (text, true);
        }
        let keep = self
            .stops
            .iter()
            .map(|s| overlap(&self.held, s))
            .max()
            .unwrap_or(0);
        let held = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, held), false)
    }

    /// What was held back, now that nothing follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes of the longest end of `text` that is a proper start of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(i, _)| i).filter(|&i| i > 0);
    starts
        .filter(|&i| text.ends_with(&stop[..i]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stops: &[&str], pieces: &[&str], expected: &[&str], stopped: bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut out = Vec::new();
        let mut met = false;
        for piece in pieces {
            let (text, stop) = filter.push(piece);
            out.push(text);
            met |= stop;
        }
        assert_eq!(
            (out, met),
            (expected.iter().map(|s| s.to_string()).collect(), stopped)
        );
    }

    #[test]
    fn stop_strings_are_found_across_pieces() {
        check(&[], &["a", "b"], &["a", "b"], false);
        check(&["END"], &["x E", "N", "D y"], &["x ", "", ""], true);
        check(&["END"], &["x E", "N", "d"], &["x ", "", "ENd"], false);
        check(&["ab", "b"], &["xab"], &["x"], true);
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(&["é!"], &["caf", "é", "!"], &["caf", "", ""], true);
        check(&[""], &["a"], &["a"], false);
    }

    #[test]
    fn what_was_held_comes_at_the_end() {
        let mut filter = StopFilter::new(&["END".into()]);
        assert_eq!(filter.push("x EN").0, "x ");
        assert_eq!(filter.finish(), "EN");
    }
}
