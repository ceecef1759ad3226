//! Beams as sequences of an engine: their common start is shared in the KV cache.
//!
//! Input: moves of a beam search. Output: the logits behind each. A sequence that several beams
//! continue is forked: pages are counted, and copied only when two beams write into the same one.
//! Invariant: as many sequences are open as there are rows, so that a cache planned for all beams
//! is enough. Not here: which moves to make.

use crate::beam_search::{Hypotheses, Move};
use crate::engine::{Engine, Rows, Work};
use crate::interrupt;
use crate::kv_cache::SeqId;
use crate::{Error, Result};

/// The rows of a search.
pub struct Sequences<'e, 'm> {
    engine: &'e mut Engine<'m>,
    seqs: Vec<SeqId>,
    /// The output that holds the logits.
    logits: usize,
}

impl<'e, 'm> Sequences<'e, 'm> {
    /// Takes the sequences that hold the prompts, one for each item of the search.
    pub fn new(engine: &'e mut Engine<'m>, seqs: Vec<SeqId>, logits: usize) -> Sequences<'e, 'm> {
        Sequences {
            engine,
            seqs,
            logits,
        }
    }

    /// Closes what is left.
    pub fn close(self) {
        for seq in self.seqs {
            self.engine.close(seq);
        }
    }

    /// Makes row `i` the sequence that it continues.
    fn reorder(&mut self, moves: &[Move]) -> Result<()> {
        let mut is_used = vec![false; self.seqs.len()];
        for m in moves {
            is_used[m.from] = true;
        }
        // Closing comes first: forks need the room.
        for (seq, _) in self.seqs.iter().zip(&is_used).filter(|(_, used)| !**used) {
            self.engine.close(*seq);
        }
        let mut next = Vec::with_capacity(moves.len());
        for m in moves {
            let seq = self.seqs[m.from];
            let first = std::mem::replace(&mut is_used[m.from], false);
            next.push(if first { seq } else { self.engine.fork(seq)? });
        }
        self.seqs = next;
        Ok(())
    }
}

impl Hypotheses for Sequences<'_, '_> {
    fn step(
        &mut self,
        moves: &[Move],
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.reorder(moves)?;
        let ids: Vec<[i32; 1]> = moves.iter().map(|m| [m.token as i32]).collect();
        let works: Vec<Work<'_>> = self
            .seqs
            .iter()
            .zip(&ids)
            .map(|(&seq, ids)| Work {
                seq: Some(seq),
                ids,
                types: &[],
                rows: Rows::Last,
            })
            .collect();
        let logits = self.logits;
        self.engine.run(&works, &mut |view| {
            for span in view.spans {
                take(span.work, view.row(logits, span.row))?;
            }
            if interrupt::requested() {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        })
    }
}
