//! Picks the next token from a row of logits.
//!
//! Input: logits `[vocab]` and the tokens seen so far (prompt and continuation). Output: a token,
//! or the distribution it would be drawn from, or (for beams) its likeliest continuations. The
//! processors and their order are Hugging Face's: logit bias, repetition penalty, no repeated
//! n-grams, no early end, then (when sampling) temperature, top-k, top-p, min-p, typical. Presence
//! and frequency penalties, which Hugging Face lacks, come behind the repetition penalty and count
//! new tokens only, as OpenAI's do.
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
    /// New tokens and how often each came, by token; empty unless they are penalised.
    counts: Vec<(u32, u32)>,
    /// What is added to the logits of some tokens.
    bias: Vec<(u32, f32)>,
    /// Tokens that the cuts leave at least.
    least: usize,
    /// Continuations that were asked for last.
    found: Vec<Scored>,
}

/// A possible next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    pub token: u32,
    /// Its processed log-probability.
    pub score: f32,
    /// What it is ordered by: the score, with noise when sampling.
    pub key: f64,
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
            counts: Vec::with_capacity(if params.counts_tokens() { tokens } else { 0 }),
            bias: Vec::new(),
            least: 1,
            found: Vec::new(),
        }
    }

    /// Adds numbers to the logits of some tokens, before anything else.
    pub fn biased(mut self, bias: &[(u32, f32)]) -> Sampler {
        self.bias = bias.to_vec();
        self
    }

    /// Makes the cuts leave at least `least` tokens.
    pub fn keeping(mut self, least: usize) -> Sampler {
        self.least = least.max(1);
        self
    }

    /// The seed of the draws.
    pub fn seed(&self) -> u64 {
        self.params.seed
    }

    /// Forgets the tokens and the draws: ready for another sequence.
    pub fn reset(&mut self, seed: u64) {
        self.params.seed = seed;
        self.draws = 0;
        self.forget();
    }

    fn forget(&mut self) {
        self.picked = 0;
        self.seen.fill(0);
        self.history.clear();
        self.counts.clear();
    }

    /// Makes a prompt and the tokens behind it those that were seen and picked.
    pub fn recall(&mut self, prompt: &[u32], picked: &[u32]) {
        self.picked = picked.len() as u32;
        if self.looks_back() {
            self.forget();
            prompt.iter().for_each(|&t| self.observe(t));
            picked.iter().for_each(|&t| self.note(t));
        }
    }

    /// Whether processors depend on the tokens so far.
    fn looks_back(&self) -> bool {
        let p = self.params;
        p.repeat_penalty != 1.0 || p.no_repeat_ngram > 0 || p.counts_tokens()
    }

    /// Counts a token that was picked.
    fn note(&mut self, token: u32) {
        self.picked += 1;
        self.observe(token);
        if self.params.counts_tokens() {
            match self.counts.binary_search_by_key(&token, |(t, _)| *t) {
                Ok(at) => self.counts[at].1 += 1,
                Err(at) => self.counts.insert(at, (token, 1)),
            }
        }
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
            self.load(logits);
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
        self.note(token);
        Ok(token)
    }

    /// The `count` best continuations by processed log-probability, best first, fewer where fewer
    /// are allowed. When sampling they are drawn without replacement instead: noise that only
    /// depends on `seed`, `draw` and the token puts them in order.
    pub fn continuations(
        &mut self,
        logits: &[f32],
        count: usize,
        seed: u64,
        draw: u64,
    ) -> Result<&[Scored]> {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        let best = largest(&self.scores);
        if !best.is_finite() {
            return Err(no_number());
        }
        let total: f64 = self
            .scores
            .iter()
            .map(|&s| f64::from((s - best).exp()))
            .sum();
        let log_total = total.ln() as f32;
        // In two steps, as a sum of both would lose digits where the logits are large.
        self.scores
            .iter_mut()
            .for_each(|s| *s = (*s - best) - log_total);
        self.process();
        let sampled = self.params.temperature > 0.0;
        if sampled {
            self.cut()?;
        } else {
            self.top.reserve((2 * count).saturating_sub(self.top.len()));
            self.keep_top(count);
        }
        let vocab = logits.len() as u64;
        let scored = self.kept.iter().map(|&token| {
            let score = self.scores[token as usize];
            let noise = if sampled {
                // Gumbel's: the largest of score + noise is a draw from the distribution.
                let at = draw.wrapping_mul(vocab).wrapping_add(u64::from(token));
                -(-uniform(seed, at).max(f64::MIN_POSITIVE).ln()).ln()
            } else {
                0.0
            };
            let key = f64::from(score) + noise;
            Scored { token, score, key }
        });
        self.found.clear();
        self.found.extend(scored);
        let order = |a: &Scored, b: &Scored| b.key.total_cmp(&a.key).then(a.token.cmp(&b.token));
        if self.found.len() > count {
            self.found.select_nth_unstable_by(count, order);
            self.found.truncate(count);
        }
        self.found.sort_unstable_by(order);
        Ok(&self.found)
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
        self.load(logits);
        let best = self.cut()?;
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

    /// Divides by the temperature and leaves the tokens that may be picked in `kept`; the largest
    /// score.
    fn cut(&mut self) -> Result<f32> {
        let p = self.params;
        if p.temperature > 0.0 && p.temperature != 1.0 {
            self.scores.iter_mut().for_each(|s| *s /= p.temperature);
        }
        let best = largest(&self.scores);
        if !best.is_finite() {
            return Err(no_number());
        }
        self.keep_top(match p.top_k as usize {
            0 => 0,
            k => k.max(self.least),
        });
        // From this score on tokens stay, however small the mass that is asked for.
        let stays = match self.least {
            1 => f32::INFINITY,
            n => {
                let kept = self.kept.iter().map(|&t| self.scores[t as usize]);
                nth_largest(kept, n, &mut self.top).unwrap_or(f32::NEG_INFINITY)
            }
        };
        if p.top_p < 1.0 {
            self.cut_top_p(f64::from(p.top_p), best, stays);
        }
        let scores = &self.scores;
        if p.min_p > 0.0 {
            // The likeliest token is always left, so this is its probability relative to it. What
            // is surely too small needs no exponential.
            let far = p.min_p.ln() - 0.01;
            self.kept.retain(|&t| {
                let below = scores[t as usize] - best;
                scores[t as usize] >= stays || below >= far && below.exp() >= p.min_p
            });
        }
        if p.typical < 1.0 {
            self.cut_typical(f64::from(p.typical), best);
        }
        Ok(best)
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
        self.looks_back() || !self.bias.is_empty() || self.picked < self.params.min_new_tokens
    }

    /// Copies the logits and applies what does not depend on sampling.
    fn load(&mut self, logits: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        self.process();
    }

    /// Applies what does not depend on sampling.
    fn process(&mut self) {
        for &(token, bias) in &self.bias {
            if let Some(s) = self.scores.get_mut(token as usize) {
                *s += bias;
            }
        }
        if self.params.repeat_penalty != 1.0 {
            self.penalise(self.params.repeat_penalty);
        }
        for &(token, count) in &self.counts {
            if let Some(s) = self.scores.get_mut(token as usize) {
                *s -= self.params.frequency_penalty * count as f32;
                *s -= self.params.presence_penalty;
            }
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

    /// Keeps the smallest set of likeliest tokens whose probabilities reach `p`, and those of at
    /// least the score `stays`.
    fn cut_top_p(&mut self, p: f64, best: f32, stays: f32) {
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
                self.kept.retain(|&t| {
                    descending(scores, t, last).is_le() || scores[t as usize] >= stays
                });
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
            let least = self.order.get(self.least - 1).copied().unwrap_or(last);
            self.kept
                .retain(|&t| nearest(t, last).is_le() || nearest(t, least).is_le());
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
    let most = top.capacity().min(2 * n).max(n + 1);
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
    Error::Run("no token can be picked: the logits are not numbers, or none is allowed".into())
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
mod tests;
