//! Vision Transformers: a picture's patches through bidirectional pre-norm layers.
//!
//! In: a [`Vision`]. Out: one function per layer class and the entry, `vision(patches [N, channels · patch²], pos,
//! step) → …`. A picture is one sequence: a row of zeros for the class token, then its patches, row by row from the
//! top left; a patch is channel by channel, row by row, as a convolution's weight is. The convolution whose stride is
//! its size is a linear layer over these rows.
//!
//! ```text
//! x = linear(patches), the first row of each picture being the class token
//! x = x + position                       perhaps normalised
//! x = x + attention(norm(x)); x = x + mlp(norm(x))
//! ```
//!
//! Not here: how pixels become patches (the runtime; the evaluator's `patches`), preprocessing.

use llmc_ir::ops::{
    ActKind, Activation, Add, Gather, L2Normalize, Linear, Pool, PoolKind, Repeat, Substitute,
};
use llmc_ir::{Entry, Operand, Sym, Type, ValueId};

use super::{Attention, Classes, Graph, Mlp, Norm, Projection, Scope};
use crate::config::Config;
use crate::error::Result;

/// The name of the entry's parameter for a picture's patches.
pub const PATCHES: &str = "patches";

/// How results are called that are hidden states behind a layer: those of the last layer, where the last hidden
/// state is normalised besides.
const HIDDEN_STATES: &str = "hidden_states.";

/// A vision Transformer as its family describes it.
#[derive(Clone, Debug)]
pub struct Vision {
    /// Width of the residual stream.
    pub hidden: u32,
    /// How a picture splits.
    pub grid: Grid,
    /// The convolution: the tensor, without `.weight`, and whether it has a bias.
    pub patches: (&'static str, bool),
    /// The class token, with its shape in the checkpoint.
    pub class: (&'static str, Leading),
    /// The position table.
    pub positions: (&'static str, Leading),
    /// The norm before the first layer, and its tensor.
    pub pre_norm: Option<(Norm, &'static str)>,
    /// The structure of all layers.
    pub layer: VisionLayer,
    /// One entry per layer.
    pub layers: Vec<usize>,
    /// The norm behind the last layer, of all tokens, and its tensor.
    pub norm: Option<(Norm, &'static str)>,
    /// What comes out besides the last hidden state.
    pub head: VisionHead,
}

/// How a square picture splits into square patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Pixels along an edge of the picture.
    pub image: u32,
    /// Pixels along an edge of a patch.
    pub patch: u32,
}

/// Extents of 1 before those of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading(pub usize);

/// A pre-norm layer.
#[derive(Clone, Debug)]
pub struct VisionLayer {
    /// Attention.
    pub attention: Attention,
    /// Feed-forward.
    pub mlp: Mlp,
    /// Which norm.
    pub norm: Norm,
    /// Before attention: the tensor.
    pub attention_norm: &'static str,
    /// Before the feed-forward part: the tensor.
    pub mlp_norm: &'static str,
}

/// What a picture becomes; tensors are without `.weight`.
#[derive(Clone, Debug)]
pub enum VisionHead {
    /// tanh(linear(class token)), left out where the checkpoint lacks it.
    Pooler(&'static str),
    /// A class: linear(class token).
    Classes {
        /// The tensor.
        out: &'static str,
        /// How many.
        labels: u32,
    },
    /// The norm of all tokens once more, of the class token. Results begin with `vision_`.
    NormAgain,
    /// A vector of length 1 in a space shared with texts: linear(norm(class token)). There is no other result.
    Shared {
        /// The norm, and its tensor.
        norm: (Norm, &'static str),
        /// The matrix.
        projection: &'static str,
        /// Width of the space.
        width: u32,
    },
}

/// Colours of a pixel.
pub const CHANNELS: u32 = 3;
/// Pixels along an edge of a picture.
const IMAGE: u32 = 1 << 13;

impl Grid {
    /// `image_size`, `patch_size` and `num_channels` of a configuration.
    pub fn read(c: &Config) -> Result<Self> {
        if c.count_or("num_channels", 1..=1 << 10, CHANNELS)? != CHANNELS {
            return Err(c.refuse("num_channels", CHANNELS));
        }
        let image = c.count("image_size", 1..=IMAGE)?;
        let patch = c.count("patch_size", 1..=IMAGE)?;
        if !image.is_multiple_of(patch) {
            let what = format!("found {patch}, expected a divisor of image_size ({image})");
            return Err(c.problem("patch_size", what).input());
        }
        let grid = Self { image, patch };
        let tokens = u64::from(image / patch).pow(2) + 1;
        if tokens > 1 << 16 {
            let what = format!("{tokens} patches, expected at most 65535");
            return Err(c.problem("patch_size", what).input());
        }
        Ok(grid)
    }

    /// The class token and the patches.
    pub fn tokens(self) -> u32 {
        (self.image / self.patch).pow(2) + 1
    }

    /// Numbers of a patch.
    pub fn pixels(self) -> u32 {
        CHANNELS * self.patch * self.patch
    }
}

impl Vision {
    /// Writes the functions; `source` are layers that write the keys and values of a picture's last hidden state.
    pub fn lower(
        &self,
        graph: &mut Graph,
        classes: &Classes,
        source: Option<Repeat>,
    ) -> Result<()> {
        for class in &classes.0 {
            let mut scope = graph.layer(class);
            let x = scope.param("x", Type::f32(&[Sym::N.into(), self.hidden.into()]));
            let step = scope.param("step", Type::Step);
            let y = self.layer.lower(&mut scope, x, step)?;
            scope.finish(&[("x", y)]);
        }

        let mut scope = graph.entry(Entry::Vision);
        let (h, step) = self.stream(&mut scope, classes)?;
        let width = (self.hidden, "hidden_size");
        let last = match self.norm {
            None => h,
            Some((norm, tensor)) => norm.apply(&mut scope, h, "vision.norm", tensor, width)?,
        };
        let last = match source {
            None => last,
            Some(layers) => scope.op("written", layers, &[last.into(), step.into()])?,
        };
        let first = |scope: &mut Scope| {
            let kind = PoolKind::Cls;
            scope.op("first", Pool { kind }, &[last.into(), step.into()])
        };
        let depth = format!("{HIDDEN_STATES}{}", self.layers.len());
        let mut results = vec![("last_hidden_state", last)];
        if last != h {
            results.push((&depth, h));
        }
        match &self.head {
            VisionHead::Pooler(tensor) if scope.has(&format!("{tensor}.weight")) => {
                let first = first(&mut scope)?;
                let why = format!("rows = columns = hidden_size ({})", self.hidden);
                let names = ("vision.w_pooler", "vision.b_pooler");
                let pooler = Projection::plain(tensor).with_bias(true);
                let pooled = pooler.apply(&mut scope, first, names, [self.hidden; 2], &why)?;
                let kind = ActKind::Tanh;
                let pooled = scope.op("pooled", Activation { kind }, &[pooled.into()])?;
                results.push(("pooler_output", pooled));
            }
            VisionHead::Pooler(_) => {}
            VisionHead::Classes { out, labels } => {
                let first = first(&mut scope)?;
                let why = format!(
                    "rows = the number of labels ({labels}), columns = hidden_size ({})",
                    self.hidden
                );
                let names = ("vision.w_logits", "vision.b_logits");
                let out = Projection::plain(out).with_bias(true);
                let logits = out.apply(&mut scope, first, names, [*labels, self.hidden], &why)?;
                results.push(("logits", logits));
            }
            VisionHead::NormAgain => {
                let mut pooled = first(&mut scope)?;
                if let Some((norm, tensor)) = self.norm {
                    pooled = norm.apply(&mut scope, pooled, "vision.norm", tensor, width)?;
                }
                results[0].0 = "vision_last_hidden_state";
                results.push(("vision_pooler_output", pooled));
            }
            VisionHead::Shared {
                norm: (norm, tensor),
                projection,
                width: space,
            } => {
                let first = first(&mut scope)?;
                let pooled = norm.apply(&mut scope, first, "vision.post_norm", tensor, width)?;
                let shape = [*space, self.hidden];
                let [projected, embeds] =
                    shared(&mut scope, pooled, "vision.w_shared", projection, shape)?;
                results = vec![
                    ("vision_pooler_output", projected),
                    ("image_embeds", embeds),
                ];
            }
        }
        scope.finish(&results);
        Ok(())
    }

    /// The residual stream behind the last layer, `[N, hidden]`, and the step.
    fn stream(&self, scope: &mut Scope, classes: &Classes) -> Result<(ValueId, ValueId)> {
        let (hidden, grid) = (self.hidden, self.grid);
        let pixels = Type::f32(&[Sym::N.into(), grid.pixels().into()]);
        let patches = scope.param(PATCHES, pixels);
        let pos = scope.param("pos", Type::ids());
        let step = scope.param("step", Type::Step);

        let (tensor, bias) = self.patches;
        let stored = [hidden, CHANNELS, grid.patch, grid.patch];
        let why = format!(
            "hidden_size ({hidden}), 3 channels, patch_size ({}) twice",
            grid.patch
        );
        let shape = [hidden, grid.pixels()];
        let w = scope.reshaped(
            "vision.w_patches",
            &format!("{tensor}.weight"),
            &shape,
            &stored,
            why,
        );
        let mut operands: Vec<Operand> = vec![patches.into(), w.into()];
        if bias {
            let why = format!("length = hidden_size ({hidden})");
            operands.push(
                scope
                    .vector(
                        "vision.b_patches",
                        &format!("{tensor}.bias"),
                        hidden,
                        why,
                        0.0,
                    )
                    .into(),
            );
        }
        let linear = Linear {
            bias,
            ..Linear::default()
        };
        let x = scope.op("x", linear, &operands)?;

        let why = format!("hidden_size ({hidden})");
        let class = self
            .class
            .1
            .weight(scope, "vision.class", self.class.0, &[hidden], why);
        // A picture begins with its class token.
        let x = scope.op(
            "x",
            Substitute { id: 0 },
            &[x.into(), class.into(), pos.into()],
        )?;
        let why = format!(
            "rows = (image_size ({}) / patch_size ({}))² + 1, columns = hidden_size ({hidden})",
            grid.image, grid.patch
        );
        let shape = [grid.tokens(), hidden];
        let table = self.positions.1.weight(
            scope,
            "vision.embed_positions",
            self.positions.0,
            &shape,
            why,
        );
        let p = scope.op("p", Gather { scale: 1.0 }, &[pos.into(), table.into()])?;
        let mut x = scope.op("x", Add, &[x.into(), p.into()])?;
        if let Some((norm, tensor)) = self.pre_norm {
            x = norm.apply(scope, x, "vision.pre_norm", tensor, (hidden, "hidden_size"))?;
        }
        let h = scope.op("y", classes.repeat(), &[x.into(), step.into()])?;
        Ok((h, step))
    }
}

/// linear(x), and the same of length 1: `x: [B, in] → [B, out]` twice. transformers' CLIPModel calls the
/// first one the tower's pooler output.
pub fn shared(
    scope: &mut Scope,
    x: ValueId,
    name: &str,
    tensor: &'static str,
    shape: [u32; 2],
) -> Result<[ValueId; 2]> {
    let why = format!(
        "rows = projection_dim ({}), columns = hidden_size ({})",
        shape[0], shape[1]
    );
    let projected = Projection::plain(tensor).apply(scope, x, (name, ""), shape, &why)?;
    let embeds = scope.op("embeds", L2Normalize { eps: 1e-12 }, &[projected.into()])?;
    Ok([projected, embeds])
}

impl Leading {
    /// A weight of the whole model.
    pub fn weight(
        self,
        scope: &mut Scope,
        name: &str,
        tensor: &str,
        shape: &[u32],
        why: String,
    ) -> llmc_ir::WeightId {
        let stored = [&vec![1; self.0][..], shape].concat();
        scope.reshaped(name, tensor, shape, &stored, why)
    }
}

impl VisionLayer {
    /// `x: [N, hidden]` → the same, one layer on.
    pub fn lower(&self, scope: &mut Scope, x: ValueId, step: ValueId) -> Result<ValueId> {
        let width = (self.attention.hidden, "hidden_size");
        let h = self
            .norm
            .apply(scope, x, "attn_norm", self.attention_norm, width)?;
        let a = self.attention.bidirectional(scope, h, step)?;
        let x = scope.op("x1", Add, &[a.into(), x.into()])?;
        let h = self
            .norm
            .apply(scope, x, "mlp_norm", self.mlp_norm, width)?;
        let m = self.mlp.apply(scope, h)?;
        scope.op("x2", Add, &[m.into(), x.into()])
    }
}
