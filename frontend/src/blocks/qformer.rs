//! Querying Transformers: a few queries look at a picture's encoding, and become rows for a language model.
//!
//! In: a [`Qformer`]. Out: layer classes and the entry, `qformer(pos, step) → qformer_last_hidden_state [N, hidden],
//! image_features [N, width]`. A sequence is the queries about one picture; position `i` is query `i`.
//!
//! ```text
//! x = norm(queries)
//! x = norm(x + attention(x))             among the queries
//! x = norm(x + cross_attention(x))       every so manyth layer, from the first on: over the picture
//! x = norm(x + mlp(x))
//! image_features = linear(x)
//! ```
//!
//! The keys and values of the picture are the states of classes `qformer.source…`, which run behind the layers of
//! `vision`, one for each class of layers with cross-attention.
//!
//! Not here: the picture's encoding (`vision`), what reads the rows (`pictured`).

use llmc_ir::ops::{Add, Gather, Repeat};
use llmc_ir::{Entry, StateId, Sym, Type, ValueId};

use super::{Attention, Class, Classes, Graph, Leading, Mlp, Norm, Projection, Scope};
use crate::error::Result;

/// A querying Transformer as its family describes it.
#[derive(Clone, Debug)]
pub struct Qformer {
    /// Width of the residual stream.
    pub hidden: u32,
    /// How many queries look at a picture.
    pub count: u32,
    /// Their rows.
    pub queries: (&'static str, Leading),
    /// Which norm, everywhere, and the tensor of the one of the queries.
    pub norm: (Norm, &'static str),
    /// Among the queries.
    pub attention: Attention,
    /// After attention's sum: the tensor.
    pub attention_norm: &'static str,
    /// Over the picture.
    pub cross: Attention,
    /// After its sum: the tensor.
    pub cross_norm: &'static str,
    /// Width of the picture's encoding.
    pub source: u32,
    /// Every so manyth layer looks at the picture, from the first on.
    pub every: u32,
    /// Feed-forward.
    pub mlp: Mlp,
    /// After the feed-forward sum: the tensor.
    pub mlp_norm: &'static str,
    /// Layers.
    pub layers: Vec<usize>,
    /// Into the language model's rows: the tensor, and their width.
    pub projection: (&'static str, u32),
}

/// Structures of layers, and the names of their classes: those that look at the picture, and the others.
const CROSS: usize = 0;
const CLASSES: [&str; 2] = ["qformer.layer.cross", "qformer.layer"];

impl Qformer {
    /// The structure of each of `count` layers.
    pub fn structures(count: u32, every: u32) -> Vec<usize> {
        let layers = 0..count;
        layers
            .map(|i| usize::from(!i.is_multiple_of(every)))
            .collect()
    }

    /// The names of the layers' structures.
    pub fn class_names() -> Vec<&'static str> {
        CLASSES.to_vec()
    }

    /// Writes the classes that leave a picture's keys and values: the layers that `vision` runs, and the states.
    pub fn sources(&self, graph: &mut Graph, classes: &Classes) -> Result<(Repeat, Vec<StateId>)> {
        let reading = classes.0.iter().filter(|class| class.structure == CROSS);
        let source = |class: &Class| Class {
            name: class.name.replacen(CLASSES[CROSS], "qformer.source", 1),
            ..class.clone()
        };
        let sources = Classes(reading.map(source).collect());
        let attention = Attention {
            hidden: self.source,
            ..self.cross.clone()
        };
        let mut states = Vec::new();
        for class in &sources.0 {
            let mut scope = graph.layer(class);
            // These are all layers that run there.
            scope.spaced(self.every);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.source.into()]));
            let step = scope.param("step", Type::Step);
            states.push(attention.write_source(&mut scope, x, step)?);
            scope.finish(&[("x", x)]);
        }
        Ok((sources.repeat(), states))
    }

    /// Writes the functions; `states` are those of the classes that look at the picture, in order.
    pub fn lower(&self, graph: &mut Graph, classes: &Classes, states: &[StateId]) -> Result<()> {
        let (norm, tensor) = self.norm;
        let width = (self.hidden, "hidden_size");
        let mut states = states.iter();
        for class in &classes.0 {
            let state = match class.structure {
                CROSS => states.next().copied(),
                _ => None,
            };
            let mut scope = graph.layer(class);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
            let step = scope.param("step", Type::Step);
            let y = self.layer(&mut scope, x, state, step)?;
            scope.finish(&[("x", y)]);
        }

        let mut scope = graph.entry(Entry::Qformer);
        let pos = scope.param("pos", Type::ids());
        let step = scope.param("step", Type::Step);
        let (queries, leading) = self.queries;
        let why = format!(
            "num_query_tokens ({}), hidden_size ({})",
            self.count, self.hidden
        );
        let shape = [self.count, self.hidden];
        let table = leading.weight(&mut scope, "qformer.queries", queries, &shape, why);
        let x = scope.op("q", Gather { scale: 1.0 }, &[pos.into(), table.into()])?;
        let x = norm.apply(&mut scope, x, "qformer.norm", tensor, width)?;
        let h = scope.op("y", classes.repeat(), &[x.into(), step.into()])?;
        let (tensor, out) = self.projection;
        let why = format!(
            "rows = width of the language model ({out}), columns = hidden_size ({})",
            self.hidden
        );
        let names = ("w_image_features", "b_image_features");
        let projection = Projection::plain(tensor).with_bias(true);
        let features = projection.apply(&mut scope, h, names, [out, self.hidden], &why)?;
        scope.finish(&[
            ("qformer_last_hidden_state", h),
            ("image_features", features),
        ]);
        Ok(())
    }

    /// `x: [N, hidden]` → the same, one layer on; `state` holds the picture's keys and values.
    fn layer(
        &self,
        scope: &mut Scope,
        x: ValueId,
        state: Option<StateId>,
        step: ValueId,
    ) -> Result<ValueId> {
        let (norm, _) = self.norm;
        let width = (self.hidden, "hidden_size");
        let a = self.attention.bidirectional(scope, x, step)?;
        let x = scope.op("x1", Add, &[a.into(), x.into()])?;
        let mut x = norm.apply(scope, x, "attn_norm", self.attention_norm, width)?;
        if let Some(state) = state {
            let a = self.cross.over_source(scope, x, state, step)?;
            let sum = scope.op("x2", Add, &[a.into(), x.into()])?;
            x = norm.apply(scope, sum, "cross_norm", self.cross_norm, width)?;
        }
        let m = self.mlp.apply(scope, x)?;
        let x = scope.op("x3", Add, &[m.into(), x.into()])?;
        norm.apply(scope, x, "mlp_norm", self.mlp_norm, width)
    }
}
