//! The sampler's cuts against plain ones, which order all tokens: the same probabilities to the bit.

use llmc_runtime::sampler::{Sampler, argmax};
use llmc_runtime::sampling_params::{GREEDY, SamplingParams};
use proptest::prelude::*;

/// The distribution, cut after cut over the whole vocabulary.
fn reference(p: SamplingParams, logits: &[f32]) -> Vec<f32> {
    let mut scores = logits.to_vec();
    if p.temperature > 0.0 && p.temperature != 1.0 {
        scores.iter_mut().for_each(|s| *s /= p.temperature);
    }
    let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let left = |scores: &[f32]| -> Vec<usize> {
        let is_left = |&t: &usize| scores[t] > f32::NEG_INFINITY;
        (0..scores.len()).filter(is_left).collect()
    };
    let descending = |scores: &[f32], order: &mut Vec<usize>| {
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    };
    let k = p.top_k as usize;
    let mut order = left(&scores);
    if k > 0 && k < order.len() {
        descending(&scores, &mut order);
        let least = scores[order[k - 1]];
        for s in scores.iter_mut().filter(|s| **s < least) {
            *s = f32::NEG_INFINITY;
        }
    }
    if p.top_p < 1.0 {
        let mut order = left(&scores);
        let weight = |t: usize| f64::from((scores[t] - best).exp());
        let total: f64 = order.iter().map(|&t| weight(t)).sum();
        descending(&scores, &mut order);
        let mut mass = 0.0;
        let last = order.iter().position(|&t| {
            mass += weight(t);
            mass >= f64::from(p.top_p) * total
        });
        for &t in &order[last.map_or(order.len(), |l| l + 1)..] {
            scores[t] = f32::NEG_INFINITY;
        }
    }
    if p.min_p > 0.0 {
        let unlikely = |s: f32| (s - best).exp() < p.min_p;
        for s in scores.iter_mut().filter(|s| unlikely(**s)) {
            *s = f32::NEG_INFINITY;
        }
    }
    if p.typical < 1.0 {
        let mut order = left(&scores);
        let weight = |t: usize| f64::from((scores[t] - best).exp());
        let total: f64 = order.iter().map(|&t| weight(t)).sum();
        let surprise = |t: usize| total.ln() - f64::from(scores[t] - best);
        let shares = order.iter().map(|&t| weight(t) / total * surprise(t));
        let entropy: f64 = shares.sum();
        let distance = |t: usize| (surprise(t) - entropy).abs() as f32;
        order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let mut reached = 0.0;
        let last = order.iter().position(|&t| {
            reached += weight(t) / total;
            reached >= f64::from(p.typical)
        });
        for &t in &order[last.map_or(order.len(), |l| l + 1)..] {
            scores[t] = f32::NEG_INFINITY;
        }
    }
    for s in &mut scores {
        *s = if *s > f32::NEG_INFINITY {
            (*s - best).exp()
        } else {
            0.0
        };
    }
    let sum: f64 = scores.iter().map(|&s| f64::from(s)).sum();
    scores
        .iter()
        .map(|&s| (f64::from(s) / sum) as f32)
        .collect()
}

/// Logits with ties, and some that are no finite numbers.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        12 => -9.0f32..9.0,
        6 => (-6i8..6).prop_map(f32::from),
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    let small = prop::collection::vec(one, 1..300);
    let large = (any::<u64>(), 1usize..20_000, 0.0f32..8.0).prop_map(|(seed, len, spread)| {
        let mut x = seed;
        let next = || {
            x = x
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((x >> 40) as f32 / (1 << 24) as f32 - 0.5) * spread
        };
        std::iter::repeat_with(next).take(len).collect::<Vec<_>>()
    });
    prop_oneof![2 => small, 1 => large]
}

fn params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(1.0f32), 0.1f32..3.0];
    let top_k = prop_oneof![2 => Just(0u32), 2 => 1u32..60, 1 => 1u32..30_000];
    let top_p = prop_oneof![2 => Just(1.0f32), 3 => 0.01f32..0.999];
    let min_p = prop_oneof![2 => Just(0.0f32), 1 => 0.0001f32..1.0];
    let typical = prop_oneof![3 => Just(1.0f32), 1 => 0.01f32..0.999];
    let all = (temperature, top_k, top_p, min_p, typical);
    all.prop_map(
        |(temperature, top_k, top_p, min_p, typical)| SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            typical,
            ..GREEDY
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_are_those_of_the_whole_order(logits in logits(), params in params()) {
        let mut sampler = Sampler::new(params, logits.len(), &[], 0);
        if logits.iter().any(|l| l.is_finite()) {
            let bits = |probs: &[f32]| probs.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            let expected = reference(params, &logits);
            prop_assert_eq!(bits(sampler.distribution(&logits).unwrap()), bits(&expected));
            let picked = sampler.sample(&logits).unwrap();
            prop_assert!(expected[picked as usize] > 0.0);
        } else {
            prop_assert!(sampler.distribution(&logits).is_err());
        }
    }

    #[test]
    fn the_largest_is_the_first_of_equals(logits in logits()) {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = logits.iter().position(|&l| l == best && l > f32::NEG_INFINITY);
        prop_assert_eq!(argmax(&logits), first.map(|i| i as u32));
    }
}
