//! Places in a text, in bytes and in characters.
//!
//! Input: byte offsets of tokens. Output: [`Span`]s on character boundaries, with the text between. Not here:
//! where the offsets come from (`tokenizer`).

use serde::Serialize;

/// A part of a text: `start..end` in characters (Unicode scalar values, as Python counts them) and in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    pub start_byte: usize,
    pub end_byte: usize,
}

/// Finds characters by bytes; asking in ascending order is cheap.
#[derive(Debug)]
pub struct Characters<'t> {
    text: &'t str,
    byte: usize,
    count: usize,
}

impl<'t> Characters<'t> {
    /// Starts at the beginning.
    pub fn of(text: &'t str) -> Characters<'t> {
        Characters {
            text,
            byte: 0,
            count: 0,
        }
    }

    /// The span of bytes, widened to whole characters and kept inside of the text.
    pub fn span(&mut self, (start, end): (usize, usize)) -> (Span, &'t str) {
        let mut start = start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        let text = &self.text[start..end];
        let first = self.character(start);
        let span = Span {
            start: first,
            end: first + text.chars().count(),
            start_byte: start,
            end_byte: end,
        };
        (span, text)
    }

    /// How many characters stand before a boundary.
    fn character(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            (self.byte, self.count) = (0, 0);
        }
        self.count += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_whole() {
        let mut characters = Characters::of("aä€😀b");
        let mut check = |bytes, expected: (usize, usize, &str)| {
            let (span, text) = characters.span(bytes);
            assert_eq!((span.start, span.end, text), expected, "{bytes:?}");
            assert_eq!(&"aä€😀b"[span.start_byte..span.end_byte], text);
        };
        check((1, 3), (1, 2, "ä"));
        check((2, 4), (1, 3, "ä€"));
        check((7, 8), (3, 4, "😀"));
        check((10, 99), (4, 5, "b"));
        check((0, 1), (0, 1, "a"));
        check((50, 3), (5, 5, ""));
    }
}
