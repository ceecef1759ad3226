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
    /// Processed logits; then, for the tokens that are kept, probabilities `[vocab]`.
    scores: Vec<f32>,
    /// The tokens that are still in, ascending `[vocab]`.
    kept: Vec<u32>,
    /// Some of them in another order, for the cuts `[vocab]`.
    order: Vec<u32>,
    /// The largest scores, while one of them is sought.
    top: Vec<f32>,
    /// Where the buckets of top-p end; empty unless it cuts.
    ends: Vec<u32>,
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
        let top = vocab.min(2 * params.top_k as usize);
        let ends = if params.top_p < 1.0 { BUCKETS } else { 0 };
        Sampler {
            params,
            draws: 0,
            picked: 0,
            eos: eos.to_vec(),
            scores: vec![0.0; vocab],
            kept: Vec::with_capacity(vocab),
            order: Vec::with_capacity(vocab),
            top: Vec::with_capacity(top),
            ends: Vec::with_capacity(ends),
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
            self.weigh(logits)?;
            self.pick(draw)
        } else if self.has_processors() {
            self.process(logits);
            argmax(&self.scores)
        } else {
            argmax(logits)
        };
        self.take(token)
    }

    /// Whether the likeliest token is taken rather than drawn.
    pub fn is_greedy(&self) -> bool {
        self.params.temperature <= 0.0
    }

    /// Whether the next token is the one of the largest logit, whatever the tokens before.
    pub fn is_plainly_greedy(&self) -> bool {
        self.is_greedy() && !self.has_processors()
    }

    /// Takes a token that was picked elsewhere, by [`Sampler::is_plainly_greedy`].
    pub fn take(&mut self, token: Option<u32>) -> Result<u32> {
        let token = token.ok_or_else(no_number)?;
        self.picked += 1;
        self.observe(token);
        Ok(token)
    }

    /// The distribution of the next token after all processors `[vocab]`. Greedy parameters count
    /// as temperature 1.
    pub fn distribution(&mut self, logits: &[f32]) -> Result<&[f32]> {
        self.weigh(logits)?;
        let mut next = 0;
        for &token in &self.kept {
            let token = token as usize;
            self.scores[next..token].fill(0.0);
            next = token + 1;
        }
        self.scores[next..].fill(0.0);
        Ok(&self.scores)
    }

    /// Leaves the tokens that may be picked in `kept`, and their probabilities in `scores`.
    fn weigh(&mut self, logits: &[f32]) -> Result<()> {
        self.process(logits);
        let p = self.params;
        if p.temperature > 0.0 && p.temperature != 1.0 {
            self.scores.iter_mut().for_each(|s| *s /= p.temperature);
        }
        let best = largest(&self.scores);
        if !best.is_finite() {
            return Err(no_number());
        }
        self.keep_top(p.top_k as usize);
        if p.top_p < 1.0 {
            self.cut_top_p(f64::from(p.top_p), best);
        }
        let scores = &mut self.scores;
        if p.min_p > 0.0 {
            // The likeliest token is always left, so this is its probability relative to it. What
            // is surely too small needs no exponential.
            let far = p.min_p.ln() - 0.01;
            self.kept.retain(|&t| {
                let below = scores[t as usize] - best;
                below >= far && below.exp() >= p.min_p
            });
        }
        if p.typical < 1.0 {
            self.cut_typical(f64::from(p.typical), best);
        }
        let scores = &mut self.scores;
        let mut sum = 0.0;
        for &t in &self.kept {
            let s = &mut scores[t as usize];
            *s = (*s - best).exp();
            sum += f64::from(*s);
        }
        for &t in &self.kept {
            let s = &mut scores[t as usize];
            *s = (f64::from(*s) / sum) as f32;
        }
        Ok(())
    }

    /// The token at `draw` of the cumulative distribution.
    fn pick(&self, draw: f64) -> Option<u32> {
        let mut mass = 0.0;
        let mut last = None;
        for &token in &self.kept {
            let p = self.scores[token as usize];
            if p > 0.0 {
                mass += f64::from(p);
                last = Some(token);
                if draw < mass {
                    break;
                }
            }
        }
        last
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

    /// Keeps what is not below the k-th largest score (ties stay), or everything for 0.
    fn keep_top(&mut self, k: usize) {
        let scores = &self.scores;
        let least = match k {
            0 => None,
            k => nth_largest(scores.iter().copied(), k, &mut self.top),
        };
        let least = least.unwrap_or(f32::NEG_INFINITY);
        self.kept.clear();
        for (chunk, first) in scores.chunks(CHUNK).zip((0u32..).step_by(CHUNK)) {
            if largest(chunk) >= least {
                let kept = chunk.iter().zip(first..);
                let kept = kept.filter(|(s, _)| **s >= least && **s > f32::NEG_INFINITY);
                self.kept.extend(kept.map(|(_, token)| token));
            }
        }
    }

    /// Keeps the smallest set of likeliest tokens whose probabilities reach `p`.
    fn cut_top_p(&mut self, p: f64, best: f32) {
        let scores = &self.scores;
        let weight = |t: u32| f64::from((scores[t as usize] - best).exp());
        let total: f64 = self.kept.iter().map(|&t| weight(t)).sum();
        // Those that are so far from the best that all of them together make less than what may be
        // cut need no order. They are looked at only if rounding has eaten the difference.
        let spare = ((1.0 - p) * total).max(f64::MIN_POSITIVE);
        let enough = (self.kept.len() as f64 / spare).ln() as f32;
        for far in [enough, f32::INFINITY] {
            if let Some(last) = self.last_of_mass(p * total, best, far) {
                let scores = &self.scores;
                self.kept.retain(|&t| descending(scores, t, last).is_le());
                return;
            }
        }
    }

    /// The token at which the likeliest ones together reach `mass`, if those within `far` of the
    /// best do. They go into buckets by their distance, and the buckets are put in order one after
    /// the other until it is found: mostly that is a few tokens.
    fn last_of_mass(&mut self, mass: f64, best: f32, far: f32) -> Option<u32> {
        let scores = &self.scores;
        let distance = |t: u32| best - scores[t as usize];
        let bucket = |t: u32| ((distance(t) * BUCKETS_PER_UNIT) as usize).min(BUCKETS - 1);
        let near = || self.kept.iter().filter(|&&t| distance(t) <= far);
        self.ends.clear();
        self.ends.resize(BUCKETS, 0);
        for &t in near() {
            self.ends[bucket(t)] += 1;
        }
        let mut end = 0;
        for count in &mut self.ends {
            // For now, where the bucket begins.
            (*count, end) = (end, end + *count);
        }
        self.order.clear();
        self.order.resize(end as usize, 0);
        for &t in near() {
            let place = &mut self.ends[bucket(t)];
            self.order[*place as usize] = t;
            *place += 1;
        }
        let mut start = 0;
        let mut reached = 0.0;
        for &end in &self.ends {
            let tokens = &mut self.order[start..end as usize];
            tokens.sort_unstable_by(|&a, &b| descending(scores, a, b));
            let last = tokens.iter().find(|&&t| {
                reached += f64::from((-distance(t)).exp());
                reached >= mass
            });
            if last.is_some() {
                return last.copied();
            }
            start = end as usize;
        }
        None
    }

    /// Keeps the tokens whose surprise is nearest to the mean surprise (the entropy), until their
    /// probabilities reach `mass`.
    fn cut_typical(&mut self, mass: f64, best: f32) {
        let scores = &self.scores;
        let weight = |t: u32| f64::from((scores[t as usize] - best).exp());
        let total: f64 = self.kept.iter().map(|&t| weight(t)).sum();
        let log_total = total.ln();
        let surprise = |t: u32| log_total - f64::from(scores[t as usize] - best);
        let entropy: f64 = self
            .kept
            .iter()
            .map(|&t| weight(t) / total * surprise(t))
            .sum();
        for &t in &self.kept {
            self.surprise[t as usize] = (surprise(t) - entropy).abs() as f32;
        }
        let distance = &self.surprise;
        let nearest = |a: u32, b: u32| {
            let by_distance = distance[a as usize].total_cmp(&distance[b as usize]);
            by_distance.then(a.cmp(&b))
        };
        self.order.clear();
        self.order.extend(&self.kept);
        self.order.sort_unstable_by(|&a, &b| nearest(a, b));
        let mut reached = 0.0;
        let last = self.order.iter().find(|&&t| {
            reached += weight(t) / total;
            reached >= mass
        });
        if let Some(&last) = last {
            self.kept.retain(|&t| nearest(t, last).is_le());
        }
    }
}

/// Scores that are looked at together.
const CHUNK: usize = 64;

/// Buckets by which top-p orders tokens: this many for each unit of a score, the last one open.
const BUCKETS_PER_UNIT: f32 = 64.0;
const BUCKETS: usize = 2048;

/// The n-th largest number, in one pass; none if there are fewer. `top` holds up to `2 n` of them.
fn nth_largest(scores: impl Iterator<Item = f32>, n: usize, top: &mut Vec<f32>) -> Option<f32> {
    top.clear();
    let most = top.capacity().min(2 * n);
    let mut least = f32::NEG_INFINITY;
    for score in scores {
        // Once there are n, those that are no larger than the n-th change nothing.
        if score > least {
            if top.len() == most {
                let (_, &mut nth, _) = top.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
                least = nth;
                top.truncate(n);
            }
            top.push(score);
        }
    }
    if top.len() < n {
        return None;
    }
    let (_, &mut nth, _) = top.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a));
    Some(nth)
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
    if best == f32::NEG_INFINITY {
        return None;
    }
    // Whole chunks first: they are compared at once.
    let has = |chunk: &[f32]| chunk.iter().fold(false, |found, &s| found | (s == best));
    let chunk = scores.chunks(CHUNK).position(has)?;
    let first = chunk * CHUNK;
    let within = scores[first..].iter().position(|&s| s == best)?;
    Some((first + within) as u32)
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
