//! A model's files → its module and its weights.
//!
//! In: a [`ModelDir`]. Out: a [`Model`]: the module of stage `model`, the weights that it names, and what the
//! executable's metadata needs.
//!
//! A module is written twice: once to learn which tensors each layer wants, and again when their types have
//! decided which layers share a class.
//!
//! Invariants: the weights answer to every name in the module; a head that the configuration calls tied is tied
//! unless the checkpoint holds another one.
//!
//! Not here: passes.

use llmc_ir::{DType, Module};

use crate::blocks::{Blueprint, Catalog, Classes, Graph, Grid, TaskHead, TextEnd, Wanted};
use crate::config::ModelType;
use crate::error::{FrontendError, Problem, Result};
use crate::labels::Labels;
use crate::model_dir::ModelDir;
use crate::models::{self, Request, Task};
use crate::preprocessor::Preprocessor;
use crate::weights::WeightSource;
use crate::weights::bound::{Anything, BoundWeights, HEAD, Naming};

/// What the user may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// The longest sequence; by default the model's.
    pub max_context: Option<u32>,
    /// Make the weights up from this seed, and open no checkpoint.
    pub random_weights: Option<u64>,
}

/// Whether text goes on or is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Generates.
    Decoder,
    /// Embeds.
    Encoder,
    /// Generates from a source.
    EncoderDecoder,
}

/// A model, ready for passes.
pub struct Model {
    /// The family's name.
    pub family: &'static str,
    /// The class of transformers.
    pub architecture: String,
    /// What it is for.
    pub kind: Kind,
    /// What its head gives.
    pub task: Task,
    /// What the outputs of a classifier are called.
    pub labels: Option<Labels>,
    /// The module of stage `model`.
    pub module: Module,
    /// The weights that it names.
    pub weights: BoundWeights,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Tokens of the vocabulary.
    pub vocab_size: u32,
    /// Token types; 0 where the model has none.
    pub type_vocab_size: u32,
    /// How pictures are read, where the model reads any.
    pub pictures: Option<Pictures>,
    /// The longest sequence.
    pub max_context: u32,
}

/// How a model reads pictures.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// How they split into patches.
    pub grid: Grid,
    /// How files become pixel values; none where the directory does not say.
    pub preprocessor: Option<Preprocessor>,
    /// Where texts and pictures are compared: what their products are multiplied with, and where texts end.
    pub similarity: Option<(f32, TextEnd)>,
    /// Where pictures stand in texts: the token that does, and how many of them a picture is.
    pub tokens: Option<(u32, u32)>,
}

impl Model {
    /// Builds the model of a directory.
    pub fn build(dir: &ModelDir, options: &BuildOptions) -> Result<Self> {
        let c = &dir.config;
        let (family, architecture, task) = models::find(c, dir.sentence.as_ref())?;
        let request = Request {
            config: c,
            task,
            sentence: dir.sentence.as_ref(),
        };
        let mut blueprint = (family.build)(&request)?;
        if dir.sentence.is_some() && matches!(blueprint, Blueprint::Decoder(_)) {
            let what = format!(
                "sentence-transformers over the decoder family `{}`",
                family.name
            );
            return Err(Problem::of(c.file(), what).unsupported());
        }
        if let (Some(sentence), Blueprint::Encoder(encoder)) = (&dir.sentence, &blueprint) {
            sentence.check_width(encoder.hidden)?;
        }
        check_preprocessor(&blueprint, dir)?;
        let max_context = context(&blueprint, options)?;
        let deviation = c.real_or("initializer_range", 0.0..=1e3, 0.02)? as f32;
        let lower = |blueprint: &Blueprint, catalog: &dyn Catalog| {
            write(blueprint, catalog, &dir.name, max_context, deviation)
        };

        let (module, weights) = match options.random_weights {
            Some(seed) => {
                let dtype = match c.model_type()? {
                    Some(ModelType::F16) => DType::F16,
                    Some(ModelType::BF16) => DType::BF16,
                    Some(ModelType::F32) | None => DType::F32,
                };
                let (module, wanted) = lower(&blueprint, &Anything(dtype))?;
                (module, BoundWeights::random(seed, dtype, &wanted)?)
            }
            None => {
                let source = dir.weights()?;
                let naming = Naming {
                    source: &*source,
                    prefix: family.prefix,
                };
                untie(&mut blueprint, &naming, "")?;
                let (module, wanted) = lower(&blueprint, &naming)?;
                let names = (family.name, family.prefix);
                (
                    module,
                    BoundWeights::from_checkpoint(source, names, c, &wanted)?,
                )
            }
        };
        let (kind, hidden_size, embeddings) = match blueprint.language() {
            Blueprint::Decoder(decoder) => {
                (Kind::Decoder, decoder.hidden, Some(&decoder.embeddings))
            }
            Blueprint::Encoder(encoder) => {
                (Kind::Encoder, encoder.hidden, Some(&encoder.embeddings))
            }
            Blueprint::EncoderDecoder(model) => {
                let kind = match model.decoder {
                    Some(_) => Kind::EncoderDecoder,
                    None => Kind::Encoder,
                };
                (kind, model.hidden, Some(&model.embeddings))
            }
            Blueprint::Vision(vision) => (Kind::Encoder, vision.hidden, None),
            Blueprint::Dual(model) => {
                let text = &model.text;
                (Kind::Encoder, text.hidden, Some(&text.embeddings))
            }
            Blueprint::Pictured(_) => {
                let what = "a language model that is told pictures inside of another";
                return Err(FrontendError::Bug(what.into()));
            }
        };
        let pictures = pictures(&blueprint, &weights, dir)?;
        let labels = match task {
            Task::ImageClassification
            | Task::SequenceClassification
            | Task::TokenClassification => Some(Labels::of(c)?),
            Task::Base | Task::CausalLm | Task::MaskedLm | Task::QuestionAnswering => None,
        };
        Ok(Self {
            family: family.name,
            architecture: architecture.to_owned(),
            kind,
            task,
            labels,
            module,
            weights,
            hidden_size,
            vocab_size: embeddings.map_or(0, |embeddings| embeddings.tokens.rows),
            type_vocab_size: embeddings
                .and_then(|embeddings| embeddings.types)
                .map_or(0, |types| types.rows),
            pictures,
            max_context,
        })
    }
}

/// Checks that files become pictures of the size that the model reads.
fn check_preprocessor(blueprint: &Blueprint, dir: &ModelDir) -> Result<()> {
    let Some(preprocessor) = &dir.preprocessor else {
        return Ok(());
    };
    let Some((vision, section)) = blueprint.vision() else {
        return Ok(());
    };
    let section = section.map(|name| dir.config.section_or(name, &[]));
    let section = section.transpose()?;
    preprocessor.check_size(vision.grid.image, section.as_ref().unwrap_or(&dir.config))
}

fn pictures(
    blueprint: &Blueprint,
    weights: &BoundWeights,
    dir: &ModelDir,
) -> Result<Option<Pictures>> {
    let Some((vision, _)) = blueprint.vision() else {
        return Ok(None);
    };
    let similarity = match blueprint {
        Blueprint::Dual(model) => {
            let scale = weights.scalar(model.scale)?.exp();
            if !scale.is_finite() {
                let what = format!("its exponential is {scale}, expected a finite number");
                return Err(Problem::new(what).field(model.scale).input());
            }
            Some((scale, model.text.end))
        }
        _ => None,
    };
    let tokens = match blueprint {
        Blueprint::Pictured(model) => Some((model.token, model.qformer.count)),
        _ => None,
    };
    Ok(Some(Pictures {
        grid: vision.grid,
        preprocessor: dir.preprocessor.clone(),
        similarity,
        tokens,
    }))
}

fn context(blueprint: &Blueprint, options: &BuildOptions) -> Result<u32> {
    let own = blueprint.context();
    match options.max_context {
        None => Ok(own),
        Some(asked) if matches!(blueprint, Blueprint::Vision(_)) && asked != own => {
            let what = format!("--max-context: found {asked}, but pictures are {own} tokens");
            Err(Problem::new(what).input())
        }
        Some(asked) if (1..=blueprint.longest()).contains(&asked) => Ok(asked),
        Some(asked) => {
            let longest = blueprint.longest();
            let what = format!(
                "--max-context: found {asked}, expected 1 to the model's context ({longest})"
            );
            Err(Problem::new(what).input())
        }
    }
}

fn write(
    blueprint: &Blueprint,
    catalog: &dyn Catalog,
    name: &str,
    context: u32,
    deviation: f32,
) -> Result<(Module, Vec<Wanted>)> {
    let once = |classes: &[Classes]| {
        let mut module = Module::new(name, blueprint.dims(context));
        module.entry_dims = blueprint.entry_dims(context);
        let mut graph = Graph {
            module,
            wanted: Vec::new(),
            catalog,
            deviation,
        };
        blueprint.lower(&mut graph, classes)?;
        Ok((graph.module, graph.wanted))
    };
    let stacks = blueprint.stacks().into_iter();
    let classes: Vec<Classes> = stacks
        .map(|(layers, names)| Classes::by_structure(layers, &names))
        .collect();
    let (module, wanted) = once(&classes)?;
    let split: Vec<Classes> = classes
        .iter()
        .map(|classes| classes.split_by_type(&wanted, catalog))
        .collect();
    if split == classes {
        Ok((module, wanted))
    } else {
        once(&split)
    }
}

/// Gives the head its own matrix if the checkpoint has one that differs from the token table. Tensors' names begin
/// with `prefix`.
fn untie(blueprint: &mut Blueprint, naming: &Naming, prefix: &str) -> Result<()> {
    let (head, tokens) = match blueprint {
        Blueprint::Pictured(model) => return untie(&mut model.language, naming, model.prefix),
        Blueprint::Decoder(decoder) => {
            let head = decoder.head.as_mut().map(|head| &mut head.tensor);
            (head, decoder.embeddings.tokens.tensor)
        }
        Blueprint::EncoderDecoder(model) => {
            let head = model.decoder.as_ref().map(|_| &mut model.head.tensor);
            (head, model.embeddings.tokens.tensor)
        }
        Blueprint::Vision(_) | Blueprint::Dual(_) => return Ok(()),
        Blueprint::Encoder(encoder) => {
            let tokens = encoder.embeddings.tokens.tensor;
            if let Some(TaskHead::MaskedLm(head)) = encoder.head.as_mut()
                && head.tied
            {
                head.tied = !differs(naming, &format!("{}.weight", head.decoder), tokens)?;
            }
            return Ok(());
        }
    };
    if let Some(head) = head.filter(|tensor| tensor.is_none())
        && differs(
            naming,
            &format!("{prefix}{HEAD}"),
            &format!("{prefix}{tokens}"),
        )?
    {
        *head = Some(HEAD);
    }
    Ok(())
}

/// Whether the checkpoint has both tensors, and they are not the same.
fn differs(naming: &Naming, own: &str, tokens: &str) -> Result<bool> {
    let (own, tokens) = (naming.stored(own), naming.stored(tokens));
    let (Some((own, own_info)), Some((tokens, tokens_info))) = (own, tokens) else {
        return Ok(false);
    };
    let same =
        own_info == tokens_info && same_bytes(naming.source, &own, &tokens, own_info.bytes())?;
    Ok(!same)
}

fn same_bytes(source: &dyn WeightSource, a: &str, b: &str, bytes: u64) -> Result<bool> {
    const CHUNK: u64 = 16 << 20;
    let mut at = 0;
    while at < bytes {
        let range = at..(at + CHUNK).min(bytes);
        let same = source.read(a, range.clone())? == source.read(b, range.clone())?;
        source.release(a, range.clone());
        source.release(b, range.clone());
        if !same {
            return Ok(false);
        }
        at = range.end;
    }
    Ok(true)
}
