//! The parts that families are composed of, and how a composition becomes IR.
//!
//! In: a [`Decoder`], an [`Encoder`] or an [`EncoderDecoder`]: plain data that a family file fills in. Out: a module of stage `model`,
//! and the list of the tensors that it wants.
//!
//! Invariants: a block writes the decomposed form of its formula and fuses nothing; a layer class is a structure
//! and the types of its weights; the same blueprint gives the same module, byte by byte.
//!
//! Not here: which families exist (`models`), where weights are (`weights`).

pub mod attention;
pub mod classes;
pub mod cross_attention;
pub mod decoder;
pub mod dual;
pub mod embedding;
pub mod encoder;
pub mod encoder_decoder;
pub mod feed_forward;
pub mod heads;
pub mod mlp;
pub mod moe;
pub mod norm;
pub mod pictured;
pub mod position_terms;
pub mod projection;
pub mod qformer;
pub mod scope;
pub mod vision;

pub use attention::{Attention, HeadNorm, Positions};
pub use classes::{Class, Classes};
pub use decoder::{Arrangement, Decoder, DecoderLayer, Head};
pub use dual::{Dual, TextEnd, TextTower};
pub use embedding::{Embeddings, Narrow, Table};
pub use encoder::{Encoder, EncoderLayer};
pub use encoder_decoder::EncoderDecoder;
pub use feed_forward::FeedForward;
pub use heads::{MaskedLm, TaskHead};
pub use mlp::Mlp;
pub use moe::Moe;
pub use norm::Norm;
pub use pictured::Pictured;
pub use position_terms::{Conv, PositionTerms};
pub use projection::Projection;
pub use qformer::Qformer;
pub use scope::{Catalog, Graph, Scope, Wanted};
pub use vision::{Grid, Leading, Vision, VisionHead, VisionLayer};

use llmc_ir::{Dims, Entry};

use crate::error::{FrontendError, Result};

/// A model as its family describes it.
#[derive(Clone, Debug)]
pub enum Blueprint {
    /// Text in, the next token's logits out.
    Decoder(Box<Decoder>),
    /// Text in, a vector per token or per text out.
    Encoder(Box<Encoder>),
    /// Text in, text out; or its encoder alone.
    EncoderDecoder(Box<EncoderDecoder>),
    /// A picture in, a vector per patch or per picture out.
    Vision(Box<Vision>),
    /// A picture or a text in, a vector out.
    Dual(Box<Dual>),
    /// Pictures and text in, text out.
    Pictured(Box<Pictured>),
}

/// New tokens of one step of a decoder; prefill takes longer prompts in chunks.
const STEP_TOKENS: u32 = 512;
/// Rows of a step whose logits are wanted, and sequences of a step.
const STEP_ROWS: u32 = 64;

impl Blueprint {
    /// For each stack of layers the structure of every layer of the checkpoint, as an index into the stack's classes, and the
    /// names of the classes.
    pub fn stacks(&self) -> Vec<(&[usize], Vec<&'static str>)> {
        match self {
            Self::Decoder(decoder) => {
                let names = decoder.classes.iter().map(|class| class.name).collect();
                vec![(&decoder.layers, names)]
            }
            Self::Encoder(encoder) => vec![(&encoder.layers, encoder.class_names())],
            Self::EncoderDecoder(model) => model.stacks(),
            Self::Vision(vision) => vec![(&vision.layers, vec!["vision.layer"])],
            Self::Dual(model) => model.stacks(),
            Self::Pictured(model) => model.stacks(),
        }
    }

    /// The longest sequence that the model was made for.
    pub fn context(&self) -> u32 {
        match self {
            Self::Decoder(decoder) => {
                let reach = decoder.ropes.iter().filter_map(|(_, rope)| rope.reach());
                reach.fold(decoder.context, u32::max)
            }
            Self::Encoder(encoder) => encoder.context,
            Self::EncoderDecoder(model) => model.context,
            Self::Vision(vision) => vision.grid.tokens(),
            Self::Dual(model) => model.text.context,
            Self::Pictured(model) => model.language.context(),
        }
    }

    /// The longest sequence that can be asked for.
    pub fn longest(&self) -> u32 {
        match self {
            Self::Decoder(_) | Self::Encoder(_) | Self::Vision(_) | Self::Dual(_) => self.context(),
            Self::EncoderDecoder(model) => model.longest,
            Self::Pictured(model) => model.language.longest(),
        }
    }

    /// The bounds of a step when sequences have up to `context` tokens.
    pub fn dims(&self, context: u32) -> Dims {
        let n = match self {
            Self::Pictured(model) => return model.language.dims(context),
            Self::Decoder(_) => STEP_TOKENS,
            // An encoder sees a sequence whole.
            Self::Encoder(_) => STEP_TOKENS.max(context),
            Self::EncoderDecoder(model) if model.decoder.is_none() => STEP_TOKENS.max(context),
            Self::EncoderDecoder(_) => STEP_TOKENS,
            Self::Vision(_) | Self::Dual(_) => STEP_TOKENS.max(context),
        };
        let r = match self {
            Self::Encoder(encoder) => encoder.rows().clamp(STEP_ROWS, n),
            Self::Decoder(_)
            | Self::EncoderDecoder(_)
            | Self::Vision(_)
            | Self::Dual(_)
            | Self::Pictured(_) => STEP_ROWS,
        };
        Dims {
            n,
            r,
            b: STEP_ROWS,
            t: context,
        }
    }

    /// The bounds of entries that differ from those.
    pub fn entry_dims(&self, context: u32) -> Vec<(Entry, Dims)> {
        let dims = self.dims(context);
        // Sequences of up to `t` tokens are read whole.
        let whole = |entry, t: u32| {
            let n = STEP_TOKENS.max(t);
            (entry, Dims { n, t, ..dims })
        };
        match self {
            // A source is read whole.
            Self::EncoderDecoder(model) if model.decoder.is_some() && context > dims.n => {
                vec![(Entry::Encode, Dims { n: context, ..dims })]
            }
            Self::Dual(model) => vec![whole(Entry::Vision, model.vision.grid.tokens())],
            Self::Pictured(model) => {
                let mut all = model.language.entry_dims(context);
                all.push(whole(Entry::Vision, model.vision.grid.tokens()));
                all.push(whole(Entry::Qformer, model.qformer.count));
                all
            }
            Self::EncoderDecoder(_) | Self::Decoder(_) | Self::Encoder(_) | Self::Vision(_) => {
                Vec::new()
            }
        }
    }

    /// The same model, where the layers marked in `slides` are of another structure than the first class.
    pub fn with_sliding(
        self,
        slides: &[bool],
        sliding: impl FnOnce(&DecoderLayer) -> Result<DecoderLayer>,
    ) -> Result<Self> {
        self.with_other(slides, ["layer.full", "layer.sliding"], sliding)
    }

    /// The same model, where the layers marked in `others` are of another structure than the first class; `names`
    /// are those of the first class and of the other one, where there are both.
    pub fn with_other(
        self,
        others: &[bool],
        names: [&'static str; 2],
        other: impl FnOnce(&DecoderLayer) -> Result<DecoderLayer>,
    ) -> Result<Self> {
        let Self::Decoder(mut decoder) = self else {
            return Ok(self);
        };
        let (Some(first), true) = (decoder.classes.first().cloned(), others.contains(&true)) else {
            return Ok(Self::Decoder(decoder));
        };
        let other = other(&first)?;
        decoder.layers = others.iter().map(|other| usize::from(*other)).collect();
        let names = match others.contains(&false) {
            true => names,
            false => [first.name, "layer"],
        };
        decoder.classes = vec![
            DecoderLayer {
                name: names[0],
                ..first
            },
            DecoderLayer {
                name: names[1],
                ..other
            },
        ];
        Ok(Self::Decoder(decoder))
    }

    /// What texts go through.
    pub fn language(&self) -> &Blueprint {
        match self {
            Self::Pictured(model) => &model.language,
            other => other,
        }
    }

    /// What pictures go through, and which section of a configuration tells of it.
    pub fn vision(&self) -> Option<(&Vision, Option<&'static str>)> {
        match self {
            Self::Vision(vision) => Some((vision, None)),
            Self::Dual(model) => Some((&model.vision, Some("vision_config"))),
            Self::Pictured(model) => Some((&model.vision, Some("vision_config"))),
            Self::Decoder(_) | Self::Encoder(_) | Self::EncoderDecoder(_) => None,
        }
    }

    /// Writes the module; `classes` are those of each stack.
    pub fn lower(&self, graph: &mut Graph, classes: &[Classes]) -> Result<()> {
        match (self, classes) {
            (Self::Decoder(decoder), [classes]) => decoder.lower(graph, classes, false),
            (Self::Encoder(encoder), [classes]) => encoder.lower(graph, classes),
            (Self::EncoderDecoder(model), classes) => model.lower(graph, classes, false),
            (Self::Vision(vision), [classes]) => vision.lower(graph, classes, None),
            (Self::Dual(model), classes) => model.lower(graph, classes),
            (Self::Pictured(model), classes) => model.lower(graph, classes),
            (Self::Decoder(_) | Self::Encoder(_) | Self::Vision(_), _) => Err(FrontendError::Bug(
                "one stack of layers, expected its classes".into(),
            )),
        }
    }
}
