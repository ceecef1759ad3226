//! Logits to scores.
//!
//! Input: rows of logits. Output: scores of the same length, and which are the greatest. Sums are made in
//! f64. Not here: which function a model wants (the manifest's head says so).

use llmc_abi::Scores;

/// Applies a function to a row of logits.
pub fn scores(of: Scores, logits: &[f32]) -> Vec<f32> {
    match of {
        Scores::Logits => logits.to_vec(),
        Scores::Sigmoid => logits.iter().map(|&x| sigmoid(x)).collect(),
        Scores::Softmax => softmax(logits),
    }
}

/// 1 / (1 + exp(−x)).
pub fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(x)).exp())) as f32
}

/// exp(x) over the sum of all.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = logits.iter().map(|&x| f64::from(x - most).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|x| (x / sum) as f32).collect()
}

/// The indices of the `count` greatest, in descending order; of equals the first comes first.
pub fn greatest(scores: &[f32], count: usize) -> Vec<usize> {
    let order = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    let mut all: Vec<usize> = (0..scores.len()).collect();
    if count < all.len() && count > 0 {
        all.select_nth_unstable_by(count - 1, order);
    }
    all.truncate(count);
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_what_they_are_called() {
        assert_eq!(scores(Scores::Logits, &[1.5, -2.0]), [1.5, -2.0]);
        assert_eq!(
            scores(Scores::Sigmoid, &[0.0, 100.0, -1000.0]),
            [0.5, 1.0, 0.0]
        );
        let p = softmax(&[1000.0, 1000.0, 999.0]);
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((p[2] - p[0] * (-1f32).exp()).abs() < 1e-6);
    }

    #[test]
    fn the_greatest_come_in_order() {
        let scores = [0.1, 0.7, 0.2, 0.7];
        assert_eq!(greatest(&scores, 3), [1, 3, 2]);
        assert_eq!(greatest(&scores, 9), [1, 3, 2, 0]);
        assert_eq!(greatest(&scores, 0), [0usize; 0]);
    }
}
