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
#[inline]
pub fn code(x: f32, inverse: f32, low: f32, high: f32) -> f32 {
    nearest((x * inverse).max(low).min(high))
}

/// Sums that run side by side, so that the machine can add several at once in an order that is
/// always the same.
const LANES: usize = 8;

/// Σ over `values`, of `of` at every index: `N` sums at once.
#[inline]
fn sums<const N: usize>(len: usize, of: impl Fn(usize) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    for start in (0..len / LANES * LANES).step_by(LANES) {
        for l in 0..LANES {
            let terms = of(start + l);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[l] += term;
            }
        }
    }
    lanes.map(|l| l.iter().sum())
}

/// The scale s for which `s · q`, q of `−n … n − 1`, comes nearest to the values (a multiple of 8 of
/// them), squares weighed with x².
pub fn symmetric(values: &[f32], n: f32) -> f32 {
    let max = signed_max(values);
    if max.abs() < super::activation::TINY {
        return 0.0;
    }
    // Relative to the greatest, so that no square under- or overflows.
    let unit = 1.0 / max;
    let mut x = [0.0f32; GROUP];
    x.iter_mut().zip(values).for_each(|(x, v)| *x = v * unit);
    let (mut best, mut scale) = (f32::MIN, 0.0);
    for step in -9i16..=9 {
        let inverse = -(n + 0.1 * f32::from(step));
        let [xq, qq] = sums(values.len().min(GROUP), |i| {
            let q = code(x[i], inverse, -n, n - 1.0);
            let w = x[i] * x[i];
            [w * x[i] * q, w * q * q]
        });
        // Σ w (x − s q)² is least for s = xq / qq, and less the greater xq² / qq.
        if qq > 0.0 && xq * xq > best * qq {
            (best, scale) = (xq * xq / qq, xq / qq * max);
        }
    }
    scale
}

/// The most values that are fitted at once.
const GROUP: usize = 32;

/// How far grids reach around the plain one in [`with_minimum`].
pub struct Tries {
    /// Steps of 0.1 by which the number of codes is first changed.
    pub first: i16,
    /// How many tries follow.
    pub count: i16,
}

/// The scale s and the minimum m ≥ 0 for which `s · q − m`, q of `0 … n`, comes nearest to the values
/// (16 or 32), squares weighed with |x| and their mean.
pub fn with_minimum(values: &[f32], n: f32, tries: &Tries) -> (f32, f32) {
    let (low, high) = range(values);
    let low = low.min(0.0);
    if high - low < super::activation::TINY {
        return (0.0, -low);
    }
    // Relative to the greatest; weights besides.
    let greatest = low.abs().max(high.abs());
    let unit = 1.0 / greatest;
    let len = values.len().min(GROUP);
    let (mut x, mut k) = ([0.0f32; GROUP], [0.0f32; GROUP]);
    x.iter_mut().zip(values).for_each(|(x, v)| *x = v * unit);
    let [square] = sums(len, |i| [x[i] * x[i]]);
    let mean = (square / len as f32).sqrt();
    k.iter_mut().zip(x).for_each(|(k, x)| *k = mean + x.abs());
    let (low, span) = (low * unit, (high - low) * unit);
    let [w, wx] = sums(len, |i| [k[i], k[i] * x[i]]);

    let plain = span / n;
    let mut found = (plain, -low);
    let mut best = f32::MAX;
    // The plain grid first, with its own scale and minimum.
    for step in -1..=tries.count {
        let reach = if step < 0 { 0 } else { tries.first + step };
        let inverse = (n + 0.1 * f32::from(reach)) / span;
        let mut q = [0.0f32; GROUP];
        q.iter_mut()
            .zip(x)
            .for_each(|(q, x)| *q = code(x - low, inverse, 0.0, n));
        let (mut s, mut m) = (plain, -low);
        if step >= 0 {
            let [wq, wqq, wxq] = sums(len, |i| {
                let kq = k[i] * q[i];
                [kq, kq * q[i], kq * x[i]]
            });
            let det = w * wqq - wq * wq;
            if det <= 0.0 {
                continue;
            }
            (s, m) = ((w * wxq - wx * wq) / det, (wq * wxq - wqq * wx) / det);
            if m < 0.0 {
                (s, m) = (wxq / wqq, 0.0);
            }
        }
        let [error] = sums(len, |i| {
            let e = s * q[i] - m - x[i];
            [k[i] * e * e]
        });
        if s > 0.0 && error < best {
            (best, found) = (error, (s, m));
        }
    }
    (found.0 * greatest, found.1 * greatest)
}

/// The codes of a stored scale and minimum, near `(sc, mn)` and at most `most`, for which
/// `d · sc · q − dmin · mn`, q of `low … high`, comes nearest to the values (16 or 32), squares weighed
/// by `weight`. Both were found for other values than those that can be stored.
pub fn stored(
    values: &[f32],
    (d, dmin): (f32, f32),
    (sc, mn): (f32, f32),
    (least, most): (f32, f32),
    (low, high): (f32, f32),
    weight: impl Fn(f32) -> f32,
) -> (f32, f32) {
    let len = values.len().min(GROUP);
    let mut best = (f32::MAX, (sc, mn));
    // The nearest first: others have to be better.
    for (ds, dm) in NEAR {
        let near = (sc + ds, mn + dm);
        let minimum = if dmin == 0.0 {
            dm == 0.0
        } else {
            (0.0..=most).contains(&near.1)
        };
        if !minimum || !(least..=most).contains(&near.0) {
            continue;
        }
        let (s, m) = (d * near.0, dmin * near.1);
        let inverse = inverse(s);
        let [error] = sums(len, |i| {
            let e = s * code(values[i] + m, inverse, low, high) - m - values[i];
            [weight(values[i]) * e * e]
        });
        if error < best.0 {
            best = (error, near);
        }
    }
    best.1
}

/// Neighbours of a scale's and a minimum's code.
const NEAR: [(f32, f32); 9] = [
    (0.0, 0.0),
    (-1.0, 0.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (-1.0, -1.0),
    (-1.0, 1.0),
    (1.0, -1.0),
    (1.0, 1.0),
];

/// What [`with_minimum`] weighs squares with.
pub fn weight_of(values: &[f32]) -> impl Fn(f32) -> f32 {
    let [square] = sums(values.len().min(GROUP), |i| [values[i] * values[i]]);
    let mean = (square / values.len() as f32).sqrt();
    move |x| mean + x.abs()
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
