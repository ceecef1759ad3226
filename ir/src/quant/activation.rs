//! 8-bit activations: what `quantize` computes, and how a row of it lies in memory.
//!
//! A group of elements (32 neighbours, or the row) shares the scale `amax / 127`; a code is
//! `x · (127 / amax)` rounded to nearest even, all in f32, so that whoever computes it gets the same
//! codes. A group whose largest magnitude is below [`TINY`] is zero.
//!
//! Under [`Group::Pair`] a row has steps 128 times as fine: `c = x · (16256 / amax)` rounded to nearest
//! even, scale `amax / 16256`. Each c is two codes, `128 · high + low` ([`pair`]), so that a product is the
//! sum of two products of bytes: the row's halves are rows of [`Group::Row`] themselves, the high codes
//! with 128 times the scale, and the low codes with the scale.
//!
//! Not here: which values are quantised (a pass decides), and products.

use crate::Group;

/// Below this magnitude a group counts as zero: its inverse scale would overflow.
pub const TINY: f32 = 1e-30;

/// Elements of a group of [`Group::Block`].
pub const BLOCK: usize = 32;

/// Bits of the low code of a pair.
pub const PAIR_BITS: u32 = 7;

/// The greatest magnitude of what a group's elements are rounded to.
pub fn most(group: Group) -> f32 {
    match group {
        Group::Block | Group::Row => 127.0,
        Group::Pair => (127 << PAIR_BITS) as f32,
    }
}

/// The codes (high, low) of `-16256 ≤ c ≤ 16256`, which is `128 · high + low`: the nearest high, and
/// the greater of two. High is within ±127, low within -64 … 63.
pub fn pair(c: i32) -> (i8, i8) {
    let high = (c + (1 << (PAIR_BITS - 1))) >> PAIR_BITS;
    (high as i8, (c - (high << PAIR_BITS)) as i8)
}

/// Quantises a row: the codes, and a scale for each group. Under [`Group::Block`] the row is whole
/// blocks; under [`Group::Pair`] the high codes come first, then the low ones, each with their scale.
pub fn quantize(row: &[f32], group: Group) -> (Vec<i8>, Vec<f32>) {
    let len = match group {
        Group::Block => BLOCK,
        Group::Row | Group::Pair => row.len().max(1),
    };
    let mut wide: Vec<i32> = Vec::with_capacity(row.len());
    let mut scales = Vec::with_capacity(row.len() / len + 1);
    for values in row.chunks(len) {
        let (most, amax) = (most(group), values.iter().fold(0f32, |m, x| m.max(x.abs())));
        if amax < TINY {
            scales.push(0.0);
            wide.extend(values.iter().map(|_| 0));
        } else {
            let inverse = most / amax;
            scales.push(amax / most);
            wide.extend(
                values
                    .iter()
                    .map(|x| (x * inverse).round_ties_even() as i32),
            );
        }
    }
    let codes = match group {
        Group::Block | Group::Row => wide.into_iter().map(|c| c as i8).collect(),
        Group::Pair => {
            scales = scales
                .iter()
                .flat_map(|s| [s * (1 << PAIR_BITS) as f32, *s])
                .collect();
            let (mut high, low): (Vec<i8>, Vec<i8>) = wide.into_iter().map(pair).unzip();
            high.extend(low);
            high
        }
    };
    (codes, scales)
}

/// The values that a quantised row stands for: `code · scale`, or `(128 · high + low) · scale`.
pub fn round_trip(row: &[f32], group: Group) -> Vec<f32> {
    let (codes, scales) = quantize(row, group);
    if group == Group::Pair {
        let (high, low) = codes.split_at(row.len());
        let scale = scales.last().copied().unwrap_or(0.0);
        let of = |(h, l): (&i8, &i8)| ((i32::from(*h) << PAIR_BITS) + i32::from(*l)) as f32 * scale;
        return high.iter().zip(low).map(of).collect();
    }
    let len = codes.len() / scales.len().max(1);
    let values = codes.iter().zip(0..);
    values
        .map(|(&code, i): (_, usize)| f32::from(code) * scales[i / len.max(1)])
        .collect()
}

/// Where the parts of a quantised row of `cols` elements are, in bytes from its start.
///
/// Codes come first, padded with zeros to whole groups of 64. The sums of the codes serve kernels
/// whose weights are stored with an offset, `starts` those whose codes are bytes with offset 128.
///
/// Under [`Group::Pair`] there are two rows of [`Group::Row`], one behind the other: of the high codes
/// and of the low ones. The places are those of the first; the second's are `each` bytes behind them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowForm {
    /// f32, one for each group.
    pub scales: u32,
    /// i32, the sum of the codes of each 32; under [`Group::Row`] there are none.
    pub sums: u32,
    /// i32, the sum of the codes of each 16; under [`Group::Row`] there are none.
    pub half_sums: u32,
    /// i32, -128 times the sum of the codes of each 32; under [`Group::Row`] one, of the whole row.
    pub starts: u32,
    /// Bytes from the first code of each element to its second, a multiple of 64; `bytes` where
    /// elements have one.
    pub each: u32,
    /// Bytes from one row to the next, a multiple of 64.
    pub bytes: u32,
}

impl RowForm {
    /// The form of rows of `cols` elements.
    pub fn new(cols: u32, group: Group) -> RowForm {
        let codes = cols.next_multiple_of(64);
        let (groups, blocks) = match group {
            Group::Block => (codes / 32, codes / 32),
            Group::Row | Group::Pair => (1, 0),
        };
        let (scales, sums) = (codes, codes + 4 * groups);
        let half_sums = sums + 4 * blocks;
        let starts = half_sums + 4 * 2 * blocks;
        let each = (starts + 4 * groups).next_multiple_of(64);
        RowForm {
            scales,
            sums,
            half_sums,
            starts,
            each,
            bytes: each * group.codes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_their_own_scales() {
        let mut row = vec![0.0; 96];
        (row[0], row[1], row[2]) = (-2.54, 0.03, 0.01);
        row[95] = 1e-35;
        row[40] = 1.27;
        let (codes, scales) = quantize(&row, Group::Block);
        assert_eq!(
            (codes[0], codes[1], codes[2], codes[40], codes[95]),
            (-127, 2, 0, 127, 0)
        );
        assert_eq!(scales, [2.54 / 127.0, 1.27 / 127.0, 0.0]);
        let (codes, scales) = quantize(&row, Group::Row);
        assert_eq!((codes[40], scales.len()), (64, 1));
    }

    #[test]
    fn the_error_is_at_most_half_a_step() {
        let row: Vec<f32> = (0..64)
            .map(|i| ((i * 37 % 64) as f32 - 31.0) / 7.0)
            .collect();
        for (x, y) in row.iter().zip(round_trip(&row, Group::Block)) {
            assert!((x - y).abs() <= 33.0 / 7.0 / 254.0 + 1e-6, "{x} {y}");
        }
    }

    #[test]
    fn rows_are_aligned() {
        let form = RowForm::new(896, Group::Block);
        assert_eq!(
            (
                form.scales,
                form.sums,
                form.half_sums,
                form.starts,
                form.bytes
            ),
            (896, 1008, 1120, 1344, 1472)
        );
        let row = RowForm::new(100, Group::Row);
        assert_eq!((row.starts, row.each, row.bytes), (132, 192, 192));
    }

    #[test]
    fn pairs_are_two_rows() {
        let (row, pair) = (
            RowForm::new(100, Group::Row),
            RowForm::new(100, Group::Pair),
        );
        assert_eq!(pair, RowForm { bytes: 384, ..row });
    }

    #[test]
    fn every_number_is_a_pair_of_bytes() {
        let most = most(Group::Pair) as i32;
        assert_eq!(most, 16256);
        for c in -most..=most {
            let (high, low) = pair(c);
            assert_eq!(128 * i32::from(high) + i32::from(low), c);
            assert!(
                high >= -127 && (-64..=63).contains(&low),
                "{c}: {high} {low}"
            );
        }
        // Between two codes: the greater.
        assert_eq!((pair(64), pair(-64)), ((1, -64), (0, -64)));
        assert_eq!((pair(most), pair(-most)), ((127, 0), (-127, 0)));
    }

    #[test]
    fn the_largest_of_a_row_is_its_last_step() {
        // Whatever rounding does to the inverse, the product is nearest to 16256.
        for i in 0..100_000 {
            let amax = f32::from_bits(1f32.to_bits() + i * 83);
            for x in [amax, -amax] {
                let (codes, scales) = quantize(&[x, 0.0], Group::Pair);
                assert_eq!(codes, [if x > 0.0 { 127 } else { -127 }, 0, 0, 0], "{x}");
                assert_eq!(scales[0], 128.0 * scales[1]);
            }
        }
    }

    #[test]
    fn pairs_are_128_times_as_fine() {
        let row: Vec<f32> = (0..100)
            .map(|i| ((i * 37 % 100) as f32 - 31.3) / 7.0)
            .collect();
        let amax = row.iter().fold(0f32, |m, x| m.max(x.abs()));
        let (codes, scales) = quantize(&row, Group::Pair);
        assert_eq!((codes.len(), scales.len()), (200, 2));
        let values = round_trip(&row, Group::Pair);
        for (i, (x, y)) in row.iter().zip(&values).enumerate() {
            assert!((x - y).abs() <= amax / 16256.0 * 0.501, "{x} {y}");
            let halves = [(i, 0), (i + 100, 1)]
                .map(|(i, half)| f64::from(codes[i]) * f64::from(scales[half]));
            assert_eq!((halves[0] + halves[1]) as f32, *y);
        }
        assert_eq!(
            quantize(&[1e-31, 0.0], Group::Pair),
            (vec![0; 4], vec![0.0; 2])
        );
    }
}
