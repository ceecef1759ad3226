//! `tile-attention`: gives every attention its tiles.
//!
//! ```text
//! attention … {mask = causal}   →   attention … {mask = causal, schedule = flash<block_q = 6, block_kv = 64>}
//! ```
//!
//! A schedule that is there already stays.

use llmc_ir::{Module, Op, ops::Flash};

use crate::{Pass, PassError, Remarks, Stats};

/// What the tiles depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileFacts {
    /// Queries of a tile: rows of accumulators that stay in registers.
    pub block_q: u32,
    /// Keys of a tile: a page of the cache.
    pub block_kv: u32,
}

impl Default for TileFacts {
    fn default() -> Self {
        TileFacts {
            block_q: 6,
            block_kv: 64,
        }
    }
}

/// Schedules attention.
pub struct TileAttention(pub TileFacts);

impl Pass for TileAttention {
    fn name(&self) -> &'static str {
        "tile-attention"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let TileFacts { block_q, block_kv } = self.0;
        let mut rewrites = 0;
        for inst in module.funcs.iter_mut().flat_map(|f| &mut f.body) {
            if let Op::Attention(a) = &mut inst.op
                && a.schedule.is_none()
            {
                a.schedule = Some(Flash { block_q, block_kv });
                rewrites += 1;
            }
        }
        Ok(Stats::of(rewrites))
    }
}
