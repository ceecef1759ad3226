//! Language models that are told pictures: rows of a prompt are what queries find in a picture.
//!
//! In: a [`Pictured`]. Out: the entries `vision` and `qformer`, and those of the language model, whose prompts take
//! rows from outside for tokens of type 1 (`embedding`).
//!
//! Not here: which tokens those are (the caller of the entries).

use llmc_ir::DType;

use super::{Blueprint, Catalog, Classes, Graph, Qformer, Vision};
use crate::error::{FrontendError, Result};

/// Such a model as its family describes it.
#[derive(Clone, Debug)]
pub struct Pictured {
    /// What encodes a picture.
    pub vision: Vision,
    /// What asks about it.
    pub qformer: Qformer,
    /// What reads the answers: a decoder or an encoder-decoder.
    pub language: Blueprint,
    /// What the names of its tensors begin with.
    pub prefix: &'static str,
    /// The token that stands for a row of a picture.
    pub token: u32,
}

/// A catalog whose names begin with more.
struct Prefixed<'c> {
    catalog: &'c dyn Catalog,
    prefix: &'static str,
}

impl Catalog for Prefixed<'_> {
    fn dtype(&self, tensor: &str) -> Option<DType> {
        self.catalog.dtype(&format!("{}{tensor}", self.prefix))
    }

    fn norms_include_offset(&self) -> bool {
        self.catalog.norms_include_offset()
    }
}

impl Pictured {
    /// The structures of each stack's layers, and the names of their classes.
    pub fn stacks(&self) -> Vec<(&[usize], Vec<&'static str>)> {
        let mut stacks = vec![
            (self.vision.layers.as_slice(), vec!["vision.layer"]),
            (self.qformer.layers.as_slice(), Qformer::class_names()),
        ];
        stacks.extend(self.language.stacks());
        stacks
    }

    /// Writes the functions; `classes` are those of pictures, of queries, and of the language model.
    pub fn lower(&self, graph: &mut Graph, classes: &[Classes]) -> Result<()> {
        let [vision, qformer, language @ ..] = classes else {
            return Err(FrontendError::Bug(
                "expected the classes of three networks".into(),
            ));
        };
        let (layers, states) = self.qformer.sources(graph, qformer)?;
        self.vision.lower(graph, vision, Some(layers))?;
        self.qformer.lower(graph, qformer, &states)?;

        // The language model knows nothing of what its names begin with.
        let own = graph.module.weights.len();
        let catalog = Prefixed {
            catalog: graph.catalog,
            prefix: self.prefix,
        };
        let mut inner = Graph {
            module: graph.module.clone(),
            wanted: Vec::new(),
            catalog: &catalog,
            deviation: graph.deviation,
        };
        match &self.language {
            Blueprint::EncoderDecoder(model) => model.lower(&mut inner, language, true)?,
            Blueprint::Decoder(decoder) if language.len() == 1 => {
                decoder.lower(&mut inner, &language[0], true)?
            }
            _ => {
                return Err(FrontendError::Bug(
                    "expected a decoder or an encoder-decoder".into(),
                ));
            }
        }
        let named = |tensor: &str| format!("{}{tensor}", self.prefix);
        let Graph {
            mut module, wanted, ..
        } = inner;
        module.weights[own..]
            .iter_mut()
            .for_each(|weight| weight.source.rename(named));
        graph.module = module;
        for mut want in wanted {
            want.pattern = named(&want.pattern);
            graph.wanted.push(want);
        }
        Ok(())
    }
}
