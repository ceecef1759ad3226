//! Position terms of disentangled attention, and the convolution that goes with them.
//!
//! In: scores, queries, keys; the embeddings. Out: scores with the terms added; the first layer's result.
//!
//! ```text
//! pos_key, pos_query = norm(table) · Wᵀ + b       of weights alone: computed when they are packed
//! s = s + scale · (q · pos_key[bucket(i − j)] + k · pos_query[bucket(i − j)])
//! y = norm(y + act(conv(x)))                      x: what the first layer reads, y: what it makes
//! ```

use llmc_ir::ops::{ActKind, Activation, Add, AttnDisentangled, Disentangled, Linear, Unfold};
use llmc_ir::{Operand, ValueId};

use super::scope::Computed;
use super::{Norm, Projection, Scope};
use crate::config::Heads;
use crate::error::Result;

/// The terms of one model.
#[derive(Clone, Debug)]
pub struct PositionTerms {
    /// Distances → rows of the tables.
    pub terms: Disentangled,
    /// The table of all distances, `[2 · span, hidden]`.
    pub table: &'static str,
    /// The layer norm of its rows: eps, and the tensor without `.weight`.
    pub norm: Option<(f32, &'static str)>,
    /// From the table to keys; used where the terms have `c2p`.
    pub key: Projection,
    /// From the table to queries; used where the terms have `p2c`.
    pub query: Projection,
}

impl PositionTerms {
    /// The scores `s` of queries and keys with the terms added.
    pub fn apply(
        &self,
        scope: &mut Scope,
        [s, q, k, step]: [ValueId; 4],
        (heads, hidden): (Heads, u32),
        scale: f32,
    ) -> Result<ValueId> {
        let mut operands: Vec<Operand> = vec![s.into(), q.into(), k.into()];
        let columns = heads.query * heads.dim;
        let sides = [
            ("pos_key", self.terms.c2p, &self.key),
            ("pos_query", self.terms.p2c, &self.query),
        ];
        for (name, there, projection) in sides {
            if there {
                let computed = Computed {
                    table: (self.table, 2 * self.terms.span),
                    norm: self.norm,
                    projection,
                    shape: [columns, hidden],
                };
                operands.push(scope.computed(name, &computed).into());
            }
        }
        operands.push(step.into());
        let terms = self.terms;
        scope.op("s", AttnDisentangled { terms, scale }, &operands)
    }
}

/// A convolution along the sequence, added to the first layer's result.
#[derive(Clone, Copy, Debug)]
pub struct Conv {
    /// `[hidden, hidden, width]`: the tensor, without `.weight`.
    pub tensor: &'static str,
    /// Tokens that it spans.
    pub width: u32,
    /// What follows it.
    pub act: ActKind,
    /// The norm of the sum, and its tensor.
    pub norm: (Norm, &'static str),
}

impl Conv {
    /// `norm(y + act(conv(x)))`, both `[N, hidden]`.
    pub fn apply(
        &self,
        scope: &mut Scope,
        (x, y): (ValueId, ValueId),
        hidden: u32,
        step: ValueId,
    ) -> Result<ValueId> {
        let width = self.width;
        let u = scope.op("u", Unfold { width }, &[x.into(), step.into()])?;
        let why = format!(
            "hidden_size ({hidden}) twice, conv_kernel_size ({width}); the bias has hidden_size entries"
        );
        let w = scope.convolution("w_conv", self.tensor, [hidden, hidden, width], &why);
        let b = scope.vector("b_conv", &format!("{}.bias", self.tensor), hidden, why, 0.0);
        let linear = Linear {
            bias: true,
            ..Linear::default()
        };
        let c = scope.op("conv", linear, &[u.into(), w.into(), b.into()])?;
        let c = scope.op("ca", Activation { kind: self.act }, &[c.into()])?;
        let y = scope.op("x3", Add, &[c.into(), y.into()])?;
        let (norm, tensor) = self.norm;
        norm.apply(scope, y, "conv_norm", tensor, (hidden, "hidden_size"))
    }
}
