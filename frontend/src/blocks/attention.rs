//! Multi-head attention in its decomposed form.
//!
//! In: the normalised residual stream `[N, hidden]`. Out: what attention adds to it, `[N, hidden]`.
//!
//! ```text
//! q, k, v = split_heads(linear(x))                 [N, heads, dim], [N, kv_heads, dim] twice
//! q, k    = norm per head, rope                    where the family has them
//! k, v    = kv_read(kv_append(k, v))               decoders: past keys too, heads repeated
//! p       = softmax(mask(softcap(q·kᵀ·scale + bias)))      with sinks where the family has them
//! out     = linear(merge_heads(p·v))
//! ```
//!
//! Not here: fusing any of it (`passes/raise_attention.rs`).

use llmc_ir::ops::{
    Alibi, AttnBias, AttnMix, AttnScores, KvAppend, KvRead, MaskScores, MergeHeads, RelativeBias,
    Rope, RopeStyle, Softcap, Softmax, SplitHeads,
};
use llmc_ir::{Mask, ValueId};

use super::{Norm, PositionTerms, Projection, Scope};
use crate::config::Heads;
use crate::error::Result;

/// Attention of one layer class.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Width of the residual stream.
    pub hidden: u32,
    /// How the width splits.
    pub heads: Heads,
    /// `[heads · dim, hidden]`.
    pub q: Projection,
    /// `[kv_heads · dim, hidden]`.
    pub k: Projection,
    /// `[kv_heads · dim, hidden]`.
    pub v: Projection,
    /// `[hidden, heads · dim]`.
    pub o: Projection,
    /// Norm of every query and key head, before positions.
    pub head_norm: Option<HeadNorm>,
    /// How positions enter.
    pub positions: Positions,
    /// Which keys a query sees.
    pub mask: Mask,
    /// On the scores.
    pub scale: f32,
    /// cap · tanh(s / cap) on the scores.
    pub softcap: Option<f32>,
    /// The tensor of logits, one a head, that take part in the softmax and mix nothing in.
    pub sinks: Option<&'static str>,
}

/// The norms of query and key heads, and their tensors, without `.weight`.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    /// Which.
    pub norm: Norm,
    /// Of query heads.
    pub q: &'static str,
    /// Of key heads.
    pub k: &'static str,
}

/// How positions enter attention.
#[derive(Clone, Debug)]
pub enum Positions {
    /// In the embeddings.
    Learned,
    /// By rotating queries and keys; the index is that of the model's rope.
    Rope(usize),
    /// By a table of biases `[buckets, heads]` that all layers share.
    Relative {
        /// The table.
        tensor: &'static str,
        /// The name of its weight.
        name: &'static str,
        /// Distances → buckets.
        bias: RelativeBias,
    },
    /// By a bias that falls with the distance, at a slope of its own for each head.
    Alibi(Alibi),
    /// By terms of queries and keys with tables of positions.
    Disentangled(Box<PositionTerms>),
}

impl Attention {
    /// Scaled by 1/√head_dim, over all tokens that `mask` lets be seen; positions are in the embeddings.
    pub fn plain(hidden: u32, heads: Heads, [q, k, v, o]: [Projection; 4], mask: Mask) -> Self {
        Self {
            hidden,
            heads,
            q,
            k,
            v,
            o,
            head_norm: None,
            positions: Positions::Learned,
            mask,
            scale: f64::from(heads.dim).powf(-0.5) as f32,
            softcap: None,
            sinks: None,
        }
    }

    /// The same, with biases on queries, keys and values, and on the output.
    pub fn with_bias(mut self, qkv: bool, out: bool) -> Self {
        for projection in [&mut self.q, &mut self.k, &mut self.v] {
            projection.bias = qkv;
        }
        self.o.bias = out;
        self
    }

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
            Positions::Learned
            | Positions::Relative { .. }
            | Positions::Alibi(_)
            | Positions::Disentangled(_) => (q, k),
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
        self.mix(scope, [q, k, v], step, ("wo", "bo"))
    }

    /// Attention of an encoder layer: among the tokens of this step.
    pub fn bidirectional(&self, scope: &mut Scope, x: ValueId, step: ValueId) -> Result<ValueId> {
        let [q, k, v] = self.project(scope, x)?;
        self.mix(scope, [q, k, v], step, ("wo", "bo"))
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
        let mut part = |short: &str, projection: &Projection, heads: u32, why: &str| {
            let names = (&*format!("w{short}"), &*format!("b{short}"));
            let shape = [heads * dim, self.hidden];
            let x = projection.apply(scope, x, names, shape, why)?;
            scope.op(&format!("{short}h"), SplitHeads { heads }, &[x.into()])
        };
        let q = part("q", &self.q, query, &query_why)?;
        let k = part("k", &self.k, key_value, &key_why)?;
        let v = part("v", &self.v, key_value, &key_why)?;
        match self.head_norm {
            None => Ok([q, k, v]),
            Some(norms) => {
                let width = (dim, "head_dim");
                let q = norms.norm.apply(scope, q, "q_norm", norms.q, width)?;
                let k = norms.norm.apply(scope, k, "k_norm", norms.k, width)?;
                Ok([q, k, v])
            }
        }
    }

    /// Queries `[N, heads, dim]`, keys and values → `[N, hidden]`; `names` are those of the output's
    /// weight and bias.
    pub(super) fn mix(
        &self,
        scope: &mut Scope,
        [q, k, v]: [ValueId; 3],
        step: ValueId,
        names: (&str, &str),
    ) -> Result<ValueId> {
        let mut s = scope.op(
            "s",
            AttnScores { scale: self.scale },
            &[q.into(), k.into(), step.into()],
        )?;
        if let Positions::Disentangled(terms) = &self.positions {
            let heads = (self.heads, self.hidden);
            s = terms.apply(scope, [s, q, k, step], heads, self.scale)?;
        }
        if let Positions::Relative { tensor, name, bias } = self.positions {
            let why = format!(
                "rows = relative_attention_num_buckets ({}), columns = num_attention_heads ({})",
                bias.buckets, self.heads.query
            );
            let table = scope.matrix(name, tensor, [bias.buckets, self.heads.query], why);
            s = scope.op(
                "s",
                AttnBias { bias },
                &[s.into(), table.into(), step.into()],
            )?;
        }
        if let Positions::Alibi(alibi) = self.positions {
            s = scope.op("s", alibi, &[s.into(), step.into()])?;
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
        let mut operands = vec![m.into()];
        if let Some(tensor) = self.sinks {
            let why = format!("entries = num_attention_heads ({})", self.heads.query);
            operands.push(
                scope
                    .vector("sinks", tensor, self.heads.query, why, 0.0)
                    .into(),
            );
        }
        let sinks = self.sinks.is_some();
        let p = scope.op("p", Softmax { sinks }, &operands)?;
        let o = scope.op("o", AttnMix, &[p.into(), v.into(), step.into()])?;
        let o = scope.op("om", MergeHeads, &[o.into()])?;
        let width = self.heads.query * self.heads.dim;
        let why = format!(
            "rows = hidden_size ({}), columns = num_attention_heads ({}) × head_dim ({})",
            self.hidden, self.heads.query, self.heads.dim
        );
        self.o.apply(scope, o, names, [self.hidden, width], &why)
    }
}
