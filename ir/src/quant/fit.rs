//! Finding scales: what the quantisers of the formats share.
//!
//! A group of values is fitted by `s · q` (codes on both sides of zero) or `s · q − m` (codes from 0,
//! m ≥ 0): several grids are tried, each gives codes, the codes give the scale (and minimum) of least
//! weighted square error, and the best of all is kept. Large values weigh more: the error of a product
//! grows with them. Everything is f32 in a fixed order, so that the same values give the same codes.
//!
//! Not here: how codes and scales are put into blocks.

/// The nearest whole number, ties to even, for magnitudes below 2^22.
pub fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The value of greatest magnitude, with its sign; the first of several.
pub fn signed_max(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |m: f32, &x| if x.abs() > m.abs() { x } else { m })
}

/// The least and the greatest value.
pub fn range(values: &[f32]) -> (f32, f32) {
    let first = values.first().copied().unwrap_or(0.0);
    values
        .iter()
        .fold((first, first), |(a, b), &x| (a.min(x), b.max(x)))
}

/// `f32` → the f16 that is stored, and its value.
pub fn f16(x: f32) -> ([u8; 2], f32) {
    let h = half::f16::from_f32(x);
    (h.to_le_bytes(), h.to_f32())
}

/// What divides by `x`; nothing is left of a group without a scale.
pub fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The code of `x` on a grid of codes `low..=high`: `inverse` is that of the scale.
pub fn code(x: f32, inverse: f32, low: f32, high: f32) -> f32 {
    // Tiny scales make huge quotients, which `nearest` does not take.
    nearest((x * inverse).clamp(low - 1.0, high + 1.0)).clamp(low, high)
}

/// The scale s for which `s · q`, q of `−n … n − 1`, comes nearest to the values, squares weighed
/// with x².
pub fn symmetric(values: &[f32], n: f32) -> f32 {
    let max = signed_max(values);
    if max.abs() < super::activation::TINY {
        return 0.0;
    }
    // Relative to the greatest, so that no square under- or overflows.
    let unit = 1.0 / max;
    let (mut best, mut scale) = (f32::MIN, 0.0);
    for step in -9i16..=9 {
        let inverse = -(n + 0.1 * f32::from(step)) / max;
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for &x in values {
            let q = code(x, inverse, -n, n - 1.0);
            let x = x * unit;
            xq += x * x * x * q;
            qq += x * x * q * q;
        }
        // Σ w (x − s q)² is least for s = xq / qq, and less the greater xq² / qq.
        if qq > 0.0 && xq * xq > best * qq {
            (best, scale) = (xq * xq / qq, xq / qq * max);
        }
    }
    scale
}

/// How far grids reach around the plain one in [`with_minimum`].
pub struct Tries {
    /// Steps of 0.1 by which the number of codes is first changed.
    pub first: i16,
    /// How many tries follow.
    pub count: i16,
}

/// The scale s and the minimum m ≥ 0 for which `s · q − m`, q of `0 … n`, comes nearest to the values,
/// squares weighed with |x| and their mean.
pub fn with_minimum(values: &[f32], n: f32, tries: &Tries) -> (f32, f32) {
    let (low, high) = range(values);
    let low = low.min(0.0);
    if high - low < super::activation::TINY {
        return (0.0, -low);
    }
    let unit = 1.0 / low.abs().max(high.abs());
    let square: f32 = values.iter().map(|x| (x * unit) * (x * unit)).sum();
    let mean = (square / values.len() as f32).sqrt();
    let weight = |x: f32| mean + (x * unit).abs();
    let error = |s: f32, m: f32, inverse: f32| -> f32 {
        let one = |&x: &f32| {
            let e = (s * code(x - low, inverse, 0.0, n) - m - x) * unit;
            weight(x) * e * e
        };
        values.iter().map(one).sum()
    };
    let plain = (high - low) / n;
    let mut found = (plain, -low);
    let mut best = error(plain, -low, 1.0 / plain);
    for step in 0..=tries.count {
        let inverse = (n + 0.1 * f32::from(tries.first + step)) / (high - low);
        let (mut w, mut wx, mut wq, mut wqq, mut wxq) = (0.0f32, 0.0f32, 0.0f32, 0.0f32, 0.0f32);
        for &x in values {
            let q = code(x - low, inverse, 0.0, n);
            let (k, x) = (weight(x), x * unit);
            w += k;
            wx += k * x;
            wq += k * q;
            wqq += k * q * q;
            wxq += k * x * q;
        }
        let det = w * wqq - wq * wq;
        if det <= 0.0 {
            continue;
        }
        let (mut s, mut m) = ((w * wxq - wx * wq) / det, (wq * wxq - wqq * wx) / det);
        if m < 0.0 {
            (s, m) = (wxq / wqq, 0.0);
        }
        let (s, m) = (s / unit, m / unit);
        let e = error(s, m, inverse);
        if s > 0.0 && e < best {
            (best, found) = (e, (s, m));
        }
    }
    found
}

/// The codes of `x` on the grid of a stored scale, `d · sc`, and minimum.
pub fn codes(values: &[f32], d: f32, m: f32, low: f32, high: f32) -> impl Iterator<Item = u8> + '_ {
    let inverse = inverse(d);
    values
        .iter()
        .map(move |x| (code(x + m, inverse, low, high) - low) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_that_fit_exactly_are_found() {
        let values: Vec<f32> = (0..16).map(|i| (i as f32 - 8.0) * 0.25).collect();
        assert!((symmetric(&values, 8.0).abs() - 0.25).abs() < 1e-6);
        let values: Vec<f32> = (0..16).map(|i| i as f32 * 0.5 - 3.0).collect();
        let (s, m) = with_minimum(
            &values,
            15.0,
            &Tries {
                first: -10,
                count: 20,
            },
        );
        assert!((s - 0.5).abs() < 1e-6 && (m - 3.0).abs() < 1e-5, "{s} {m}");
    }

    #[test]
    fn nothing_is_fitted_by_nothing() {
        assert_eq!(symmetric(&[0.0; 16], 32.0), 0.0);
        assert_eq!(
            with_minimum(&[0.0; 16], 15.0, &Tries { first: 0, count: 3 }),
            (0.0, 0.0)
        );
        assert_eq!(
            with_minimum(&[-2.0; 4], 15.0, &Tries { first: 0, count: 0 }).1,
            2.0
        );
    }

    #[test]
    fn ties_go_to_even() {
        assert_eq!(
            [nearest(0.5), nearest(1.5), nearest(-2.5), nearest(127.4)],
            [0.0, 2.0, -2.0, 127.0]
        );
    }
}
