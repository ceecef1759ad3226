//! The stored forms of a weight, resolved to element maps.

use llmc_ir::{DType, Layout, ops::RelativeBias};

use super::positions::PositionTable;
use crate::blocks::{Blocks, STRIP};

/// Outputs in one panel of a matrix.
pub const PANEL: u32 = 64;

/// How one slot of a weight is stored. Maps give, for each stored index, the logical one, or None
/// for padding (zero).
#[derive(Clone, PartialEq, Debug)]
pub enum Form {
    /// Strips of 32 rows in `dtype`, a block format or int8 ([`Blocks`]); `rows` is a multiple of
    /// 32, columns are as in the checkpoint.
    Blocks {
        dtype: DType,
        form: Blocks,
        rows: Vec<Option<u32>>,
        cols: u32,
    },
    /// `[rows / 64][cols][64]` in `dtype`; `rows` is a multiple of 64.
    Panels {
        dtype: DType,
        rows: Vec<Option<u32>>,
        cols: Vec<Option<u32>>,
    },
    /// `[count][cols]` in `dtype`.
    Rows {
        dtype: DType,
        count: u32,
        cols: Vec<Option<u32>>,
    },
    /// f32, one after another.
    Vector { map: Vec<Option<u32>> },
    /// f32 `[heads][stride]`: the bias of relative position `j − i` stands at `j − i + origin`.
    Relative {
        bias: RelativeBias,
        heads: u32,
        origin: u32,
        stride: u32,
    },
    /// A table of attention's position terms.
    Positions(PositionTable),
}

impl Form {
    /// Bytes of one slot.
    pub fn bytes(&self) -> u64 {
        match self {
            Form::Blocks {
                form, rows, cols, ..
            } => rows.len() as u64 / STRIP as u64 * form.strip_bytes(i64::from(*cols)) as u64,
            Form::Panels { dtype, rows, cols } => {
                rows.len() as u64 * cols.len() as u64 * dtype.row_bytes(1)
            }
            Form::Rows { dtype, count, cols } => {
                u64::from(*count) * cols.len() as u64 * dtype.row_bytes(1)
            }
            Form::Vector { map } => map.len() as u64 * 4,
            Form::Relative { heads, stride, .. } => u64::from(*heads) * u64::from(*stride) * 4,
            Form::Positions(table) => table.bytes(),
        }
    }
}

/// The outputs of a linear in stored order, padded to whole panels. With `glu`, gate and up
/// alternate in groups of 16.
pub fn output_map(rows: &Layout, glu: bool) -> Vec<Option<u32>> {
    let mut map = rows.stored();
    if glu {
        let half = map.len() / 2;
        let (gate, up) = map.split_at(half);
        let lanes = llmc_ir::layout::LANES as usize;
        map = gate
            .chunks(lanes)
            .zip(up.chunks(lanes))
            .flat_map(|(g, u)| g.iter().chain(u).copied())
            .collect();
    }
    map.resize(map.len().next_multiple_of(PANEL as usize), None);
    map
}

/// The outputs of `count` experts in stored order, those of each padded to whole panels; `rows` are
/// one expert's. With `glu` the weight holds the gates of all experts, then the ups.
pub fn expert_map(count: u32, rows: &Layout, glu: bool) -> Vec<Option<u32>> {
    let one = output_map(rows, glu);
    let part = if glu { rows.len() / 2 } else { rows.len() };
    let of = |e: u32| {
        let row = move |i: u32| i / part * part * count + e * part + i % part;
        one.iter().map(move |i| i.map(row))
    };
    (0..count).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmc_ir::Segment;

    #[test]
    fn experts_have_panels_of_their_own() {
        let map = expert_map(3, &Layout::heads(2, &[20]), true);
        assert_eq!(map.len(), 3 * 64);
        // Gates are 0..60, ups 60..120; the second expert has 20..40 and 80..100.
        assert_eq!((map[64], map[64 + 16]), (Some(20), Some(80)));
        assert_eq!(
            (map[64 + 32], map[64 + 48], map[64 + 36]),
            (Some(36), Some(96), None)
        );
        let map = expert_map(2, &Layout::plain(70), false);
        assert_eq!(
            (map.len(), map[69], map[70], map[128]),
            (256, Some(69), None, Some(70))
        );
    }

    #[test]
    fn glu_alternates_gate_and_up() {
        let rows = Layout(vec![Segment {
            count: 2,
            parts: vec![20],
        }]);
        let map = output_map(&rows, true);
        assert_eq!(map.len(), 64);
        assert_eq!(
            (map[0], map[16], map[32], map[36]),
            (Some(0), Some(20), Some(16), None)
        );
        assert_eq!((map[48], map[51], map[52]), (Some(36), Some(39), None));
    }
}
