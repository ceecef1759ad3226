//! Encoder-decoders: two stacks of pre-norm layers; those of the decoder look at what the encoder made of a source.
//!
//! In: an [`EncoderDecoder`]. Out: layer classes and two entries,
//!
//! ```text
//! encode(ids, step) → last_hidden_state [N, hidden]                 and the keys and values of every decoder layer
//! decode(ids, step) → last_hidden_state [N, hidden], logits [R, vocabulary]
//! ```
//!
//! or, where there is no decoder, `forward(ids, step) → last_hidden_state, sentence_embedding [B, hidden]`. The
//! decoder's cross-attention has a state whose keys and values `encode` writes, once a source: a second `repeat`
//! runs the classes `cross…` over the encoder's output, one for each class of decoder layers. Where sources may hold
//! pictures `encode` takes `types` and `image_features` besides.
//!
//! Not here: post-norm encoders (`encoder`), decoders alone (`decoder`).

use llmc_ir::ops::{Add, Linear, Repeat, Rows, Scale};
use llmc_ir::{Entry, StateId, Sym, Type, ValueId};

use super::{Attention, Class, Classes, Embeddings, Graph, Mlp, Norm, Scope, encoder};
use crate::error::Result;
use crate::sentence::Pooling;

/// An encoder-decoder, or its encoder alone, as its family describes it.
#[derive(Clone, Debug)]
pub struct EncoderDecoder {
    /// Width of the residual stream.
    pub hidden: u32,
    /// The longest source and text, unless another length is asked for.
    pub context: u32,
    /// The longest that can be asked for.
    pub longest: u32,
    /// Tokens into both stacks.
    pub embeddings: Embeddings,
    /// Which norm, everywhere.
    pub norm: Norm,
    /// What reads the source.
    pub encoder: Stack,
    /// What writes the text.
    pub decoder: Option<Stack>,
    /// The decoder's hidden state → logits.
    pub head: Head,
    /// How a sentence becomes one vector: the pooling, and whether it is L2-normalised.
    pub sentence: Option<(Pooling, bool)>,
}

/// The layers of an encoder or a decoder, all of one structure.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Among the stack's own tokens.
    pub attention: Attention,
    /// Before it: the tensor.
    pub attention_norm: &'static str,
    /// Over the source, in a decoder, and the tensor of the norm before it.
    pub cross: Option<(Attention, &'static str)>,
    /// Feed-forward.
    pub mlp: Mlp,
    /// Before it: the tensor.
    pub mlp_norm: &'static str,
    /// One entry per layer.
    pub layers: Vec<usize>,
    /// The tensor of the norm behind the last layer.
    pub norm: &'static str,
}

/// Hidden state → logits.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The matrix's tensor; `None`: the token table.
    pub tensor: Option<&'static str>,
    /// What the hidden state is multiplied with.
    pub scale: f32,
}

/// The names of the stacks' classes.
const ENCODER: &str = "encoder.layer";
const DECODER: &str = "decoder.layer";

impl EncoderDecoder {
    /// The structures of each stack's layers, and the name of its class.
    pub fn stacks(&self) -> Vec<(&[usize], Vec<&'static str>)> {
        let decoder = self.decoder.as_ref();
        let stacks = [(Some(&self.encoder), ENCODER), (decoder, DECODER)];
        let named = stacks
            .into_iter()
            .filter_map(|(stack, name)| Some((stack?, name)));
        named
            .map(|(stack, name)| (stack.layers.as_slice(), vec![name]))
            .collect()
    }

    /// Writes the functions; `classes` are those of each stack, `pictured`: sources may hold pictures.
    pub fn lower(&self, graph: &mut Graph, classes: &[Classes], pictured: bool) -> Result<()> {
        let (encoders, decoders) = match classes {
            [encoders, rest @ ..] => (encoders, rest.first()),
            [] => return Ok(()),
        };
        for class in &encoders.0 {
            let mut scope = graph.layer(class);
            let (x, step) = self.params(&mut scope);
            let x = self.own(&mut scope, &self.encoder, x, step)?;
            let x = self.feed_forward(&mut scope, &self.encoder, x)?;
            scope.finish(&[("x", x)]);
        }
        let (Some(decoder), Some(decoders)) = (&self.decoder, decoders) else {
            let mut scope = graph.entry(Entry::Forward);
            let (h, step) = self.encode(&mut scope, encoders, pictured)?;
            let mut results = vec![("last_hidden_state", h)];
            if let Some(sentence) = self.sentence {
                let s = encoder::sentence(&mut scope, h, step, sentence)?;
                results.push(("sentence_embedding", s));
            }
            scope.finish(&results);
            return Ok(());
        };

        // Each class of decoder layers has a class that writes its keys and values of the source.
        let cross = |class: &Class| Class {
            name: class.name.replacen(DECODER, "cross", 1),
            ..class.clone()
        };
        let crosses = Classes(decoders.0.iter().map(cross).collect());
        let mut states: Vec<Option<StateId>> = Vec::new();
        for class in &crosses.0 {
            let mut scope = graph.layer(class);
            let (x, step) = self.params(&mut scope);
            let state = match &decoder.cross {
                Some((attention, _)) => Some(attention.write_source(&mut scope, x, step)?),
                None => None,
            };
            scope.finish(&[("x", x)]);
            states.push(state);
        }
        let mut scope = graph.entry(Entry::Encode);
        let (h, step) = self.encode(&mut scope, encoders, pictured)?;
        let written: Repeat = crosses.repeat();
        let h = scope.op("written", written, &[h.into(), step.into()])?;
        scope.finish(&[("last_hidden_state", h)]);

        for (class, state) in decoders.0.iter().zip(states) {
            let mut scope = graph.layer(class);
            let (x, step) = self.params(&mut scope);
            let mut x = self.own(&mut scope, decoder, x, step)?;
            if let (Some((attention, norm)), Some(state)) = (&decoder.cross, state) {
                let h = self.normed(&mut scope, x, "cross_norm", norm)?;
                let a = attention.over_source(&mut scope, h, state, step)?;
                x = scope.op("x2", Add, &[a.into(), x.into()])?;
            }
            let x = self.feed_forward(&mut scope, decoder, x)?;
            scope.finish(&[("x", x)]);
        }
        self.decode(graph, decoder, decoders)
    }

    fn params(&self, scope: &mut Scope) -> (ValueId, ValueId) {
        let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
        (x, scope.param("step", Type::Step))
    }

    fn normed(&self, scope: &mut Scope, x: ValueId, name: &str, tensor: &str) -> Result<ValueId> {
        self.norm
            .apply(scope, x, name, tensor, (self.hidden, "d_model"))
    }

    /// x + attention(norm(x)) among the stack's own tokens.
    fn own(&self, scope: &mut Scope, stack: &Stack, x: ValueId, step: ValueId) -> Result<ValueId> {
        let h = self.normed(scope, x, "attn_norm", stack.attention_norm)?;
        let a = match stack.cross {
            Some(_) => stack.attention.causal(scope, h, &[], step)?,
            None => stack.attention.bidirectional(scope, h, step)?,
        };
        scope.op("x1", Add, &[a.into(), x.into()])
    }

    /// x + mlp(norm(x)).
    fn feed_forward(&self, scope: &mut Scope, stack: &Stack, x: ValueId) -> Result<ValueId> {
        let h = self.normed(scope, x, "mlp_norm", stack.mlp_norm)?;
        let m = stack.mlp.apply(scope, h)?;
        scope.op("x3", Add, &[m.into(), x.into()])
    }

    /// The encoder's last hidden state, and the step.
    fn encode(
        &self,
        scope: &mut Scope,
        classes: &Classes,
        pictured: bool,
    ) -> Result<(ValueId, ValueId)> {
        let ids = scope.param("ids", Type::ids());
        let step = scope.param("step", Type::Step);
        let (x, _) = match pictured {
            true => self.embeddings.apply_pictured(scope, ids, None)?,
            false => self.embeddings.apply(scope, ids, None, None)?,
        };
        let x = scope.op("y", classes.repeat(), &[x.into(), step.into()])?;
        let h = self.normed(scope, x, "encoder.norm", self.encoder.norm)?;
        Ok((h, step))
    }

    fn decode(&self, graph: &mut Graph, decoder: &Stack, classes: &Classes) -> Result<()> {
        let mut scope = graph.entry(Entry::Decode);
        let ids = scope.param("ids", Type::ids());
        let step = scope.param("step", Type::Step);
        let (x, table) = self.embeddings.apply(&mut scope, ids, None, None)?;
        let x = scope.op("y", classes.repeat(), &[x.into(), step.into()])?;
        let h = self.normed(&mut scope, x, "decoder.norm", decoder.norm)?;
        let mut r = scope.op("r", Rows, &[h.into(), step.into()])?;
        if self.head.scale != 1.0 {
            let factor = self.head.scale;
            r = scope.op("r", Scale { factor }, &[r.into()])?;
        }
        let weight = match self.head.tensor {
            None => table,
            Some(tensor) => {
                let shape = [self.embeddings.tokens.rows, self.hidden];
                let [vocabulary, width] = shape;
                let why = format!("rows = vocab_size ({vocabulary}), columns = d_model ({width})");
                scope.matrix("lm_head", tensor, shape, why)
            }
        };
        let logits = scope.op("logits", Linear::default(), &[r.into(), weight.into()])?;
        scope.finish(&[("last_hidden_state", h), ("logits", logits)]);
        Ok(())
    }
}
