//! Merges of SentencePiece's BPE, which keeps none: it merges the pair that makes the token of the highest score.
//!
//! In: tokens with scores. Out: merges in order, as Hugging Face's converter finds them: every way to cut a token
//! into two tokens is a merge; merges are sorted by the score of the whole, then by the length of the left and of
//! the right part, all descending.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Value, json};

/// Gemma has 580 thousand.
const MERGES: usize = 4 << 20;
/// Bytes of one token: every cut is looked up.
const LENGTH: usize = 512;

/// A token as it is spelled.
pub struct Piece {
    pub id: u32,
    pub text: String,
    /// Infinite for user-defined tokens, which come first: SentencePiece cuts them out before anything else.
    pub score: f32,
}

/// Two tokens, and what decides when they are merged.
struct Merge {
    score: f32,
    /// Characters of the left and the right part.
    lengths: (usize, usize),
    /// Ids of the parts.
    ids: (u32, u32),
    /// The piece that they make, and where it is cut.
    whole: usize,
    at: usize,
}

/// All merges; else the id of a token and what is wrong with it, or none for all of them.
pub fn merges(
    pieces: &[Piece],
    ids: &HashMap<String, u32>,
) -> Result<Value, (Option<u32>, String)> {
    let mut merges: Vec<Merge> = Vec::new();
    let mut local = Vec::new();
    for (whole, piece) in pieces.iter().enumerate() {
        let text = &piece.text;
        if text.len() > LENGTH {
            let what = format!("found {} bytes, expected at most {LENGTH}", text.len());
            return Err((Some(piece.id), what));
        }
        let characters = text.chars().count();
        let cuts = text.char_indices().enumerate().skip(1);
        local.extend(cuts.filter_map(|(count, (at, _))| {
            let (left, right) = text.split_at(at);
            Some(Merge {
                score: piece.score,
                lengths: (count, characters - count),
                ids: (*ids.get(left)?, *ids.get(right)?),
                whole,
                at,
            })
        }));
        local.sort_by_key(|merge| merge.ids);
        merges.append(&mut local);
        if merges.len() > MERGES {
            let what = format!("tokens that can be cut into others in more than {MERGES} ways");
            return Err((None, what));
        }
    }
    // Stable: equal ones stay in the order of the vocabulary.
    merges.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then(b.lengths.cmp(&a.lengths))
    });
    let pair = |merge: &Merge| {
        let (left, right) = pieces[merge.whole].text.split_at(merge.at);
        json!([left, right])
    };
    Ok(merges.iter().map(pair).collect())
}
