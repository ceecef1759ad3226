//! Decoders: a stack of causal layers and a head.
//!
//! In: a [`Decoder`]. Out: one function per layer class and the entry,
//! `forward(ids, pos, step) → last_hidden_state [N, hidden], logits [R, vocabulary]`.
//!
//! Not here: pooling of decoders, encoder-decoders.

use llmc_ir::ops::{Add, Linear, Rows, Softcap};
use llmc_ir::{Operand, Sym, Type, ValueId};

use super::{Attention, Classes, Embeddings, Graph, Mlp, Norm, Scope};
use crate::error::Result;
use crate::rope::Rope;

/// A decoder as its family describes it.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Width of the residual stream.
    pub hidden: u32,
    /// The longest sequence.
    pub context: u32,
    /// Tokens in, and perhaps out.
    pub embeddings: Embeddings,
    /// The ropes that layers choose from, with the names of their angles.
    pub ropes: Vec<(&'static str, Rope)>,
    /// The structures of layers.
    pub classes: Vec<DecoderLayer>,
    /// The structure of every layer.
    pub layers: Vec<usize>,
    /// The norm after the last layer, and its tensor.
    pub norm: (Norm, &'static str),
    /// What the hidden state becomes.
    pub head: Option<Head>,
}

/// One structure of layers.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// Its name: `layer`, or `layer.sliding` and alike where there are several.
    pub name: &'static str,
    /// Attention.
    pub attention: Attention,
    /// Feed-forward.
    pub mlp: Mlp,
    /// Where the norms stand.
    pub norms: LayerNorms,
}

/// The norms of a layer: their tensors, without `.weight`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorms {
    /// Which.
    pub norm: Norm,
    /// Before attention.
    pub before_attention: &'static str,
    /// On what attention adds.
    pub after_attention: Option<&'static str>,
    /// Before the feed-forward part.
    pub before_mlp: &'static str,
    /// On what the feed-forward part adds.
    pub after_mlp: Option<&'static str>,
}

impl LayerNorms {
    /// Llama's: one before each part.
    pub fn pre(norm: Norm) -> Self {
        Self {
            norm,
            before_attention: "model.layers.{layer}.input_layernorm",
            after_attention: None,
            before_mlp: "model.layers.{layer}.post_attention_layernorm",
            after_mlp: None,
        }
    }

    /// Gemma's: one before and one after each part.
    pub fn sandwich(norm: Norm) -> Self {
        Self {
            norm,
            before_attention: "model.layers.{layer}.input_layernorm",
            after_attention: Some("model.layers.{layer}.post_attention_layernorm"),
            before_mlp: "model.layers.{layer}.pre_feedforward_layernorm",
            after_mlp: Some("model.layers.{layer}.post_feedforward_layernorm"),
        }
    }
}

/// Hidden state → logits.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The matrix's tensor; `None`: the token table.
    pub tensor: Option<&'static str>,
    /// cap · tanh(logit / cap).
    pub softcap: Option<f32>,
}

impl Decoder {
    /// Writes the functions.
    pub fn lower(&self, graph: &mut Graph, classes: &Classes) -> Result<()> {
        for class in &classes.0 {
            let structure = &self.classes[class.structure];
            let mut scope = graph.layer(class);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
            let mut angles = Vec::new();
            for (name, rope) in &self.ropes {
                angles.push(scope.param(name, Type::f32(&[Sym::N.into(), rope.rotated.into()])));
            }
            let step = scope.param("step", Type::Step);
            let y = structure.lower(&mut scope, x, &angles, step)?;
            scope.finish(&[("x", y)]);
        }

        let mut scope = graph.entry();
        let ids = scope.param("ids", Type::ids());
        let pos = scope.param("pos", Type::ids());
        let step = scope.param("step", Type::Step);
        let (x, table) = self.embeddings.apply(&mut scope, ids, None, Some(pos))?;
        let mut carried: Vec<Operand> = vec![x.into()];
        for (name, rope) in &self.ropes {
            carried.push(scope.op(name, rope.angles(), &[pos.into()])?.into());
        }
        carried.push(step.into());
        let x = scope.op("y", classes.repeat(), &carried)?;
        let (norm, tensor) = self.norm;
        let h = norm.apply(&mut scope, x, "norm", tensor, (self.hidden, "hidden_size"))?;
        let Some(head) = self.head else {
            scope.finish(&[("last_hidden_state", h)]);
            return Ok(());
        };
        let r = scope.op("r", Rows, &[h.into(), step.into()])?;
        let head_weight = match head.tensor {
            None => table,
            Some(tensor) => {
                let vocabulary = self.embeddings.tokens.rows;
                let why = format!(
                    "rows = vocab_size ({vocabulary}), columns = hidden_size ({})",
                    self.hidden
                );
                scope.matrix("lm_head", tensor, [vocabulary, self.hidden], why)
            }
        };
        let mut logits = scope.op("logits", Linear::default(), &[r.into(), head_weight.into()])?;
        if let Some(cap) = head.softcap {
            logits = scope.op("logits", Softcap { cap }, &[logits.into()])?;
        }
        scope.finish(&[("last_hidden_state", h), ("logits", logits)]);
        Ok(())
    }
}

impl DecoderLayer {
    /// `x: [N, hidden]` → the same, one layer on.
    fn lower(
        &self,
        scope: &mut Scope,
        x: ValueId,
        angles: &[ValueId],
        step: ValueId,
    ) -> Result<ValueId> {
        let LayerNorms {
            norm,
            before_attention,
            after_attention,
            before_mlp,
            after_mlp,
        } = self.norms;
        let width = (self.attention.hidden, "hidden_size");
        let h = norm.apply(scope, x, "attn_norm", before_attention, width)?;
        let mut a = self.attention.causal(scope, h, angles, step)?;
        if let Some(tensor) = after_attention {
            a = norm.apply(scope, a, "attn_post_norm", tensor, width)?;
        }
        let x = scope.op("x1", Add, &[a.into(), x.into()])?;
        let h = norm.apply(scope, x, "mlp_norm", before_mlp, width)?;
        let mut m = self.mlp.apply(scope, h)?;
        if let Some(tensor) = after_mlp {
            m = norm.apply(scope, m, "mlp_post_norm", tensor, width)?;
        }
        scope.op("x2", Add, &[m.into(), x.into()])
    }
}
