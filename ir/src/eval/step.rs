//! One step's sequences: which new tokens belong to which sequence, and how long those are.
//!
//! [`StepInput`] → [`Step`], checked against the module's bounds.

use super::EvalError;
use crate::Module;

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
}

/// A checked step.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    pub seqs: Vec<SeqStep>,
    /// Of every sequence, the length that its rope goes by.
    pub lengths: Vec<u32>,
    pub rows: Vec<u32>,
    /// Sequence of every token, and the token's index within this step's share of it.
    pub tokens: Vec<(usize, usize)>,
    /// First token of every sequence.
    pub starts: Vec<usize>,
}

impl Step {
    /// Checks `input` against the bounds of `module`.
    pub fn new(module: &Module, input: &StepInput) -> Result<Step, EvalError> {
        let fail = |message: String| Err(EvalError::Input(message));
        let mut tokens = Vec::new();
        let mut starts = Vec::new();
        for (i, s) in input.seqs.iter().enumerate() {
            if s.new == 0 || input.seqs[..i].iter().any(|o| o.id == s.id) {
                return fail(format!("sequence {} comes twice, or without tokens", s.id));
            }
            let total = u64::from(s.past) + u64::from(s.new);
            if total > u64::from(module.dims.t) {
                return fail(format!(
                    "{total} tokens in a sequence, at most {}",
                    module.dims.t
                ));
            }
            if tokens.len() + s.new as usize > input.ids.len() {
                return fail(format!("{} ids, the sequences have more", input.ids.len()));
            }
            starts.push(tokens.len());
            tokens.extend((0..s.new as usize).map(|t| (i, t)));
        }
        let n = tokens.len();
        let bounds = [
            ("tokens", n, module.dims.n),
            ("sequences", starts.len(), module.dims.b),
            ("rows", input.rows.len(), module.dims.r),
        ];
        for (what, found, bound) in bounds {
            if found > bound as usize {
                return fail(format!("{found} {what} in a step, at most {bound}"));
            }
        }
        let types = input.types.as_ref().map_or(n, Vec::len);
        if n == 0 || input.ids.len() != n || input.pos.len() != n || types != n {
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
        Ok(Step {
            seqs: input.seqs.clone(),
            lengths,
            rows: input.rows.clone(),
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
