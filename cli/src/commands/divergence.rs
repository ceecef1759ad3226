//! How far two sets of logits are apart as distributions.

/// Over the rows of two matrices of logits: the Kullback–Leibler divergence D(expected ‖ found) of
/// their softmax in nats, and how often the largest logit is the same one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Divergence {
    pub rows: usize,
    pub mean: f64,
    pub largest: f64,
    pub agreeing: usize,
}

impl Divergence {
    /// Compares rows of `width` logits.
    pub fn of(expected: &[f32], found: &[f32], width: usize) -> Divergence {
        let pairs = expected
            .chunks_exact(width.max(1))
            .zip(found.chunks_exact(width.max(1)));
        let mut out = Divergence {
            rows: 0,
            mean: 0.0,
            largest: 0.0,
            agreeing: 0,
        };
        let mut total = 0.0;
        for (p, q) in pairs {
            let kl = divergence(p, q);
            out.rows += 1;
            total += kl;
            out.largest = if kl.is_nan() { kl } else { out.largest.max(kl) };
            out.agreeing += usize::from(best(p) == best(q));
        }
        out.mean = total / out.rows.max(1) as f64;
        out
    }
}

fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let (p_norm, q_norm) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(&a, &b): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(a) - p_norm, f64::from(b) - q_norm);
        log_p.exp() * (log_p - log_q)
    };
    p.iter().zip(q).map(term).sum()
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let most = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
    f64::from(most) + sum.ln()
}

fn best(row: &[f32]) -> Option<usize> {
    (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_distribution_has_none() {
        let d = Divergence::of(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0], 3);
        assert!(d.mean.abs() < 1e-12, "{d:?}");
        assert_eq!((d.rows, d.agreeing), (1, 1));
    }

    #[test]
    fn two_coins() {
        // p = (1/2, 1/2), q = (3/4, 1/4): ½ ln(2/3) + ½ ln 2.
        let d = Divergence::of(&[0.0, 0.0, 0.0, 0.0], &[3f32.ln(), 0.0, 0.0, 0.0], 2);
        let expected = 0.5 * (2f64 / 3.0).ln() + 0.5 * 2f64.ln();
        assert!(
            (d.largest - expected).abs() < 1e-7 && (d.mean - expected / 2.0).abs() < 1e-7,
            "{d:?}"
        );
    }
}
