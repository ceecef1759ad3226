//! The sampler: each processor and cut by small numbers.

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
    s.load(&[4.0, -1.0, 1.0]);
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
fn penalties_count_new_tokens_only() {
    let params = SamplingParams {
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..GREEDY
    };
    let mut s = Sampler::new(params, 3, &[], 8);
    s.observe(2);
    let logits = [1.0, 0.9, 0.05];
    // 1, .9 | .25, .9 | .25, .15 | 0, .15 | 0, -.1 and .05
    let picked: Vec<u32> = (0..5).map(|_| s.sample(&logits).unwrap()).collect();
    assert_eq!(picked, [0, 1, 0, 1, 2]);
    s.load(&logits);
    for (score, expected) in s.scores.iter().zip([0.0, -0.1, -0.7]) {
        assert!((score - expected).abs() < 1e-6, "{:?}", s.scores);
    }
}

#[test]
fn bias_comes_before_all_else() {
    let params = SamplingParams {
        repeat_penalty: 2.0,
        ..GREEDY
    };
    let bias = [(1, 2.0), (2, f32::NEG_INFINITY), (99, 1.0)];
    let mut s = Sampler::new(params, 3, &[], 8).biased(&bias);
    s.observe(1);
    s.load(&[0.0, 1.0, 9.0]);
    assert_eq!(s.scores, [0.0, 1.5, f32::NEG_INFINITY]);
    assert_eq!(s.sample(&[1.0, 1.0, 9.0]).unwrap(), 1);
    let mut s = Sampler::new(GREEDY, 1, &[], 8).biased(&[(0, f32::NEG_INFINITY)]);
    assert!(s.sample(&[1.0]).is_err());
}

#[test]
fn continuations_are_the_best_and_processed() {
    let params = SamplingParams {
        repeat_penalty: 2.0,
        min_new_tokens: 3,
        ..GREEDY
    };
    let logits = log(&[0.4, 0.3, 0.2, 0.1]);
    let mut s = Sampler::new(params, 4, &[3], 8);
    s.recall(&[0], &[2]);
    let found = s.continuations(&logits, 3, 0, 0).unwrap();
    // Log-probabilities of seen tokens are doubled; the end is banned.
    let expected = [(1, 0.3f32.ln()), (0, 0.16f32.ln()), (2, 0.04f32.ln())];
    for (f, (token, score)) in found.iter().zip(expected) {
        assert!(
            f.token == token && (f.score - score).abs() < 1e-5,
            "{found:?}"
        );
    }
    assert_eq!(found.len(), 3);
    s.recall(&[], &[1, 1, 1]);
    assert_eq!(s.continuations(&logits, 9, 0, 0).unwrap().len(), 4);
}

#[test]
fn cuts_leave_as_many_as_they_must() {
    let logits = log(&[0.1, 0.4, 0.2, 0.3]);
    for params in [
        SamplingParams { top_k: 1, ..GREEDY },
        SamplingParams {
            top_p: 0.01,
            ..GREEDY
        },
        SamplingParams {
            min_p: 0.99,
            ..GREEDY
        },
    ] {
        let mut s = Sampler::new(params, 4, &[], 0).keeping(2);
        let left = s.distribution(&logits).unwrap();
        assert!(left[1] > 0.0 && left[3] > 0.0 && left[0] == 0.0 && left[2] == 0.0);
    }
    let typical = SamplingParams {
        typical: 0.01,
        ..GREEDY
    };
    let mut s = Sampler::new(typical, 4, &[], 0).keeping(2);
    let left = s.distribution(&logits).unwrap();
    assert_eq!(left.iter().filter(|p| **p > 0.0).count(), 2);
}

/// Draws without replacement: the first is a draw from the distribution.
#[test]
fn drawn_continuations_follow_the_distribution() {
    let params = SamplingParams {
        temperature: 1.0,
        ..GREEDY
    };
    let logits = log(&[0.1, 0.6, 0.3]);
    let mut s = Sampler::new(params, 3, &[], 0);
    let mut counts = [0; 3];
    for draw in 0..3000 {
        let found = s.continuations(&logits, 2, 5, draw).unwrap();
        assert_ne!(found[0].token, found[1].token);
        counts[found[0].token as usize] += 1;
    }
    for (count, p) in counts.into_iter().zip([0.1, 0.6, 0.3]) {
        let share = f64::from(count) / 3000.0;
        assert!((share - p).abs() < 0.03, "{counts:?}");
    }
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
