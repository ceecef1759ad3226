//! Multi-head attention in its decomposed form.
//!
//! In: the normalised residual stream `[N, hidden]`. Out: what attention adds to it, `[N, hidden]`.
//!
//! ```text
//! q, k, v = split_heads(linear(x))                 [N, heads, dim], [N, kv_heads, dim] twice
//! q, k    = norm per head, rope                    where the family has them
//! k, v    = kv_read(kv_append(k, v))               decoders: past keys too, heads repeated
//! p       = softmax(mask(softcap(q·kᵀ·scale + bias)))
//! out     = linear(merge_heads(p·v))
//! ```
//!
//! Not here: fusing any of it (`passes/raise_attention.rs`).

use llmc_ir::ops::{
    AttnBias, AttnMix, AttnScores, KvAppend, KvRead, Linear, MaskScores, MergeHeads, RelativeBias,
    Rope, RopeStyle, Softcap, Softmax, SplitHeads,
};
use llmc_ir::{Mask, Operand, ValueId};

use super::{Norm, Scope};
use crate::config::Heads;
use crate::error::Result;

/// Attention of one layer class.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Width of the residual stream.
    pub hidden: u32,
    /// How the width splits.
    pub heads: Heads,
    /// What the tensors are called.
    pub names: Names,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether the output has a bias.
    pub out_bias: bool,
    /// Norm of every query and key head, before positions.
    pub head_norm: Option<Norm>,
    /// How positions enter.
    pub positions: Positions,
    /// Which keys a query sees.
    pub mask: Mask,
    /// On the scores.
    pub scale: f32,
    /// cap · tanh(s / cap) on the scores.
    pub softcap: Option<f32>,
}

/// Names of the tensors, without `.weight` and `.bias`, with `{layer}`.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Queries.
    pub q: &'static str,
    /// Keys.
    pub k: &'static str,
    /// Values.
    pub v: &'static str,
    /// Output.
    pub o: &'static str,
    /// Norm of query heads, where there is one.
    pub q_norm: &'static str,
    /// Norm of key heads.
    pub k_norm: &'static str,
}

impl Names {
    /// Llama's and those of its descendants.
    pub const LLAMA: Self = Self {
        q: "model.layers.{layer}.self_attn.q_proj",
        k: "model.layers.{layer}.self_attn.k_proj",
        v: "model.layers.{layer}.self_attn.v_proj",
        o: "model.layers.{layer}.self_attn.o_proj",
        q_norm: "model.layers.{layer}.self_attn.q_norm",
        k_norm: "model.layers.{layer}.self_attn.k_norm",
    };
}

/// How positions enter attention.
#[derive(Clone, Copy, Debug)]
pub enum Positions {
    /// In the embeddings.
    Learned,
    /// By rotating queries and keys; the index is that of the model's rope.
    Rope(usize),
    /// By a table of biases `[buckets, heads]` that all layers share.
    Relative {
        /// The table.
        tensor: &'static str,
        /// Distances → buckets.
        bias: RelativeBias,
    },
}

impl Attention {
    /// Attention of a decoder layer: keys and values of past tokens are in the class's cache. `angles` are those
    /// of the model's ropes.
    pub fn causal(
        &self,
        scope: &mut Scope,
        x: ValueId,
        angles: &[ValueId],
        step: ValueId,
    ) -> Result<ValueId> {
        let [q, k, v] = self.project(scope, x)?;
        let (q, k) = match self.positions {
            Positions::Rope(which) => {
                let rope = Rope {
                    style: RopeStyle::Neox,
                };
                let angles = angles[which];
                let q = scope.op("qr", rope.clone(), &[q.into(), angles.into()])?;
                (q, scope.op("kr", rope, &[k.into(), angles.into()])?)
            }
            Positions::Learned | Positions::Relative { .. } => (q, k),
        };
        let window = self
            .mask
            .range()
            .and_then(|range| range.behind)
            .and_then(|behind| behind.checked_add(1));
        let cache = scope.kv_cache(self.heads.key_value, self.heads.dim, window);
        let view = scope.op(
            "c",
            KvAppend,
            &[cache.into(), k.into(), v.into(), step.into()],
        )?;
        let n_rep = self.heads.query / self.heads.key_value;
        let (k, v) = scope.op2("kv", KvRead { n_rep }, &[view.into(), step.into()])?;
        self.mix(scope, q, k, v, step)
    }

    /// Attention of an encoder layer: among the tokens of this step.
    pub fn bidirectional(&self, scope: &mut Scope, x: ValueId, step: ValueId) -> Result<ValueId> {
        let [q, k, v] = self.project(scope, x)?;
        self.mix(scope, q, k, v, step)
    }

    /// Queries `[N, heads, dim]`, keys and values `[N, kv_heads, dim]`.
    fn project(&self, scope: &mut Scope, x: ValueId) -> Result<[ValueId; 3]> {
        let Heads {
            query,
            key_value,
            dim,
        } = self.heads;
        let columns = format!("columns = hidden_size ({})", self.hidden);
        let why = |field: &str, heads: u32| {
            format!("rows = {field} ({heads}) × head_dim ({dim}), {columns}")
        };
        let query_why = why("num_attention_heads", query);
        let key_why = why("num_key_value_heads", key_value);
        let mut part = |short: &str, tensor: &str, heads: u32, why: &str| {
            let x = linear(
                scope,
                x,
                (&format!("w{short}"), &format!("b{short}")),
                tensor,
                [heads * dim, self.hidden],
                self.qkv_bias,
                why,
            )?;
            scope.op(&format!("{short}h"), SplitHeads { heads }, &[x.into()])
        };
        let q = part("q", self.names.q, query, &query_why)?;
        let k = part("k", self.names.k, key_value, &key_why)?;
        let v = part("v", self.names.v, key_value, &key_why)?;
        match self.head_norm {
            None => Ok([q, k, v]),
            Some(norm) => {
                let width = (dim, "head_dim");
                let q = norm.apply(scope, q, "q_norm", self.names.q_norm, width)?;
                let k = norm.apply(scope, k, "k_norm", self.names.k_norm, width)?;
                Ok([q, k, v])
            }
        }
    }

    fn mix(
        &self,
        scope: &mut Scope,
        q: ValueId,
        k: ValueId,
        v: ValueId,
        step: ValueId,
    ) -> Result<ValueId> {
        let mut s = scope.op(
            "s",
            AttnScores { scale: self.scale },
            &[q.into(), k.into(), step.into()],
        )?;
        if let Positions::Relative { tensor, bias } = self.positions {
            let why = format!(
                "rows = relative_attention_num_buckets ({}), columns = num_attention_heads ({})",
                bias.buckets, self.heads.query
            );
            let table = scope.matrix(
                "relative_bias",
                tensor,
                [bias.buckets, self.heads.query],
                why,
            );
            s = scope.op(
                "s",
                AttnBias { bias },
                &[s.into(), table.into(), step.into()],
            )?;
        }
        if let Some(cap) = self.softcap {
            s = scope.op("s", Softcap { cap }, &[s.into()])?;
        }
        let m = scope.op(
            "m",
            MaskScores {
                mask: self.mask.clone(),
            },
            &[s.into(), step.into()],
        )?;
        let p = scope.op("p", Softmax, &[m.into()])?;
        let o = scope.op("o", AttnMix, &[p.into(), v.into(), step.into()])?;
        let o = scope.op("om", MergeHeads, &[o.into()])?;
        let width = self.heads.query * self.heads.dim;
        let why = format!(
            "rows = hidden_size ({}), columns = num_attention_heads ({}) × head_dim ({})",
            self.hidden, self.heads.query, self.heads.dim
        );
        linear(
            scope,
            o,
            ("wo", "bo"),
            self.names.o,
            [self.hidden, width],
            self.out_bias,
            &why,
        )
    }
}

/// `x · Wᵀ + b` with `{tensor}.weight` of `[out, in]` and perhaps `{tensor}.bias` of `[out]`; `names` are those of
/// weight and bias in the module.
pub fn linear(
    scope: &mut Scope,
    x: ValueId,
    names: (&str, &str),
    tensor: &str,
    shape: [u32; 2],
    bias: bool,
    why: &str,
) -> Result<ValueId> {
    let w = scope.matrix(names.0, &format!("{tensor}.weight"), shape, why);
    let mut operands: Vec<Operand> = vec![x.into(), w.into()];
    if bias {
        operands.push(
            scope
                .vector(names.1, &format!("{tensor}.bias"), shape[0], why, 0.0)
                .into(),
        );
    }
    let hint = names.0.trim_start_matches('w').trim_start_matches('_');
    scope.op(
        hint,
        Linear {
            bias,
            ..Linear::default()
        },
        &operands,
    )
}
