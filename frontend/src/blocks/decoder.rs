//! Decoders: a stack of causal layers and a head.
//!
//! In: a [`Decoder`]. Out: one function per layer class and the entry,
//! `forward(ids, pos, step) → last_hidden_state [N, hidden], logits [R, vocabulary]`; where texts may hold pictures
//! the entry takes `types` and `image_features` besides.
//!
//! Not here: pooling of decoders, encoder-decoders.

use llmc_ir::ops::{Add, Linear, Rows, Softcap};
use llmc_ir::{Entry, Operand, Sym, Type, ValueId};

use super::{Attention, Classes, Embeddings, FeedForward, Graph, Norm, Scope};
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
    /// The norm before the first layer, and its tensor.
    pub embedding_norm: Option<(Norm, &'static str)>,
    /// The ropes that layers choose from, with the names of their angles.
    pub ropes: Vec<(&'static str, Rope)>,
    /// The structures of layers.
    pub classes: Vec<DecoderLayer>,
    /// The structure of every layer.
    pub layers: Vec<usize>,
    /// The norm after the last layer, and its tensor.
    pub norm: Option<(Norm, &'static str)>,
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
    pub mlp: FeedForward,
    /// Which norm.
    pub norm: Norm,
    /// Where the norms stand.
    pub arrangement: Arrangement,
}

/// How the parts of a layer and its norms follow one another; the norms' tensors, without `.weight`.
#[derive(Clone, Copy, Debug)]
pub enum Arrangement {
    /// x += attention(norm(x)); x += mlp(norm(x))
    Pre {
        /// Before attention.
        attention: &'static str,
        /// Before the feed-forward part.
        mlp: &'static str,
    },
    /// x += norm(attention(norm(x))); x += norm(mlp(norm(x)))
    Sandwich {
        /// Before attention, and on what it adds.
        attention: [&'static str; 2],
        /// Before the feed-forward part, and on what it adds.
        mlp: [&'static str; 2],
    },
    /// x = norm(x + attention(x)); x = norm(x + mlp(x))
    Post {
        /// After attention's sum.
        attention: &'static str,
        /// After the feed-forward sum.
        mlp: &'static str,
    },
    /// x += attention(norm(x)) + mlp(norm(x)); one norm for both where the names are the same.
    Parallel {
        /// Before attention.
        attention: &'static str,
        /// Before the feed-forward part.
        mlp: &'static str,
    },
}

impl Arrangement {
    /// Llama's.
    pub const LLAMA: Self = Self::Pre {
        attention: "model.layers.{layer}.input_layernorm",
        mlp: "model.layers.{layer}.post_attention_layernorm",
    };

    /// Gemma's.
    pub const GEMMA: Self = Self::Sandwich {
        attention: [
            "model.layers.{layer}.input_layernorm",
            "model.layers.{layer}.post_attention_layernorm",
        ],
        mlp: [
            "model.layers.{layer}.pre_feedforward_layernorm",
            "model.layers.{layer}.post_feedforward_layernorm",
        ],
    };
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
    /// Writes the functions; `pictured`: texts may hold pictures.
    pub fn lower(&self, graph: &mut Graph, classes: &Classes, pictured: bool) -> Result<()> {
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

        let mut scope = graph.entry(Entry::Forward);
        let ids = scope.param("ids", Type::ids());
        let pos = scope.param("pos", Type::ids());
        let step = scope.param("step", Type::Step);
        let (mut x, table) = match pictured {
            true => self.embeddings.apply_pictured(&mut scope, ids, Some(pos))?,
            false => self.embeddings.apply(&mut scope, ids, None, Some(pos))?,
        };
        if let Some((norm, tensor)) = self.embedding_norm {
            let width = (self.hidden, "hidden_size");
            x = norm.apply(&mut scope, x, "embed_norm", tensor, width)?;
        }
        let mut carried: Vec<Operand> = vec![x.into()];
        for (name, rope) in &self.ropes {
            let mut operands = vec![pos.into()];
            if rope.scaling.length_rule().is_some() {
                operands.push(step.into());
            }
            carried.push(scope.op(name, rope.angles(), &operands)?.into());
        }
        carried.push(step.into());
        let x = scope.op("y", classes.repeat(), &carried)?;
        let mut h = match self.norm {
            None => x,
            Some((norm, tensor)) => {
                norm.apply(&mut scope, x, "norm", tensor, (self.hidden, "hidden_size"))?
            }
        };
        if let Some(narrow) = &self.embeddings.narrow {
            h = narrow.leave(&mut scope, h, self.hidden)?;
        }
        let Some(head) = self.head else {
            scope.finish(&[("last_hidden_state", h)]);
            return Ok(());
        };
        let r = scope.op("r", Rows, &[h.into(), step.into()])?;
        let head_weight = match head.tensor {
            None => table,
            Some(tensor) => {
                let shape = [self.embeddings.tokens.rows, self.embeddings.token_width()];
                let [vocabulary, width] = shape;
                let why =
                    format!("rows = vocab_size ({vocabulary}), columns = hidden_size ({width})");
                scope.matrix("lm_head", tensor, shape, why)
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
        let width = (self.attention.hidden, "hidden_size");
        let norm = |scope: &mut Scope, x, name: &str, tensor: &str| {
            self.norm.apply(scope, x, name, tensor, width)
        };
        let (attention, mlp) = (&self.attention, &self.mlp);
        match self.arrangement {
            Arrangement::Pre {
                attention: before_attention,
                mlp: before_mlp,
            } => {
                let h = norm(scope, x, "attn_norm", before_attention)?;
                let a = attention.causal(scope, h, angles, step)?;
                let x = scope.op("x1", Add, &[a.into(), x.into()])?;
                let h = norm(scope, x, "mlp_norm", before_mlp)?;
                let m = mlp.apply(scope, h)?;
                scope.op("x2", Add, &[m.into(), x.into()])
            }
            Arrangement::Sandwich {
                attention: around_attention,
                mlp: around_mlp,
            } => {
                let h = norm(scope, x, "attn_norm", around_attention[0])?;
                let a = attention.causal(scope, h, angles, step)?;
                let a = norm(scope, a, "attn_post_norm", around_attention[1])?;
                let x = scope.op("x1", Add, &[a.into(), x.into()])?;
                let h = norm(scope, x, "mlp_norm", around_mlp[0])?;
                let m = mlp.apply(scope, h)?;
                let m = norm(scope, m, "mlp_post_norm", around_mlp[1])?;
                scope.op("x2", Add, &[m.into(), x.into()])
            }
            Arrangement::Post {
                attention: after_attention,
                mlp: after_mlp,
            } => {
                let a = attention.causal(scope, x, angles, step)?;
                let x = scope.op("x1", Add, &[a.into(), x.into()])?;
                let x = norm(scope, x, "attn_norm", after_attention)?;
                let m = mlp.apply(scope, x)?;
                let x = scope.op("x2", Add, &[m.into(), x.into()])?;
                norm(scope, x, "mlp_norm", after_mlp)
            }
            Arrangement::Parallel {
                attention: before_attention,
                mlp: before_mlp,
            } => {
                let h = norm(scope, x, "attn_norm", before_attention)?;
                let a = attention.causal(scope, h, angles, step)?;
                let h = match before_mlp == before_attention {
                    true => h,
                    false => norm(scope, x, "mlp_norm", before_mlp)?,
                };
                let m = mlp.apply(scope, h)?;
                let x = scope.op("x1", Add, &[a.into(), x.into()])?;
                scope.op("x2", Add, &[m.into(), x.into()])
            }
        }
    }
}
