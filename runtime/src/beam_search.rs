//! Beam search with Hugging Face's results.
//!
//! Input: prompts, how to score and when to stop, and a thing that extends sequences and gives the
//! logits behind them ([`Hypotheses`]): a decoder with its cache, or any other. Output: for each
//! prompt the best continuations, best first.
//!
//! A candidate's score is the sum of its tokens' processed log-probabilities; a finished one's is
//! that over (its new tokens, the end included) ^ length_penalty. Each step looks at the
//! `(1 + end tokens) * beams` best candidates, of which only the first `beams` may finish. Sums and
//! quotients are f32, because ties and near-ties are decided by them.
//!
//! Invariants: an item's result does not depend on the others; a step holds `beams` sequences for
//! each item that still runs. Not here: models, caches, text.

use crate::sampler::Sampler;
use crate::{Error, Result};

/// When a search is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When the best running beam, scored at its length of now, is no better than the worst
    /// finished one (Hugging Face's `False`).
    #[default]
    Heuristic,
    /// As soon as there are as many finished ones as beams (`True`).
    First,
    /// When no running beam can become better than the worst finished one, at the length that
    /// favours it (`"never"`).
    Never,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamParams {
    pub beams: usize,
    /// Continuations that are wanted of each item, at most `beams`.
    pub returned: usize,
    /// Above 0 favours long texts, below 0 short ones.
    pub length_penalty: f64,
    pub early_stopping: EarlyStopping,
}

/// Row `from` of the last step, continued by `token`, is a row of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: usize,
    pub token: u32,
}

/// Sequences that can be extended and reordered. Before the first step there is one row for each
/// item, in order.
pub trait Hypotheses {
    /// Makes the rows `moves`; rows of the last step that none comes from are no longer needed.
    /// Gives the logits `[vocab]` behind each new row to `take`, in order.
    fn step(
        &mut self,
        moves: &[Move],
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()>;
}

/// A continuation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hypothesis {
    /// New tokens, the one that ended it included.
    pub ids: Vec<u32>,
    /// Its score, over the length penalty.
    pub score: f32,
}

/// What makes a step's candidates worthless without losing their order.
const NEVER: f32 = -1e9;

/// A beam that goes on.
struct Beam {
    ids: Vec<u32>,
    score: f32,
    /// The row of the last step that it continues.
    from: usize,
}

/// A beam of the last step and a token behind it.
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
    /// What candidates are ordered by: the score, or the score and a draw.
    key: f64,
}

struct Item {
    prompt: Vec<u32>,
    seed: u64,
    running: Vec<Beam>,
    /// At most `beams`, best first.
    finished: Vec<Hypothesis>,
    /// Whether finished ones may still become better.
    improving: bool,
    done: bool,
    candidates: Vec<Candidate>,
}

/// Decides, besides the end tokens, whether new tokens end a text.
pub type Ends<'a> = Box<dyn FnMut(&[u32]) -> Result<bool> + 'a>;

/// A search over several prompts at once.
pub struct BeamSearch<'a> {
    params: BeamParams,
    sampler: Sampler,
    eos: Vec<u32>,
    max_new: usize,
    ends: Option<Ends<'a>>,
    items: Vec<Item>,
}

impl<'a> BeamSearch<'a> {
    /// A search for at most `max_new` tokens behind each prompt; `sampler` processes the logits.
    pub fn new(
        params: BeamParams,
        sampler: Sampler,
        eos: &[u32],
        prompts: Vec<Vec<u32>>,
        max_new: usize,
    ) -> BeamSearch<'a> {
        let seed = sampler.seed();
        let item = |(index, prompt)| Item {
            prompt,
            seed: seed.wrapping_add(index),
            running: vec![Beam {
                ids: Vec::new(),
                score: 0.0,
                from: index as usize,
            }],
            finished: Vec::new(),
            improving: true,
            done: max_new == 0,
            candidates: Vec::new(),
        };
        BeamSearch {
            params,
            sampler,
            eos: eos.to_vec(),
            max_new,
            ends: None,
            items: (0u64..).zip(prompts).map(item).collect(),
        }
    }

    /// Texts also end where `ends` says so of their new tokens.
    pub fn ending(mut self, ends: Ends<'a>) -> BeamSearch<'a> {
        self.ends = Some(ends);
        self
    }

    /// Draws of item `i` are those of this seed plus `i`.
    pub fn seeded(mut self, seed: u64) -> BeamSearch<'a> {
        for (item, index) in self.items.iter_mut().zip(0u64..) {
            item.seed = seed.wrapping_add(index);
        }
        self
    }

    /// Candidates that a step looks at.
    fn looked_at(&self) -> usize {
        self.params.beams * (1 + self.eos.len()).max(2)
    }

    /// Takes the logits `[vocab]` behind an item's prompt.
    pub fn first(&mut self, item: usize, logits: &[f32]) -> Result<()> {
        if self.items[item].done {
            return Ok(());
        }
        self.weigh(item, 0, logits)?;
        // As if every beam were the prompt, and all but one hopeless: they count only where the
        // prompt has fewer continuations than are looked at.
        let beams = self.params.beams;
        let entry = &mut self.items[item];
        let firsts = entry.candidates.len();
        for beam in 1..beams {
            for i in 0..firsts {
                let Candidate {
                    token, score, key, ..
                } = entry.candidates[i];
                entry.candidates.push(Candidate {
                    beam,
                    token,
                    score: score + NEVER,
                    key: key + f64::from(NEVER),
                });
            }
        }
        let from = entry.running[0].from;
        let copy = |beam: usize| Beam {
            ids: Vec::new(),
            score: if beam == 0 { 0.0 } else { NEVER },
            from,
        };
        entry.running = (0..beams).map(copy).collect();
        self.advance(item, &vec![from; beams])
    }

    /// Extends all items until each is done.
    pub fn run(&mut self, model: &mut dyn Hypotheses) -> Result<()> {
        loop {
            // The item and beam of each row.
            let mut rows: Vec<(usize, usize)> = Vec::new();
            let mut moves = Vec::new();
            for (i, item) in self.items.iter().enumerate().filter(|(_, item)| !item.done) {
                for (b, beam) in item.running.iter().enumerate() {
                    let token = beam.ids.last().copied();
                    let token = token.ok_or_else(|| {
                        Error::Run(format!("beam search: item {i} was given no logits"))
                    })?;
                    rows.push((i, b));
                    moves.push(Move {
                        from: beam.from,
                        token,
                    });
                }
            }
            if moves.is_empty() {
                return Ok(());
            }
            model.step(&moves, &mut |row, logits| {
                let (item, beam) = rows[row];
                self.weigh(item, beam, logits)
            })?;
            let mut row = 0;
            while let Some(&(item, _)) = rows.get(row) {
                let count = self.items[item].running.len();
                let from: Vec<usize> = (row..row + count).collect();
                self.advance(item, &from)?;
                row += count;
            }
        }
    }

    /// Adds the best continuations of a beam to its item's candidates.
    fn weigh(&mut self, item: usize, beam: usize, logits: &[f32]) -> Result<()> {
        let count = self.looked_at();
        let item = &mut self.items[item];
        let Beam { ids, score, .. } = &item.running[beam];
        self.sampler.recall(&item.prompt, ids);
        let draws = (ids.len() * self.params.beams + beam) as u64;
        let found = self
            .sampler
            .continuations(logits, count, item.seed, draws)?;
        for c in found {
            item.candidates.push(Candidate {
                beam,
                token: c.token,
                score: c.score + score,
                key: c.key + f64::from(*score),
            });
        }
        Ok(())
    }

    /// Chooses the beams of the next step. `from` is the row of each beam of this one.
    fn advance(&mut self, index: usize, from: &[usize]) -> Result<()> {
        let looked_at = self.looked_at();
        let p = self.params;
        let item = &mut self.items[index];
        let mut candidates = std::mem::take(&mut item.candidates);
        candidates.sort_by(|a, b| {
            let order = b.key.total_cmp(&a.key);
            order.then((a.beam, a.token).cmp(&(b.beam, b.token)))
        });
        candidates.truncate(looked_at);
        let len = item.running.first().map_or(0, |b| b.ids.len()) + 1;
        let mut next: Vec<(Beam, bool)> = Vec::with_capacity(candidates.len());
        for c in &candidates {
            let parent = &item.running[c.beam];
            let mut ids = Vec::with_capacity(len);
            ids.extend_from_slice(&parent.ids);
            ids.push(c.token);
            let mut ended = self.eos.contains(&c.token) || len >= self.max_new;
            if let Some(ends) = &mut self.ends {
                ended = ended || ends(&ids)?;
            }
            let beam = Beam {
                ids,
                score: c.score,
                from: from[c.beam],
            };
            next.push((beam, ended));
        }

        let full = item.finished.len() == p.beams;
        if item.improving && !(full && p.early_stopping == EarlyStopping::First) {
            let ended = next.iter().take(p.beams).filter(|(_, ended)| *ended);
            let penalty = over_length(len, p.length_penalty);
            item.finished.extend(ended.map(|(beam, _)| Hypothesis {
                ids: beam.ids.clone(),
                score: beam.score / penalty,
            }));
            // Stable: of equal ones the earlier stays ahead.
            item.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
            item.finished.truncate(p.beams);
        }

        let all_ended = next.iter().all(|(_, ended)| *ended);
        for (beam, ended) in &mut next {
            beam.score += if *ended { NEVER } else { 0.0 };
        }
        next.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score));
        next.truncate(p.beams);
        item.running = next.into_iter().map(|(beam, _)| beam).collect();

        let full = item.finished.len() == p.beams;
        let longest = match p.early_stopping {
            EarlyStopping::Never if p.length_penalty > 0.0 => self.max_new,
            _ => len,
        };
        let best = item.running.first().map_or(f32::NEG_INFINITY, |b| b.score);
        let best = best / over_length(longest, p.length_penalty);
        let worst = item.finished.last().filter(|_| full);
        item.improving &= best > worst.map_or(NEVER, |h| h.score);
        item.done =
            all_ended || !item.improving || full && p.early_stopping == EarlyStopping::First;
        Ok(())
    }

    /// Each item's best continuations, best first, `returned` of them. Where fewer have finished
    /// (the search was ended from outside) running ones follow.
    pub fn results(self) -> Vec<Vec<Hypothesis>> {
        let p = self.params;
        let result = |mut item: Item| {
            let running = item.running.into_iter();
            let running = running.filter(|beam| !item.done && !beam.ids.is_empty());
            item.finished.extend(running.map(|beam| Hypothesis {
                score: beam.score / over_length(beam.ids.len(), p.length_penalty),
                ids: beam.ids,
            }));
            let nothing = Hypothesis {
                ids: Vec::new(),
                score: if self.max_new == 0 { 0.0 } else { NEVER },
            };
            item.finished.resize(p.returned, nothing);
            item.finished
        };
        self.items.into_iter().map(result).collect()
    }
}

/// `len ^ penalty`, computed in f64 as Python does.
fn over_length(len: usize, penalty: f64) -> f32 {
    (len as f64).powf(penalty) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling_params::{GREEDY, SamplingParams};

    /// Logits that depend on the last token alone.
    struct Chain {
        logits: Vec<Vec<f32>>,
        rows: Vec<Vec<u32>>,
        most: usize,
    }

    impl Hypotheses for Chain {
        fn step(
            &mut self,
            moves: &[Move],
            take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
        ) -> Result<()> {
            let extend = |m: &Move| [&self.rows[m.from][..], &[m.token]].concat();
            self.rows = moves.iter().map(extend).collect();
            self.most = self.most.max(self.rows.len());
            for (row, ids) in self.rows.iter().enumerate() {
                take(row, &self.logits[ids[ids.len() - 1] as usize])?;
            }
            Ok(())
        }
    }

    fn params(beams: usize) -> BeamParams {
        BeamParams {
            beams,
            returned: beams,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
        }
    }

    fn logits(vocab: usize) -> Vec<Vec<f32>> {
        let value = |a: usize, b: usize| ((a * 7 + b * 13) % 11) as f32 * 0.37 - b as f32 * 0.1;
        (0..vocab)
            .map(|a| (0..vocab).map(|b| value(a, b)).collect())
            .collect()
    }

    fn search(p: BeamParams, sampling: SamplingParams, new: usize) -> Vec<Vec<Hypothesis>> {
        let logits = logits(6);
        let prompts: Vec<Vec<u32>> = vec![vec![1], vec![2, 3]];
        let sampler = Sampler::new(sampling, 6, &[0], 32);
        let mut s = BeamSearch::new(p, sampler, &[0], prompts.clone(), new);
        for (i, prompt) in prompts.iter().enumerate() {
            s.first(i, &logits[prompt[prompt.len() - 1] as usize])
                .unwrap();
        }
        let mut chain = Chain {
            logits,
            rows: prompts,
            most: 0,
        };
        s.run(&mut chain).unwrap();
        assert!(chain.most <= 2 * p.beams);
        s.results()
    }

    /// Sum of log-probabilities of a continuation.
    fn likelihood(prompt_last: u32, ids: &[u32]) -> f32 {
        let logits = logits(6);
        let mut last = prompt_last;
        let mut sum = 0.0;
        for &id in ids {
            let row = &logits[last as usize];
            let total: f32 = row.iter().map(|x| x.exp()).sum();
            sum += row[id as usize] - total.ln();
            last = id;
        }
        sum
    }

    /// All continuations of up to `new` tokens that end at token 0 or are `new` long.
    fn all(last: u32, new: usize, ids: &mut Vec<u32>, out: &mut Vec<(f32, Vec<u32>)>) {
        if ids.len() == new || ids.last() == Some(&0) {
            out.push((likelihood(last, ids) / ids.len() as f32, ids.clone()));
            return;
        }
        for id in 0..6 {
            ids.push(id);
            all(last, new, ids, out);
            ids.pop();
        }
    }

    /// With a beam for every prefix the search is exhaustive.
    #[test]
    fn many_beams_find_the_best_of_all() {
        let p = BeamParams {
            early_stopping: EarlyStopping::Never,
            returned: 3,
            ..params(216)
        };
        let found = search(p, GREEDY, 4);
        for (item, last) in [(0, 1), (1, 3)] {
            let mut expected = Vec::new();
            all(last, 4, &mut Vec::new(), &mut expected);
            expected.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (h, (score, ids)) in found[item].iter().zip(&expected) {
                assert_eq!(&h.ids, ids);
                assert!((h.score - score).abs() < 1e-5, "{h:?}, expected {score}");
            }
        }
    }

    #[test]
    fn one_beam_is_greedy_where_nothing_ends() {
        let logits = logits(6);
        let found = search(params(1), GREEDY, 5);
        let best = |row: &[f32]| {
            (0..6u32)
                .max_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]))
                .unwrap()
        };
        let mut last = 1;
        for &id in &found[0][0].ids {
            assert_eq!(id, best(&logits[last as usize]));
            last = id;
        }
        assert!(!found[0][0].ids.is_empty());
    }

    #[test]
    fn scores_are_those_of_the_ids_and_in_order() {
        for early_stopping in [
            EarlyStopping::Heuristic,
            EarlyStopping::First,
            EarlyStopping::Never,
        ] {
            for length_penalty in [-1.0, 0.0, 0.6, 2.0] {
                let p = BeamParams {
                    early_stopping,
                    length_penalty,
                    ..params(3)
                };
                for (hypotheses, last) in search(p, GREEDY, 8).iter().zip([1, 3]) {
                    assert_eq!(hypotheses.len(), 3);
                    for h in hypotheses {
                        let expected = likelihood(last, &h.ids)
                            / (h.ids.len() as f32).powf(length_penalty as f32);
                        assert!((h.score - expected).abs() < 1e-4, "{h:?} {expected}");
                        assert!(h.ids.len() == 8 || h.ids.last() == Some(&0));
                    }
                    assert!(hypotheses.is_sorted_by(|a, b| a.score >= b.score));
                }
            }
        }
    }

    #[test]
    fn draws_depend_on_the_seed_alone() {
        let sampling = |seed| SamplingParams {
            temperature: 2.0,
            seed,
            ..GREEDY
        };
        let (a, b) = (
            search(params(2), sampling(1), 8),
            search(params(2), sampling(1), 8),
        );
        assert_eq!(a, b);
        assert!((2..10).any(|seed| search(params(2), sampling(seed), 8) != a));
    }

    #[test]
    fn fewer_continuations_than_beams_are_enough() {
        // Two tokens are looked at by four beams.
        let sampling = SamplingParams {
            temperature: 1.0,
            top_k: 1,
            ..GREEDY
        };
        let found = search(params(4), sampling, 3);
        assert!(found.iter().all(|item| item.len() == 4));
        assert!(search(params(4), GREEDY, 0)[0][0].ids.is_empty());
    }

    #[test]
    fn a_text_may_end_by_another_rule() {
        let logits = logits(6);
        let sampler = Sampler::new(GREEDY, 6, &[], 32);
        let ends = Box::new(|ids: &[u32]| Ok(ids.len() == 2));
        let mut s = BeamSearch::new(params(2), sampler, &[], vec![vec![1]], 9).ending(ends);
        s.first(0, &logits[1]).unwrap();
        let mut chain = Chain {
            logits,
            rows: vec![vec![1]],
            most: 0,
        };
        s.run(&mut chain).unwrap();
        assert!(s.results()[0].iter().all(|h| h.ids.len() == 2));
    }
}
