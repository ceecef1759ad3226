//! How the innermost extents of a tensor are stored: in segments, each padded to whole SIMD groups.
//!
//! A row is `count` repetitions of a group of segments, for each [`Segment`] in order. A plain row
//! of 896 is `1 x (896)`; 14 heads of 64 that rotary positions split in halves are `14 x (32+32)`.
//! Padding holds zeros, always. Only stage `planned` has layouts; the evaluator ignores them.

use std::fmt;

use crate::{DType, quant::activation::RowForm};

/// Floats in one SIMD group; every segment is padded to a multiple of it.
pub const LANES: u32 = 16;

/// `count` groups of consecutive parts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    pub count: u32,
    /// Logical lengths; each is padded on its own.
    pub parts: Vec<u32>,
}

/// The layout of a row.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Layout(pub Vec<Segment>);

/// `n` rounded up to whole SIMD groups.
pub fn padded(n: u32) -> u32 {
    n.next_multiple_of(LANES)
}

impl Segment {
    /// Logical elements of one group.
    pub fn group_len(&self) -> u32 {
        self.parts.iter().sum()
    }

    /// Stored elements of one group.
    pub fn group_width(&self) -> u32 {
        self.parts.iter().map(|&p| padded(p)).sum()
    }
}

impl Layout {
    /// A row of `len` without inner structure.
    pub fn plain(len: u32) -> Layout {
        Layout(vec![Segment {
            count: 1,
            parts: vec![len],
        }])
    }

    /// `count` heads whose elements are stored in `parts`.
    pub fn heads(count: u32, parts: &[u32]) -> Layout {
        Layout(vec![Segment {
            count,
            parts: parts.to_vec(),
        }])
    }

    /// This row and then that one.
    pub fn concat(layouts: &[Layout]) -> Layout {
        Layout(layouts.iter().flat_map(|l| l.0.iter().cloned()).collect())
    }

    /// Logical elements of a row, where they can be counted.
    pub fn checked_len(&self) -> Option<u32> {
        self.sum(Some)
    }

    /// Stored elements of a row, where they can be counted.
    pub fn checked_width(&self) -> Option<u32> {
        self.sum(|p| p.checked_next_multiple_of(LANES))
    }

    /// 4-byte units that a row of `dtype` takes, where they can be counted: 8-bit activations have a
    /// form of their own ([`RowForm`]).
    pub fn checked_units(&self, dtype: DType) -> Option<u32> {
        let width = self.checked_width()?;
        match dtype {
            DType::F32 | DType::I32 => Some(width),
            DType::F16 | DType::BF16 => Some(width / 2),
            DType::Q8(group) if width < 1 << 28 => Some(RowForm::new(self.len(), group).bytes / 4),
            DType::Q8(_) | DType::Block(_) | DType::Int8 => None,
        }
    }

    /// Whether all elements follow one another, padding behind the last alone.
    pub fn is_plain(&self) -> bool {
        let mut ended = false;
        for s in self.0.iter().filter(|s| s.count > 0) {
            for p in s.parts.iter().filter(|&&p| p > 0) {
                let whole = p.is_multiple_of(LANES);
                if ended || !(whole || s.count == 1) {
                    return false;
                }
                ended = !whole;
            }
        }
        true
    }

    fn sum(&self, of: impl Fn(u32) -> Option<u32>) -> Option<u32> {
        self.0.iter().try_fold(0u32, |n, s| {
            let mut group = s.parts.iter();
            let width = group.try_fold(0u32, |n, &p| n.checked_add(of(p)?))?;
            n.checked_add(width.checked_mul(s.count)?)
        })
    }

    /// Logical elements of a row.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|s| s.count * s.group_len()).sum()
    }

    /// True for the layout of nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stored elements of a row.
    pub fn width(&self) -> u32 {
        self.0.iter().map(|s| s.count * s.group_width()).sum()
    }

    /// For each stored element the logical one, or None for padding: `width()` entries.
    pub fn stored(&self) -> Vec<Option<u32>> {
        let mut out = Vec::with_capacity(self.width() as usize);
        let mut next = 0;
        for s in &self.0 {
            for _ in 0..s.count {
                for &p in &s.parts {
                    out.extend((next..next + p).map(Some));
                    out.extend((p..padded(p)).map(|_| None));
                    next += p;
                }
            }
        }
        out
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, s) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" + ")?;
            }
            let parts: Vec<String> = s.parts.iter().map(u32::to_string).collect();
            write!(f, "{}x({})", s.count, parts.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Group;

    #[test]
    fn pads_each_part_on_its_own() {
        let l = Layout::concat(&[Layout::heads(2, &[12, 12]), Layout::plain(16)]);
        assert_eq!((l.len(), l.width()), (64, 80));
        let stored = l.stored();
        assert_eq!(
            (stored[11], stored[12], stored[16]),
            (Some(11), None, Some(12))
        );
        assert_eq!(stored.iter().flatten().count(), 64);
        assert_eq!(l.to_string(), "2x(12, 12) + 1x(16)");
    }

    #[test]
    fn plain_rows_are_padded_at_their_end_alone() {
        let plain = |l: Layout| l.is_plain();
        assert!(plain(Layout::plain(100)) && plain(Layout::heads(14, &[32, 32])));
        assert!(plain(Layout::concat(&[
            Layout::plain(32),
            Layout::plain(5),
            Layout::heads(0, &[3])
        ])));
        assert!(!plain(Layout::heads(2, &[24])) && !plain(Layout::heads(1, &[8, 16])));
    }

    #[test]
    fn rows_take_what_their_type_says() {
        let units = |dtype| Layout::plain(100).checked_units(dtype);
        assert_eq!(
            (units(DType::F32), units(DType::BF16)),
            (Some(112), Some(56))
        );
        let q8 = |group| units(DType::Q8(group));
        // 128 codes, 4 scales, 4 sums, 8 half sums, 4 starts.
        let block = (128u32 + 80).next_multiple_of(64) / 4;
        // 128 codes, scale, sum, start.
        let row = (128u32 + 12).next_multiple_of(64) / 4;
        assert_eq!(
            (q8(Group::Block), q8(Group::Row), q8(Group::Pair)),
            (Some(block), Some(row), Some(2 * row))
        );
        assert_eq!(units(DType::Int8), None);
    }
}
