//! The feed-forward part of a layer: dense, or a mixture of experts.

use llmc_ir::ValueId;

use super::{Mlp, Moe, Scope};
use crate::error::Result;

/// Either of them.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// Every token goes through all of it.
    Dense(Mlp),
    /// Every token goes through few of many.
    Experts(Moe),
}

impl FeedForward {
    /// `[N, hidden] → [N, hidden]`.
    pub fn apply(&self, scope: &mut Scope, x: ValueId) -> Result<ValueId> {
        match self {
            Self::Dense(mlp) => mlp.apply(scope, x),
            Self::Experts(moe) => moe.apply(scope, x),
        }
    }
}

impl From<Mlp> for FeedForward {
    fn from(mlp: Mlp) -> Self {
        Self::Dense(mlp)
    }
}

impl From<Moe> for FeedForward {
    fn from(moe: Moe) -> Self {
        Self::Experts(moe)
    }
}
