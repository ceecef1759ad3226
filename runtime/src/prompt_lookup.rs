//! Prompt lookup: guesses the next tokens from what came before, so that one step can check several.
//!
//! Input: the tokens so far. Output: tokens that may follow, and how many of them a step may hold
//! ([`Room`]). A guess is the continuation of an earlier place where the last tokens stood, the
//! longest such end first, the latest place first. What the model then picks at each place is
//! exactly what it picks without guesses, as a row's bits do not depend on the other rows.
//! Not here: picking.

use crate::Result;
use crate::engine::{Engine, Span};
use crate::kv_cache::SeqId;

/// Tokens that must have stood before, at most and at least.
const LONGEST: usize = 4;
const SHORTEST: usize = 1;

/// Appends `most` tokens that may follow `tokens`; none where nothing like their end came before.
/// What repeats is guessed to go on repeating: the guess is read on where the tokens end.
pub fn guess(tokens: &[u32], most: usize, out: &mut Vec<i32>) {
    for n in (SHORTEST..=LONGEST).rev() {
        let Some(start) = tokens.len().checked_sub(n).filter(|s| *s > 0) else {
            continue;
        };
        let end = &tokens[start..];
        // Places before the end itself, each followed by at least one token.
        if let Some(at) = (0..start).rev().find(|&at| &tokens[at..at + n] == end) {
            let period = &tokens[at + n..];
            out.extend(period.iter().cycle().take(most).map(|&t| t as i32));
            return;
        }
    }
}

/// Guesses that were made and that were right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub guessed: usize,
    pub right: usize,
}

/// Guesses that a step of `sequences` sequences can check for one of them, whose last token is not
/// in the cache yet: the step's rows bound them, and a longrope model's other factors (guesses must
/// not make it recompute what a plain step would not).
pub fn room(engine: &Engine<'_>, seq: SeqId, sequences: usize) -> usize {
    let m = engine.manifest();
    let rows = m.limits.max_rows.min(m.limits.max_tokens) as usize / sequences.max(1);
    let after = engine.len(seq) + 1;
    let before_switch = match m.rope_switch {
        Some(switch) if after <= switch as usize => switch as usize - after,
        _ => usize::MAX,
    };
    rows.saturating_sub(1).min(before_switch)
}

/// Takes what the model picks at the rows of a span, as long as all before them picked what was
/// guessed. `fed` are the item's ids: the last token, then the guesses; `pick` gets a row of the step.
pub fn check(
    span: &Span,
    fed: &[i32],
    picked: &mut Vec<u32>,
    mut pick: impl FnMut(usize) -> Result<u32>,
) -> Result<()> {
    for k in 0..span.rows {
        let at = span.row_first + k;
        let is_right = at == 0 || picked.last().map(|&t| t as i32) == fed.get(at).copied();
        if picked.len() != at || !is_right {
            return Ok(());
        }
        picked.push(pick(span.row + k)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_guess(tokens: &[u32], most: usize, expected: &[i32]) {
        let mut found = vec![-1];
        guess(tokens, most, &mut found);
        assert_eq!(found[1..], *expected, "{tokens:?}");
    }

    #[test]
    fn the_longest_and_latest_place_is_continued() {
        check_guess(&[1, 2, 3, 1, 2], 2, &[3, 1]);
        check_guess(&[1, 2, 3, 1, 2], 7, &[3, 1, 2, 3, 1, 2, 3]);
        // Two tokens before one.
        check_guess(&[5, 2, 7, 9, 2, 8, 5, 2], 1, &[7]);
        // The latest place.
        check_guess(&[2, 7, 2, 8, 2], 1, &[8]);
        check_guess(&[4, 4], 3, &[4, 4, 4]);
        check_guess(&[1, 2, 3], 3, &[]);
        check_guess(&[1], 3, &[]);
        check_guess(&[], 3, &[]);
        check_guess(&[4, 4], 0, &[]);
    }

    fn check_rows(fed: &[i32], model: &[u32], spans: &[(usize, usize)]) -> Vec<u32> {
        let mut picked = Vec::new();
        for &(first, rows) in spans {
            let span = Span {
                work: 0,
                first,
                len: rows,
                token: 0,
                row: 10,
                rows,
                row_first: first,
                last: false,
            };
            check(&span, fed, &mut picked, |row| Ok(model[first + row - 10])).unwrap();
        }
        picked
    }

    #[test]
    fn picks_end_behind_the_first_wrong_guess() {
        let fed = [7, 1, 2, 3];
        assert_eq!(check_rows(&fed, &[1, 2, 3, 4], &[(0, 4)]), [1, 2, 3, 4]);
        assert_eq!(check_rows(&fed, &[1, 9, 3, 4], &[(0, 4)]), [1, 9]);
        assert_eq!(check_rows(&fed, &[9, 2, 3, 4], &[(0, 2), (2, 2)]), [9]);
        assert_eq!(
            check_rows(&fed, &[1, 2, 9, 4], &[(0, 2), (2, 2)]),
            [1, 2, 9]
        );
        assert_eq!(check_rows(&fed[..1], &[5], &[(0, 1)]), [5]);
    }
}
