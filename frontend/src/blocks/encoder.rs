//! Encoders: a stack of bidirectional post-norm layers, and what is made of its last one.
//!
//! In: an [`Encoder`]. Out: one function per layer class and the entry, `forward(ids, pos, [types,] step)
//! → last_hidden_state [N, hidden], pooler_output [B, hidden], sentence_embedding [B, hidden]`, each where the
//! model has it, and what its head gives (`heads`).
//!
//! Not here: the encoders of encoder-decoders.

use llmc_ir::ops::{ActKind, Activation, Add, L2Normalize, Pool, PoolKind, PositionIds};
use llmc_ir::{Entry, Sym, Type, ValueId};

use super::{Attention, Classes, Conv, Embeddings, Graph, Mlp, Norm, Projection, Scope, TaskHead};
use crate::error::Result;
use crate::sentence::{Pooling, Sentence};

/// An encoder as its family describes it.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// Width of the residual stream.
    pub hidden: u32,
    /// The longest sequence.
    pub context: u32,
    /// Tokens in.
    pub embeddings: Embeddings,
    /// The norm of the embeddings, and its tensor.
    pub norm: (Norm, &'static str),
    /// From the tables' width to that of the residual stream, before the norm (DeBERTa).
    pub widening: Option<Projection>,
    /// From the tables' width to that of the residual stream, behind the norm (ALBERT).
    pub mapping: Option<Projection>,
    /// Positions count tokens other than this one, and begin behind it (RoBERTa); `None`: from 0.
    pub positions_after_pad: Option<u32>,
    /// The structure of all layers.
    pub layer: EncoderLayer,
    /// One entry per layer of the checkpoint.
    pub layers: Vec<usize>,
    /// A convolution of the embeddings that is added to what the first layer makes (DeBERTa v2); that layer's
    /// structure is 1.
    pub conv: Option<Conv>,
    /// The layers of the checkpoint in the order in which they run; `None`: each once.
    pub order: Option<Vec<u32>>,
    /// Layers of a group, where names count groups in `{layer}` and the layers in them in `{inner}` (ALBERT); else 1.
    pub group: u32,
    /// tanh(linear(first token)): the tensor, without `.weight`; left out where the checkpoint lacks it.
    pub pooler: Option<&'static str>,
    /// How a sentence becomes one vector: the pooling, and whether it is L2-normalised.
    pub sentence: Option<(Pooling, bool)>,
    /// What the hidden state becomes besides.
    pub head: Option<TaskHead>,
}

/// A post-norm layer.
#[derive(Clone, Debug)]
pub struct EncoderLayer {
    /// Attention.
    pub attention: Attention,
    /// Feed-forward.
    pub mlp: Mlp,
    /// Which norm.
    pub norm: Norm,
    /// After attention's sum: the tensor.
    pub attention_norm: &'static str,
    /// After the feed-forward sum: the tensor.
    pub mlp_norm: &'static str,
}

impl Encoder {
    /// What sentence-transformers asks for, if it is one.
    pub fn sentence(sentence: Option<&Sentence>) -> Option<(Pooling, bool)> {
        sentence.map(|sentence| (sentence.pooling, sentence.normalize))
    }

    /// The names of the layers' structures.
    pub fn class_names(&self) -> Vec<&'static str> {
        match self.layers.contains(&0) {
            true => vec!["layer", "layer.conv"],
            false => vec!["layer"; 2],
        }
    }

    /// The same, with a convolution behind the first layer.
    pub fn with_conv(mut self, conv: Option<Conv>) -> Self {
        if let (Some(_), Some(first)) = (conv, self.layers.first_mut()) {
            *first = 1;
        }
        self.conv = conv;
        self
    }

    /// As many rows of logits as fit 64 MB: an encoder runs whole again for those beyond.
    pub fn rows(&self) -> u32 {
        match &self.head {
            Some(TaskHead::MaskedLm(_)) => (1 << 24) / self.embeddings.tokens.rows.max(1),
            _ => 0,
        }
    }

    /// Writes the functions.
    pub fn lower(&self, graph: &mut Graph, classes: &Classes) -> Result<()> {
        for class in &classes.0 {
            let mut scope = graph.layer(class);
            scope.grouped(self.group);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
            let step = scope.param("step", Type::Step);
            let mut y = self.layer.lower(&mut scope, x, step)?;
            if let Some(conv) = self.conv.filter(|_| class.structure == 1) {
                y = conv.apply(&mut scope, (x, y), self.hidden, step)?;
            }
            scope.finish(&[("x", y)]);
        }

        let mut scope = graph.entry(Entry::Forward);
        let ids = scope.param("ids", Type::ids());
        let pos = scope.param("pos", Type::ids());
        let types = self
            .embeddings
            .types
            .map(|_| scope.param("types", Type::ids()));
        let step = scope.param("step", Type::Step);
        let pos = match self.positions_after_pad {
            None => pos,
            Some(pad) => scope.op("p", PositionIds { pad }, &[ids.into(), step.into()])?,
        };
        let (x, table) = self.embeddings.apply(&mut scope, ids, types, Some(pos))?;
        let (norm, tensor) = self.norm;
        let (hidden, narrow) = (self.hidden, self.embeddings.hidden);
        let why = format!("rows = hidden_size ({hidden}), columns = embedding_size ({narrow})");
        let x = match &self.widening {
            None => x,
            Some(widening) => {
                let names = ("w_widening", "b_widening");
                widening.apply(&mut scope, x, names, [hidden, narrow], &why)?
            }
        };
        let (width, field) = match &self.mapping {
            None => (hidden, "hidden_size"),
            Some(_) => (narrow, "embedding_size"),
        };
        let mut x = norm.apply(&mut scope, x, "embed_norm", tensor, (width, field))?;
        if let Some(mapping) = &self.mapping {
            let names = ("w_mapping", "b_mapping");
            x = mapping.apply(&mut scope, x, names, [hidden, narrow], &why)?;
        }
        let repeat = match &self.order {
            None => classes.repeat(),
            Some(order) => classes.repeat_in(order),
        };
        let h = scope.op("y", repeat, &[x.into(), step.into()])?;

        let mut results = vec![("last_hidden_state", h)];
        if let Some(tensor) = self
            .pooler
            .filter(|tensor| scope.has(&format!("{tensor}.weight")))
        {
            let first = scope.op(
                "first",
                Pool {
                    kind: PoolKind::Cls,
                },
                &[h.into(), step.into()],
            )?;
            let why = format!("rows = columns = hidden_size ({})", self.hidden);
            let names = ("w_pooler", "b_pooler");
            let shape = [self.hidden, self.hidden];
            let pooled = Projection::plain(tensor)
                .with_bias(true)
                .apply(&mut scope, first, names, shape, &why)?;
            let pooled = scope.op(
                "pooled",
                Activation {
                    kind: ActKind::Tanh,
                },
                &[pooled.into()],
            )?;
            results.push(("pooler_output", pooled));
        }
        if let Some((pooling, normalize)) = self.sentence {
            let s = sentence(&mut scope, h, step, (pooling, normalize))?;
            results.push(("sentence_embedding", s));
        }
        if let Some(head) = &self.head {
            let columns = self.embeddings.tokens.rows;
            let table = (table, [columns, self.embeddings.token_width()]);
            results.extend(head.apply(&mut scope, (h, self.hidden), table, step)?);
        }
        scope.finish(&results);
        Ok(())
    }
}

impl EncoderLayer {
    /// `x: [N, hidden]` → the same, one layer on.
    fn lower(&self, scope: &mut Scope, x: ValueId, step: ValueId) -> Result<ValueId> {
        let width = (self.attention.hidden, "hidden_size");
        let a = self.attention.bidirectional(scope, x, step)?;
        let x = scope.op("x1", Add, &[a.into(), x.into()])?;
        let x = self
            .norm
            .apply(scope, x, "attn_norm", self.attention_norm, width)?;
        let m = self.mlp.apply(scope, x)?;
        let x = scope.op("x2", Add, &[m.into(), x.into()])?;
        self.norm.apply(scope, x, "mlp_norm", self.mlp_norm, width)
    }
}

/// One vector for each sequence of `h: [N, hidden]`, L2-normalised or not.
pub(super) fn sentence(
    scope: &mut Scope,
    h: ValueId,
    step: ValueId,
    (pooling, normalize): (Pooling, bool),
) -> Result<ValueId> {
    let kind = pool_kind(pooling);
    let s = scope.op("sentence", Pool { kind }, &[h.into(), step.into()])?;
    match normalize {
        true => scope.op("sentence", L2Normalize { eps: 1e-12 }, &[s.into()]),
        false => Ok(s),
    }
}

fn pool_kind(pooling: Pooling) -> PoolKind {
    match pooling {
        Pooling::Mean => PoolKind::Mean,
        Pooling::Cls => PoolKind::Cls,
        Pooling::Max => PoolKind::Max,
        Pooling::LastToken => PoolKind::LastToken,
    }
}
