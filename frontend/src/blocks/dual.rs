//! Two towers whose results lie in one space: pictures, and texts.
//!
//! In: a [`Dual`]. Out: the functions of both towers and two entries,
//!
//! ```text
//! forward(ids, pos, step)    → text_pooler_output [B, width], text_embeds [B, width]
//! vision(patches, pos, step) → vision_pooler_output [B, width], image_embeds [B, width]
//! ```
//!
//! A text is pooled at its last token: the caller cuts it behind the token that ends it, and later tokens, which no
//! earlier one sees, change nothing.
//!
//! Not here: similarities, which are products of the embeddings (the caller).

use llmc_ir::ops::{Pool, PoolKind};
use llmc_ir::{Entry, Sym, Type};

use super::vision::{VisionLayer, shared};
use super::{Classes, Embeddings, Graph, Norm, Vision};
use crate::error::{FrontendError, Result};
use crate::weights::synthetic::Fill;

/// A model of two towers as its family describes it.
#[derive(Clone, Debug)]
pub struct Dual {
    /// Of pictures.
    pub vision: Vision,
    /// Of texts.
    pub text: TextTower,
    /// The tensor of a number whose exponential scales similarities.
    pub scale: &'static str,
}

/// The tower of texts.
#[derive(Clone, Debug)]
pub struct TextTower {
    /// Width of the residual stream.
    pub hidden: u32,
    /// The longest text.
    pub context: u32,
    /// Tokens and positions.
    pub embeddings: Embeddings,
    /// The structure of all layers; its mask hides later tokens.
    pub layer: VisionLayer,
    /// One entry per layer.
    pub layers: Vec<usize>,
    /// The norm behind the last layer, and its tensor.
    pub norm: (Norm, &'static str),
    /// Into the shared space: the matrix, and the space's width.
    pub projection: (&'static str, u32),
    /// How the token is found that ends a text.
    pub end: TextEnd,
}

/// The token at which a text is pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextEnd {
    /// The first of this id, or the first of all where there is none.
    First(u32),
    /// The first of the greatest id.
    Greatest,
}

impl Dual {
    /// The structures of each stack's layers, and the name of its class.
    pub fn stacks(&self) -> Vec<(&[usize], Vec<&'static str>)> {
        vec![
            (&self.vision.layers, vec!["vision.layer"]),
            (&self.text.layers, vec!["text.layer"]),
        ]
    }

    /// Writes the functions; `classes` are those of the vision tower and of the text tower.
    pub fn lower(&self, graph: &mut Graph, classes: &[Classes]) -> Result<()> {
        let [vision, text] = classes else {
            return Err(FrontendError::Bug(
                "two towers, expected the classes of both".into(),
            ));
        };
        self.vision.lower(graph, vision, None)?;
        graph.want_scalar(self.scale, Fill::Constant(LOGIT_SCALE));
        self.text.lower(graph, text)
    }
}

/// The logarithm of CLIP's first scale, 1 / 0.07.
const LOGIT_SCALE: f32 = 2.6592;

impl TextTower {
    fn lower(&self, graph: &mut Graph, classes: &Classes) -> Result<()> {
        for class in &classes.0 {
            let mut scope = graph.layer(class);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
            let step = scope.param("step", Type::Step);
            let y = self.layer.lower(&mut scope, x, step)?;
            scope.finish(&[("x", y)]);
        }
        let mut scope = graph.entry(Entry::Forward);
        let ids = scope.param("ids", Type::ids());
        let pos = scope.param("pos", Type::ids());
        let step = scope.param("step", Type::Step);
        let (x, _) = self.embeddings.apply(&mut scope, ids, None, Some(pos))?;
        let h = scope.op("y", classes.repeat(), &[x.into(), step.into()])?;
        // Norms are of each token by itself: one token is left.
        let kind = PoolKind::LastToken;
        let last = scope.op("last", Pool { kind }, &[h.into(), step.into()])?;
        let (norm, tensor) = self.norm;
        let pooled = norm.apply(
            &mut scope,
            last,
            "norm",
            tensor,
            (self.hidden, "hidden_size"),
        )?;
        let (projection, width) = self.projection;
        let [projected, embeds] = shared(
            &mut scope,
            pooled,
            "w_shared",
            projection,
            [width, self.hidden],
        )?;
        scope.finish(&[("text_pooler_output", projected), ("text_embeds", embeds)]);
        Ok(())
    }
}
