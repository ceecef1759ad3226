//! Keys and values of past tokens, for every state, slot and sequence.
//!
//! Everything is kept, also behind a window: masks hide it. Heads are rounded to the state's type.

use super::{SeqStep, Step, Tensor};
use crate::{State, StateId, quant::rows::round_rows};
use indexmap::IndexMap;

/// One sequence's keys `[T, H, Dk]` and values `[T, H, Dv]` in one slot.
#[derive(Clone, PartialEq, Debug, Default)]
struct Past {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The states of an evaluator.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct KvStore {
    past: IndexMap<(StateId, u32, u32), Past>,
}

impl KvStore {
    /// Drops what a sequence left.
    pub fn forget(&mut self, seq: u32) {
        self.past.retain(|(_, _, s), _| *s != seq);
    }

    /// Writes this step's keys and values behind the past ones of each sequence.
    pub fn append(
        &mut self,
        (id, state, slot): (StateId, &State, u32),
        step: &Step,
        k: &Tensor,
        v: &Tensor,
    ) -> Result<(), String> {
        for (i, s) in step.seqs.iter().enumerate() {
            let past = self.past.entry((id, slot, s.id)).or_default();
            for (held, new) in [(&mut past.keys, k), (&mut past.values, v)] {
                let row = new.stride();
                let keep = s.past as usize * row;
                if held.len() < keep {
                    let tokens = held.len() / row.max(1);
                    return Err(format!(
                        "sequence {} has {tokens} past tokens, not {}",
                        s.id, s.past
                    ));
                }
                held.truncate(keep);
                for t in step.range(i) {
                    held.extend(round_rows(state.dtype, new.last(), new.at(t).to_vec())?);
                }
            }
        }
        Ok(())
    }

    /// Tokens that a sequence has left.
    pub fn held(&self, (id, state, slot): (StateId, &State, u32), seq: u32) -> u32 {
        let row = state.heads as usize * state.k_dim as usize;
        let past = self.past.get(&(id, slot, seq));
        past.map_or(0, |p| (p.keys.len() / row.max(1)) as u32)
    }

    /// All keys and values of each sequence: `[T, H, Dk]`, `[T, H, Dv]`.
    pub fn read(
        &self,
        (id, state, slot): (StateId, &State, u32),
        seqs: &[SeqStep],
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), String> {
        let one = |data: &[f32], s: &SeqStep, dim: u32| {
            let dims = [
                (s.past + s.new) as usize,
                state.heads as usize,
                dim as usize,
            ];
            Tensor::new(&dims, data.to_vec()).ok_or_else(|| {
                format!(
                    "sequence {} has no {} keys in @{}",
                    s.id, dims[0], state.name
                )
            })
        };
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for s in seqs {
            let past = self.past.get(&(id, slot, s.id));
            let past =
                past.ok_or_else(|| format!("sequence {} is not in @{}", s.id, state.name))?;
            keys.push(one(&past.keys, s, state.k_dim)?);
            values.push(one(&past.values, s, state.v_dim)?);
        }
        Ok((keys, values))
    }
}
