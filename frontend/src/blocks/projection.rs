//! Where a projection's weight and bias lie in a checkpoint.
//!
//! In: a tensor's name, and which rows of it the projection takes. Out: a weight of the module whose source is
//! those rows, and the wish for the whole tensor.
//!
//! Checkpoints fuse projections (`qkv_proj`, `gate_up_proj`, `c_attn`) and some store the transpose (Conv1D:
//! `[in, out]`); the module sees one plain `[out, in]` matrix per projection, and passes fuse them again.
//!
//! Not here: how many rows a projection has (its block knows).

use llmc_ir::ops::Linear;
use llmc_ir::{Operand, ValueId};

use super::Scope;
use crate::error::Result;

/// A linear layer of the checkpoint: `{tensor}.weight`, perhaps `{tensor}.bias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// The name without `.weight`, with `{layer}`.
    pub tensor: &'static str,
    /// Whether it has a bias.
    pub bias: bool,
    /// The tensor of the bias, where it is one of its own: all of it.
    pub bias_tensor: Option<&'static str>,
    /// Whether the weight is stored as `[in, out]`.
    pub transposed: bool,
    /// Which outputs of the tensor; `None`: all.
    pub rows: Option<Rows>,
}

/// Some of a fused tensor's outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// All outputs of the tensor.
    pub of: u32,
    /// Those that are taken, `start..end`, one run after another.
    pub runs: Vec<(u32, u32)>,
}

impl Projection {
    /// A tensor of its own, without a bias.
    pub const fn plain(tensor: &'static str) -> Self {
        Self {
            tensor,
            bias: false,
            bias_tensor: None,
            transposed: false,
            rows: None,
        }
    }

    /// With a bias, or not.
    pub const fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// With a bias that is a tensor of its own.
    pub const fn with_bias_of(mut self, tensor: &'static str) -> Self {
        self.bias = true;
        self.bias_tensor = Some(tensor);
        self
    }

    /// Stored as `[in, out]`, as GPT-2's Conv1D does.
    pub const fn conv1d(mut self) -> Self {
        self.transposed = true;
        self
    }

    /// Cuts a fused tensor into consecutive projections of these sizes.
    pub fn split<const N: usize>(&self, sizes: [u32; N]) -> [Self; N] {
        let of = sizes.iter().sum();
        let mut start = 0;
        sizes.map(|size| {
            let runs = vec![(start, start + size)];
            start += size;
            Self {
                rows: Some(Rows { of, runs }),
                ..self.clone()
            }
        })
    }

    /// Cuts a fused tensor that repeats a group of projections of these sizes `groups` times.
    pub fn split_groups<const N: usize>(&self, groups: u32, sizes: [u32; N]) -> [Self; N] {
        let group: u32 = sizes.iter().sum();
        let mut start = 0;
        sizes.map(|size| {
            let runs = (0..groups)
                .map(|g| (g * group + start, g * group + start + size))
                .collect();
            start += size;
            Self {
                rows: Some(Rows {
                    of: groups * group,
                    runs,
                }),
                ..self.clone()
            }
        })
    }

    /// `x · Wᵀ + b`, the weight being `[out, in]`; `names` are those of weight and bias in the module.
    pub fn apply(
        &self,
        scope: &mut Scope,
        x: ValueId,
        names: (&str, &str),
        shape: [u32; 2],
        why: &str,
    ) -> Result<ValueId> {
        let w = scope.projection(names.0, self, shape, why);
        let mut operands: Vec<Operand> = vec![x.into(), w.into()];
        if self.bias {
            operands.push(scope.projection_bias(names.1, self, shape[0], why).into());
        }
        let hint = names.0.trim_start_matches('w').trim_start_matches('_');
        scope.op(
            hint,
            Linear {
                bias: self.bias,
                ..Linear::default()
            },
            &operands,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fused_tensors_are_cut() {
        let [q, k, v] = Projection::plain("qkv").split([4, 2, 2]);
        let runs = |p: &Projection| p.rows.clone().map(|r| (r.of, r.runs));
        assert_eq!(runs(&q), Some((8, vec![(0, 4)])));
        assert_eq!(runs(&k), Some((8, vec![(4, 6)])));
        assert_eq!(runs(&v), Some((8, vec![(6, 8)])));
        let [q, k] = Projection::plain("qk").split_groups(2, [3, 1]);
        assert_eq!(runs(&q), Some((8, vec![(0, 3), (4, 7)])));
        assert_eq!(runs(&k), Some((8, vec![(3, 4), (7, 8)])));
    }
}
