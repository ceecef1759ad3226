//! Attention of a decoder over a source, in its decomposed form.
//!
//! ```text
//! k, v = split_heads(linear(source))        [N, kv_heads, dim] twice: into a state, once a source
//! q    = split_heads(linear(x))             [N, heads, dim]
//! k, v = kv_read(kv_source)                 every key of the source, heads repeated
//! out  = linear(merge_heads(softmax(q·kᵀ·scale)·v))
//! ```
//!
//! Not here: what the source is, and which entry writes (`encoder_decoder`).

use llmc_ir::ops::{KvAppend, KvRead, KvSource, SplitHeads};
use llmc_ir::{StateId, ValueId};

use super::{Attention, Projection, Scope};
use crate::error::Result;

impl Attention {
    /// Writes the keys and values of `source: [N, hidden]` into a state of the class.
    pub fn write_source(
        &self,
        scope: &mut Scope,
        source: ValueId,
        step: ValueId,
    ) -> Result<StateId> {
        let heads = self.heads.key_value;
        let k = self.heads_of(scope, source, ("k", &self.k), heads)?;
        let v = self.heads_of(scope, source, ("v", &self.v), heads)?;
        let state = scope.kv_cache(heads, self.heads.dim, None);
        let operands = [state.into(), k.into(), v.into(), step.into()];
        scope.op("c", KvAppend, &operands)?;
        Ok(state)
    }

    /// Attention of `x: [N, hidden]` over what `write_source` has left in `state`.
    pub fn over_source(
        &self,
        scope: &mut Scope,
        x: ValueId,
        state: StateId,
        step: ValueId,
    ) -> Result<ValueId> {
        let q = self.heads_of(scope, x, ("cross_q", &self.q), self.heads.query)?;
        let view = scope.op("source", KvSource, &[state.into(), step.into()])?;
        let n_rep = self.heads.query / self.heads.key_value;
        let (k, v) = scope.op2("source_kv", KvRead { n_rep }, &[view.into(), step.into()])?;
        self.mix(scope, [q, k, v], step, ("cross_wo", "cross_bo"))
    }

    /// A projection of `x`, split into heads.
    fn heads_of(
        &self,
        scope: &mut Scope,
        x: ValueId,
        (name, projection): (&str, &Projection),
        heads: u32,
    ) -> Result<ValueId> {
        let (dim, hidden) = (self.heads.dim, self.hidden);
        let why = format!("rows = heads ({heads}) × head_dim ({dim}), columns = width ({hidden})");
        let names = match name.strip_prefix("cross_") {
            Some(short) => (format!("cross_w{short}"), format!("cross_b{short}")),
            None => (format!("w{name}"), format!("b{name}")),
        };
        let names = (&*names.0, &*names.1);
        let x = projection.apply(scope, x, names, [heads * dim, hidden], &why)?;
        scope.op(&format!("{name}h"), SplitHeads { heads }, &[x.into()])
    }
}
