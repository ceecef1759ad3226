//! 8-bit activations: what `quantize` computes, and how a row of it lies in memory.
//!
//! A group of elements (32 neighbours, or the row) shares the scale `amax / 127`; a code is
//! `x · (127 / amax)` rounded to nearest even, all in f32, so that whoever computes it gets the same
//! codes. A group whose largest magnitude is below [`TINY`] is zero.
//!
//! Not here: which values are quantised (a pass decides), and products.

use crate::Group;

/// Below this magnitude a group counts as zero: its inverse scale would overflow.
pub const TINY: f32 = 1e-30;

/// Elements of a group of [`Group::Block`].
pub const BLOCK: usize = 32;

/// Quantises a row: the codes, and a scale for each group. Under [`Group::Block`] the row is whole blocks.
pub fn quantize(row: &[f32], group: Group) -> (Vec<i8>, Vec<f32>) {
    let len = match group {
        Group::Block => BLOCK,
        Group::Row => row.len().max(1),
    };
    let mut codes = Vec::with_capacity(row.len());
    let mut scales = Vec::with_capacity(row.len() / len);
    for values in row.chunks(len) {
        let amax = values.iter().fold(0f32, |m, x| m.max(x.abs()));
        if amax < TINY {
            scales.push(0.0);
            codes.extend(values.iter().map(|_| 0i8));
        } else {
            let inverse = 127.0 / amax;
            scales.push(amax / 127.0);
            codes.extend(values.iter().map(|x| (x * inverse).round_ties_even() as i8));
        }
    }
    (codes, scales)
}

/// The values that a quantised row stands for: `code · scale`.
pub fn round_trip(row: &[f32], group: Group) -> Vec<f32> {
    let (codes, scales) = quantize(row, group);
    let len = codes.len() / scales.len().max(1);
    let values = codes.iter().zip(0..);
    values
        .map(|(&code, i): (_, usize)| f32::from(code) * scales[i / len.max(1)])
        .collect()
}

/// Where the parts of a quantised row of `cols` elements are, in bytes from its start.
///
/// Codes come first, padded with zeros to whole groups of 64. The sums of the codes serve kernels
/// whose weights are stored with an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowForm {
    /// f32, one for each group.
    pub scales: u32,
    /// i32, the sum of the codes of each 32; under [`Group::Row`] one, of the whole row.
    pub sums: u32,
    /// i32, the sum of the codes of each 16; under [`Group::Row`] there are none.
    pub half_sums: u32,
    /// Bytes from one row to the next, a multiple of 64.
    pub bytes: u32,
}

impl RowForm {
    /// The form of rows of `cols` elements.
    pub fn new(cols: u32, group: Group) -> RowForm {
        let codes = cols.next_multiple_of(64);
        let (groups, halves) = match group {
            Group::Block => (codes / 32, codes / 16),
            Group::Row => (1, 0),
        };
        let (scales, sums) = (codes, codes + 4 * groups);
        let half_sums = sums + 4 * groups;
        RowForm {
            scales,
            sums,
            half_sums,
            bytes: (half_sums + 4 * halves).next_multiple_of(64),
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
            (form.scales, form.sums, form.half_sums, form.bytes),
            (896, 1008, 1120, 1344)
        );
        assert_eq!(RowForm::new(100, Group::Row).bytes, 192);
    }
}
