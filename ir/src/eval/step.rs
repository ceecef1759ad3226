//! One step's sequences: which new tokens belong to which sequence, and how long those are.
//!
//! [`StepInput`] → [`Step`], checked against the module's bounds.

use super::{EvalError, Tensor};
use crate::Dims;
use indexmap::IndexMap;

/// A sequence's share of a step: its `new` tokens stand behind `past` earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SeqStep {
    /// Names the sequence from step to step.
    pub id: u32,
    /// Tokens that earlier steps have seen.
    pub past: u32,
    /// Tokens of this step; at least one.
    pub new: u32,
}

/// What a step computes: the packed tokens of all sequences, one sequence after another.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StepInput {
    /// `[N]`.
    pub ids: Vec<i32>,
    /// Positions within the sequences, `[N]`.
    pub pos: Vec<i32>,
    /// Token types, `[N]`; zeros where left out.
    pub types: Option<Vec<i32>>,
    pub seqs: Vec<SeqStep>,
    /// The length that each sequence's rope goes by (see [`crate::rope`]), `[B]`; past and new tokens
    /// where left out.
    pub lengths: Option<Vec<u32>>,
    /// Tokens whose logits are wanted, `[R]`.
    pub rows: Vec<u32>,
    /// Which sequence's keys and values `kv_source` shows to each of `seqs`; empty: its own.
    pub sources: Vec<u32>,
    /// Rows `[N, D]` that the entry takes besides, by the parameter's name.
    pub rows_in: IndexMap<String, Tensor>,
}

/// A checked step.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub seqs: Vec<SeqStep>,
    /// Of every sequence, the length that its rope goes by.
    pub lengths: Vec<u32>,
    pub rows: Vec<u32>,
    /// Of every sequence.
    pub sources: Vec<u32>,
    /// Sequence of every token, and the token's index within this step's share of it.
    pub tokens: Vec<(usize, usize)>,
    /// First token of every sequence.
    pub starts: Vec<usize>,
}

impl Step {
    /// Checks `input` against the bounds of an entry's extents.
    pub fn new(dims: &Dims, input: &StepInput) -> Result<Step, EvalError> {
        let fail = |message: String| Err(EvalError::Input(message));
        let mut tokens = Vec::new();
        let mut starts = Vec::new();
        for (i, s) in input.seqs.iter().enumerate() {
            if s.new == 0 || input.seqs[..i].iter().any(|o| o.id == s.id) {
                return fail(format!("sequence {} comes twice, or without tokens", s.id));
            }
            let total = u64::from(s.past) + u64::from(s.new);
            if total > u64::from(dims.t) {
                return fail(format!("{total} tokens in a sequence, at most {}", dims.t));
            }
            let all = tokens.len() + s.new as usize;
            if all > input.ids.len() && !input.ids.is_empty() {
                return fail(format!("{} ids, the sequences have more", input.ids.len()));
            }
            if all > dims.n as usize {
                return fail(format!("{all} tokens in a step, at most {}", dims.n));
            }
            starts.push(tokens.len());
            tokens.extend((0..s.new as usize).map(|t| (i, t)));
        }
        let n = tokens.len();
        let bounds = [
            ("tokens", n, dims.n),
            ("sequences", starts.len(), dims.b),
            ("rows", input.rows.len(), dims.r),
        ];
        for (what, found, bound) in bounds {
            if found > bound as usize {
                return fail(format!("{found} {what} in a step, at most {bound}"));
            }
        }
        let types = input.types.as_ref().map_or(n, Vec::len);
        // Entries that read rows take neither ids nor positions.
        let given = |list: &[i32]| list.is_empty() || list.len() == n;
        if n == 0 || !given(&input.ids) || !given(&input.pos) || types != n {
            return fail(format!(
                "{n} tokens with {} ids, {} positions and {types} types",
                input.ids.len(),
                input.pos.len()
            ));
        }
        let own = || input.seqs.iter().map(|s| s.past + s.new).collect();
        let lengths = input.lengths.clone().unwrap_or_else(own);
        if lengths.len() != starts.len() {
            let (found, sequences) = (lengths.len(), starts.len());
            return fail(format!("{found} lengths of {sequences} sequences"));
        }
        if let Some(row) = input.rows.iter().find(|&&r| r as usize >= n) {
            return fail(format!("row {row} of {n} tokens is wanted"));
        }
        let own = input.seqs.iter().map(|s| s.id);
        let sources = match input.sources.len() {
            0 => own.collect(),
            n if n == input.seqs.len() => input.sources.clone(),
            n => return fail(format!("{n} sources of {} sequences", input.seqs.len())),
        };
        Ok(Step {
            seqs: input.seqs.clone(),
            lengths,
            rows: input.rows.clone(),
            sources,
            tokens,
            starts,
        })
    }

    /// The length that the rope of token `n`'s sequence goes by.
    pub fn length_of(&self, n: usize) -> u32 {
        let seq = self.tokens.get(n).map_or(0, |t| t.0);
        self.lengths.get(seq).copied().unwrap_or(0)
    }

    /// Number of new tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// True for a step of nothing.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens of sequence `seq`.
    pub fn range(&self, seq: usize) -> std::ops::Range<usize> {
        let start = self.starts.get(seq).copied().unwrap_or(0);
        start..start + self.seqs.get(seq).map_or(0, |s| s.new as usize)
    }
}
