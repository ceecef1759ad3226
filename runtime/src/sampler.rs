//! Picks the next token from a row of logits.
//!
//! Input: logits `[vocab]` and the tokens seen so far (prompt and continuation). Output: a token,
//! or the distribution it would be drawn from. The processors and their order are Hugging Face's:
//! repetition penalty, no repeated n-grams, no early end, then (when sampling) temperature, top-k,
//! top-p, min-p, typical.
//!
//! Invariants: no allocation after [`Sampler::new`]; the same seed and logits give the same
//! tokens, whatever else runs. Not here: stop strings, and ending at an EOS.

use crate::sampling_params::SamplingParams;
use crate::{Error, Result};

/// SplitMix64's finaliser: the whole random number generator, over a counter.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Draw `counter` of a seed, uniform in `0..1`.
fn uniform(seed: u64, counter: u64) -> f64 {
    let x = mix(mix(seed).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// Picks tokens for one sequence.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    draws: u64,
    /// Tokens picked so far.
    picked: u32,
    eos: Vec<u32>,
    /// Processed logits, then probabilities `[vocab]`.
    scores: Vec<f32>,
    /// Tokens in some order, for the cuts `[vocab]`.
    order: Vec<u32>,
    /// How far each token's surprise is from the mean `[vocab]`; empty unless `typical` cuts.
    surprise: Vec<f32>,
    /// One bit a token `[vocab / 64]`.
    seen: Vec<u64>,
    /// The tokens in order; empty unless n-grams are looked at.
    history: Vec<u32>,
}

impl Sampler {
    /// A sampler over rows of `vocab` logits, for sequences of up to `tokens` tokens, prompt
    /// included, that end at one of `eos`.
    pub fn new(params: SamplingParams, vocab: usize, eos: &[u32], tokens: usize) -> Sampler {
        let history = if params.no_repeat_ngram > 0 {
            tokens
        } else {
            0
        };
        let surprise = if params.typical < 1.0 { vocab } else { 0 };
        Sampler {
            params,
            draws: 0,
            picked: 0,
            eos: eos.to_vec(),
            scores: vec![0.0; vocab],
            order: Vec::with_capacity(vocab),
            surprise: vec![0.0; surprise],
            seen: vec![0; vocab.div_ceil(64)],
            history: Vec::with_capacity(history),
        }
    }

    /// Forgets the tokens and the draws: ready for another sequence.
    pub fn reset(&mut self, seed: u64) {
        self.params.seed = seed;
        self.draws = 0;
        self.picked = 0;
        self.seen.fill(0);
        self.history.clear();
    }

    /// Tells the sampler of a token of the prompt; those it picks it knows.
    pub fn observe(&mut self, token: u32) {
        if let Some(word) = self.seen.get_mut(token as usize / 64) {
            *word |= 1 << (token % 64);
        }
        if self.params.no_repeat_ngram > 0 {
            self.history.push(token);
        }
    }

    /// The next token.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let token = if self.params.temperature > 0.0 {
            let draw = uniform(self.params.seed, self.draws);
            self.draws += 1;
            pick(self.distribution(logits)?, draw)
        } else if self.has_processors() {
            self.process(logits);
            argmax(&self.scores)
        } else {
            argmax(logits)
        };
        let token = token.ok_or_else(no_number)?;
        self.picked += 1;
        self.observe(token);
        Ok(token)
    }

    /// The distribution of the next token after all processors `[vocab]`. Greedy parameters count
    /// as temperature 1.
    pub fn distribution(&mut self, logits: &[f32]) -> Result<&[f32]> {
        self.process(logits);
        let p = self.params;
        if p.temperature > 0.0 && p.temperature != 1.0 {
            self.scores.iter_mut().for_each(|s| *s /= p.temperature);
        }
        let best = largest(&self.scores);
        if !best.is_finite() {
            return Err(no_number());
        }
        if p.top_k > 0 && (p.top_k as usize) < self.scores.len() {
            self.cut_top_k(p.top_k as usize);
        }
        if p.top_p < 1.0 {
            self.cut_top_p(f64::from(p.top_p), best);
        }
        if p.min_p > 0.0 {
            // The likeliest token is always left, so this is its probability relative to it.
            let unlikely = |s: f32| (s - best).exp() < p.min_p;
            let scores = self.scores.iter_mut();
            scores
                .filter(|s| unlikely(**s))
                .for_each(|s| *s = f32::NEG_INFINITY);
        }
        if p.typical < 1.0 {
            self.cut_typical(f64::from(p.typical), best);
        }
        for s in &mut self.scores {
            // Most are cut already; those and NaN compare as false.
            *s = if *s > f32::NEG_INFINITY {
                (*s - best).exp()
            } else {
                0.0
            };
        }
        let sum: f64 = self.scores.iter().map(|&s| f64::from(s)).sum();
        self.scores
            .iter_mut()
            .for_each(|s| *s = (f64::from(*s) / sum) as f32);
        Ok(&self.scores)
    }

    /// True if greedy picking must look at more than the logits.
    fn has_processors(&self) -> bool {
        let p = self.params;
        p.repeat_penalty != 1.0 || p.no_repeat_ngram > 0 || self.picked < p.min_new_tokens
    }

    /// Copies the logits and applies what does not depend on sampling.
    fn process(&mut self, logits: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        if self.params.repeat_penalty != 1.0 {
            self.penalise(self.params.repeat_penalty);
        }
        if self.params.no_repeat_ngram > 0 {
            self.ban_repeats(self.params.no_repeat_ngram as usize);
        }
        if self.picked < self.params.min_new_tokens {
            for &token in &self.eos {
                if let Some(s) = self.scores.get_mut(token as usize) {
                    *s = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Makes seen tokens less likely.
    fn penalise(&mut self, penalty: f32) {
        for (w, &word) in self.seen.iter().enumerate() {
            let mut bits = word;
            while bits != 0 {
                let token = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(s) = self.scores.get_mut(token) {
                    *s = if *s < 0.0 { *s * penalty } else { *s / penalty };
                }
            }
        }
    }

    /// Bans the tokens that would complete an n-gram for the second time.
    fn ban_repeats(&mut self, n: usize) {
        let Some(start) = (self.history.len() + 1).checked_sub(n) else {
            return;
        };
        let tail = &self.history[start..];
        for ngram in self.history.windows(n).filter(|w| &w[..n - 1] == tail) {
            if let Some(s) = self.scores.get_mut(ngram[n - 1] as usize) {
                *s = f32::NEG_INFINITY;
            }
        }
    }

    /// Drops what is below the k-th largest score; ties stay.
    fn cut_top_k(&mut self, k: usize) {
        self.rank_all();
        if self.order.len() <= k {
            return;
        }
        let scores = &self.scores;
        let (_, &mut kth, _) = self
            .order
            .select_nth_unstable_by(k - 1, |&a, &b| descending(scores, a, b));
        let least = self.scores[kth as usize];
        self.scores
            .iter_mut()
            .filter(|s| **s < least)
            .for_each(|s| *s = f32::NEG_INFINITY);
    }

    /// Keeps the smallest set of likeliest tokens whose probabilities reach `p`.
    fn cut_top_p(&mut self, p: f64, best: f32) {
        self.rank_all();
        let scores = &self.scores;
        let weight = |t: u32| f64::from((scores[t as usize] - best).exp());
        let total: f64 = self.order.iter().map(|&t| weight(t)).sum();
        // Most of the mass is in a few tokens: order those first, all of them only if need be.
        let len = self.order.len();
        let few = 512.min(len);
        let mut kept = None;
        for sorted in [few, len] {
            if sorted < len {
                self.order
                    .select_nth_unstable_by(sorted, |&a, &b| descending(scores, a, b));
            }
            self.order[..sorted].sort_unstable_by(|&a, &b| descending(scores, a, b));
            let mut mass = 0.0;
            kept = self.order[..sorted].iter().position(|&t| {
                mass += weight(t);
                mass >= p * total
            });
            if kept.is_some() {
                break;
            }
        }
        let kept = kept.map_or(len, |last| last + 1);
        for &t in &self.order[kept..] {
            self.scores[t as usize] = f32::NEG_INFINITY;
        }
    }

    /// Keeps the tokens whose surprise is nearest to the mean surprise (the entropy), until their
    /// probabilities reach `mass`.
    fn cut_typical(&mut self, mass: f64, best: f32) {
        self.rank_all();
        let scores = &self.scores;
        let weight = |t: u32| f64::from((scores[t as usize] - best).exp());
        let total: f64 = self.order.iter().map(|&t| weight(t)).sum();
        let log_total = total.ln();
        let surprise = |t: u32| log_total - f64::from(scores[t as usize] - best);
        let entropy: f64 = self
            .order
            .iter()
            .map(|&t| weight(t) / total * surprise(t))
            .sum();
        for &t in &self.order {
            self.surprise[t as usize] = (surprise(t) - entropy).abs() as f32;
        }
        let distance = &self.surprise;
        self.order.sort_unstable_by(|&a, &b| {
            distance[a as usize]
                .total_cmp(&distance[b as usize])
                .then(a.cmp(&b))
        });
        let mut reached = 0.0;
        let last = self.order.iter().position(|&t| {
            reached += weight(t) / total;
            reached >= mass
        });
        for &t in self.order.iter().skip(last.map_or(usize::MAX, |l| l + 1)) {
            self.scores[t as usize] = f32::NEG_INFINITY;
        }
    }

    /// Lists the tokens that are still in.
    fn rank_all(&mut self) {
        self.order.clear();
        let scores = &self.scores;
        self.order
            .extend((0..scores.len() as u32).filter(|&t| scores[t as usize] > f32::NEG_INFINITY));
        if self.order.is_empty() {
            self.order.push(0);
        }
    }
}

fn no_number() -> Error {
    Error::Run("the model's logits are not numbers".into())
}

/// Higher scores first; equal ones by token, so that the order is total.
fn descending(scores: &[f32], a: u32, b: u32) -> std::cmp::Ordering {
    scores[b as usize]
        .total_cmp(&scores[a as usize])
        .then(a.cmp(&b))
}

/// The largest number, in lanes so that it runs at the speed of memory; NaN never counts.
fn largest(scores: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &s) in lanes.iter_mut().zip(chunk) {
            *lane = if s > *lane { s } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(
        f32::NEG_INFINITY,
        |best, &s| if s > best { s } else { best },
    )
}

/// The first of the largest; none where nothing is a number.
pub fn argmax(scores: &[f32]) -> Option<u32> {
    let best = largest(scores);
    scores
        .iter()
        .position(|&s| s == best && s > f32::NEG_INFINITY)
        .map(|i| i as u32)
}

/// The token at `draw` of the cumulative distribution.
fn pick(probs: &[f32], draw: f64) -> Option<u32> {
    let mut mass = 0.0;
    let mut last = None;
    for (i, &p) in probs.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        mass += f64::from(p);
        last = Some(i as u32);
        if draw < mass {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling_params::GREEDY;

    fn check(params: SamplingParams, seen: &[u32], logits: &[f32], expected: &[f32]) {
        let mut sampler = Sampler::new(params, logits.len(), &[], 0);
        seen.iter().for_each(|&t| sampler.observe(t));
        let probs = sampler.distribution(logits).unwrap();
        for (p, e) in probs.iter().zip(expected) {
            assert!((p - e).abs() < 1e-6, "{probs:?} is not {expected:?}");
        }
    }

    fn log(probs: &[f32]) -> Vec<f32> {
        probs.iter().map(|p| p.ln() + 3.0).collect()
    }

    #[test]
    fn cuts_keep_what_they_should() {
        let logits = log(&[0.1, 0.4, 0.2, 0.3]);
        check(GREEDY, &[], &logits, &[0.1, 0.4, 0.2, 0.3]);
        let k = SamplingParams { top_k: 2, ..GREEDY };
        check(k, &[], &logits, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        let p = SamplingParams {
            top_p: 0.6,
            ..GREEDY
        };
        check(p, &[], &logits, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        let p = SamplingParams {
            top_p: 0.01,
            ..GREEDY
        };
        check(p, &[], &logits, &[0.0, 1.0, 0.0, 0.0]);
        let m = SamplingParams {
            min_p: 0.45,
            ..GREEDY
        };
        check(m, &[], &logits, &[0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        let t = SamplingParams {
            temperature: 0.5,
            ..GREEDY
        };
        check(
            t,
            &[],
            &logits,
            &[0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3],
        );
        let ties = SamplingParams { top_k: 1, ..GREEDY };
        check(ties, &[], &[1.0, 1.0, 0.0], &[0.5, 0.5, 0.0]);
    }

    #[test]
    fn seen_tokens_are_penalised_by_sign() {
        let r = SamplingParams {
            repeat_penalty: 2.0,
            ..GREEDY
        };
        let mut s = Sampler::new(r, 3, &[], 0);
        s.observe(0);
        s.observe(1);
        s.observe(1);
        s.observe(99);
        s.process(&[4.0, -1.0, 1.0]);
        assert_eq!(s.scores, [2.0, -2.0, 1.0]);
        assert_eq!(s.sample(&[1.5, 0.0, 1.0]).unwrap(), 2);
    }

    #[test]
    fn ngrams_do_not_repeat() {
        let params = SamplingParams {
            no_repeat_ngram: 2,
            ..GREEDY
        };
        let mut s = Sampler::new(params, 4, &[], 8);
        let logits = [3.0, 2.0, 1.0, 0.0];
        let picked: Vec<u32> = (0..7).map(|_| s.sample(&logits).unwrap()).collect();
        // 0 0, then (0 0) is taken: 0 1, then 1 0, then (0 0) and (0 1) are taken: 0 2…
        assert_eq!(picked, [0, 0, 1, 0, 2, 0, 3]);
        let mut s = Sampler::new(
            SamplingParams {
                no_repeat_ngram: 1,
                ..GREEDY
            },
            3,
            &[],
            8,
        );
        s.observe(0);
        assert_eq!(s.sample(&logits[..3]).unwrap(), 1);
        let mut s = Sampler::new(
            SamplingParams {
                no_repeat_ngram: 5,
                ..GREEDY
            },
            3,
            &[],
            8,
        );
        assert_eq!(s.sample(&logits[..3]).unwrap(), 0);
    }

    #[test]
    fn the_end_can_be_put_off() {
        let params = SamplingParams {
            min_new_tokens: 2,
            ..GREEDY
        };
        let mut s = Sampler::new(params, 2, &[0, 99], 0);
        let picked: Vec<u32> = (0..3).map(|_| s.sample(&[1.0, 0.0]).unwrap()).collect();
        assert_eq!(picked, [1, 1, 0]);
    }

    #[test]
    fn typical_tokens_are_neither_too_likely_nor_too_unlikely() {
        // Entropy 1.1683; distances from it: 0.4752, 0.2207, 0.4411, 1.8275.
        let logits = log(&[0.5, 0.25, 0.2, 0.05]);
        let t = |typical| SamplingParams { typical, ..GREEDY };
        check(t(0.2), &[], &logits, &[0.0, 1.0, 0.0, 0.0]);
        check(t(0.3), &[], &logits, &[0.0, 25.0 / 45.0, 20.0 / 45.0, 0.0]);
        check(
            t(0.9),
            &[],
            &logits,
            &[50.0 / 95.0, 25.0 / 95.0, 20.0 / 95.0, 0.0],
        );
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let params = SamplingParams {
            temperature: 1.0,
            seed: 7,
            ..GREEDY
        };
        let logits = log(&[0.1, 0.6, 0.3]);
        let mut sampler = Sampler::new(params, 3, &[], 0);
        let mut run = |seed| {
            sampler.reset(seed);
            (0..3000)
                .map(|_| sampler.sample(&logits).unwrap())
                .collect::<Vec<_>>()
        };
        let (a, b, c) = (run(7), run(7), run(8));
        assert_eq!(a, b);
        assert_ne!(a, c);
        for (token, p) in [(0, 0.1), (1, 0.6), (2, 0.3)] {
            let share = a.iter().filter(|&&t| t == token).count() as f64 / 3000.0;
            assert!((share - p).abs() < 0.03, "{token}: {share}");
        }
    }

    #[test]
    fn a_long_tail_is_ranked_wholly() {
        let logits = vec![0.0; 5000];
        let mut s = Sampler::new(
            SamplingParams {
                top_p: 0.5,
                ..GREEDY
            },
            5000,
            &[],
            0,
        );
        let kept = s
            .distribution(&logits)
            .unwrap()
            .iter()
            .filter(|p| **p > 0.0)
            .count();
        assert_eq!(kept, 2500);
    }

    #[test]
    fn what_is_not_a_number_is_never_picked() {
        let mut s = Sampler::new(GREEDY, 3, &[], 0);
        assert_eq!(s.sample(&[f32::NAN, 1.0, f32::NEG_INFINITY]).unwrap(), 1);
        assert!(s.sample(&[f32::NAN; 3]).is_err());
        let mut s = Sampler::new(
            SamplingParams {
                temperature: 1.0,
                ..GREEDY
            },
            3,
            &[],
            0,
        );
        assert_eq!(s.sample(&[f32::NAN, 1.0, f32::NEG_INFINITY]).unwrap(), 1);
        assert!(s.sample(&[f32::NAN; 3]).is_err());
    }
}
