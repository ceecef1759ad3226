//! `llmc run`: what a module means, by the reference evaluator.
//!
//! In: a module in text form with a checkpoint, or a model as `compile` takes it, and named tensors.
//! Out: named tensors, as an executable's `infer` reads and writes them: the runtime's own reader
//! and writer are used. Generation is greedy.
//!
//! Deliberately not here: speed; a large model takes hours.

use std::path::Path;

use llmc::{Error, Result};
use llmc_abi::{EntryInfo, Kind, Limits, Manifest, Pictures};
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    Dims, Entry, Module, Op, Operand, TensorSource,
    eval::{
        EvalError, Evaluator,
        batch::Batch,
        encoder_decoder,
        infer::{InferOptions, InferOutput, infer},
    },
};
use llmc_runtime::{
    infer_input::{self, Inputs},
    tensor_file::TensorFile,
};

use super::{
    checkpoint_weights::CheckpointWeights,
    module_text,
    run_pictures::{self, Failure},
};
use crate::args::Run;

/// A module, its weights, and which tokens begin, end and fill rows.
pub(super) struct Subject {
    module: Module,
    weights: Box<dyn TensorSource>,
    eos: Vec<u32>,
    pad: u32,
    /// What a text begins with.
    pub bos: Option<u32>,
    /// What a text about a source begins with.
    pub start: u32,
    /// How pictures are read; of a module in text form nobody says it.
    pictures: Option<Pictures>,
}

/// Evaluates and writes the outputs.
pub fn run(args: &Run) -> Result<()> {
    let input = Path::new(&args.input);
    let text = module_text::is_stdin(input) || input.extension().is_some_and(|e| e == "tir");
    let subject = if text {
        read_module(args)?
    } else {
        read_model(args)?
    };
    let eos = match args.eos.as_deref() {
        None => subject.eos.clone(),
        Some(given) => parse_eos(given)?,
    };
    let options = InferOptions {
        hidden_states: args.hidden_states,
        generate: args.generate.map(|n| n as usize),
        eos: eos.iter().map(|&id| id as i32).collect(),
        pad: subject.pad as i32,
    };
    let path = &args.tensors;
    let bytes = std::fs::read(path).map_err(|e| Error::text(path, format!("cannot read: {e}")))?;
    write(&args.output, &subject.evaluate(path, &bytes, &options)?)
}

impl Subject {
    /// Of a model.
    pub fn of(dir: &ModelDir, model: Model) -> Subject {
        let (eos, pad) = (dir.generation.eos.clone(), dir.generation.pad.unwrap_or(0));
        Subject {
            pictures: model.pictures.as_ref().map(llmc::manifest::pictures),
            module: model.module,
            weights: Box::new(model.weights),
            eos,
            pad,
            bos: dir.generation.bos,
            start: dir.generation.decoder_start.unwrap_or(pad),
        }
    }

    /// What comes of the tensors of a file.
    pub fn evaluate(
        &self,
        path: &Path,
        bytes: &[u8],
        options: &InferOptions,
    ) -> Result<InferOutput> {
        let refused = |e: EvalError| Error::Evaluate(e.to_string());
        let mut evaluator = Evaluator::new(&self.module, &*self.weights).map_err(refused)?;
        let manifest = manifest(&self.module);
        if let Some(pictures) = &self.pictures {
            let read = (self, pictures);
            let output = run_pictures::run(&mut evaluator, read, &manifest, bytes, options);
            return output.map_err(|failure| match failure {
                Failure::Input(what) => Error::text(path, what),
                Failure::Evaluate(e) => refused(e),
            });
        }
        if manifest.kind == Kind::EncoderDecoder {
            let pair =
                infer_input::read_pair(bytes, &manifest).map_err(|e| Error::text(path, e))?;
            let (source, text) = (batch(&pair.source), pair.text.as_ref().map(batch));
            let start = self.start as i32;
            let output =
                encoder_decoder::infer(&mut evaluator, &source, text.as_ref(), start, options);
            return output.map_err(refused);
        }
        let inputs = infer_input::read(bytes, &manifest).map_err(|e| Error::text(path, e))?;
        if options.generate.is_some()
            && let Some(row) = inputs.rows.iter().position(|row| row.ids.is_empty())
        {
            let what = format!("row {row} is masked wholly: nothing to continue");
            return Err(Error::text(path, what));
        }
        infer(&mut evaluator, &batch(&inputs), options).map_err(refused)
    }
}

/// A module in text form; its tensors are looked up in a checkpoint.
fn read_module(args: &Run) -> Result<Subject> {
    let module = module_text::read(Path::new(&args.input))?;
    let weights: Box<dyn TensorSource> = match &args.model.weights {
        Some(path) => Box::new(CheckpointWeights::open(path)?),
        None if module.weights.is_empty() => Box::new(CheckpointWeights::none()),
        None => {
            let what = "a module in text form names its weights only: give them with --weights";
            return Err(Error::Usage(what.into()));
        }
    };
    Ok(Subject {
        module,
        weights,
        eos: Vec::new(),
        pad: 0,
        bos: None,
        start: 0,
        pictures: None,
    })
}

fn read_model(args: &Run) -> Result<Subject> {
    let overrides = Overrides {
        weights: args.model.weights.clone(),
        tokenizer: args.model.tokenizer.clone(),
    };
    let dir = ModelDir::open(&Input::resolve(&args.input)?, &overrides)?;
    let model = Model::build(&dir, &BuildOptions::default())?;
    Ok(Subject::of(&dir, model))
}

fn parse_eos(given: &str) -> Result<Vec<u32>> {
    if given == "none" {
        return Ok(Vec::new());
    }
    let id = |word: &str| {
        let id = word
            .trim()
            .parse()
            .ok()
            .filter(|id| i32::try_from(*id).is_ok());
        id.ok_or_else(|| Error::Usage(format!("--eos {given}: give token ids or `none`")))
    };
    given.split(',').map(id).collect()
}

/// What decides about the inputs, as in an executable of this module.
fn manifest(module: &Module) -> Manifest {
    let limits = |dims: Dims| Limits {
        max_tokens: dims.n,
        max_seqs: dims.b,
        max_rows: dims.r,
        max_context: dims.t,
    };
    let encode = module.entry(Entry::Encode).map(|_| EntryInfo {
        entry: llmc_abi::Entry::Encode,
        limits: limits(module.dims_of_entry(Entry::Encode)),
        ..EntryInfo::default()
    });
    let main = module
        .main_entry()
        .map_or(Entry::Forward, |(entry, _)| entry);
    Manifest {
        kind: match (&encode, module.states.is_empty()) {
            (Some(_), _) => Kind::EncoderDecoder,
            (None, true) => Kind::Encoder,
            (None, false) => Kind::Decoder,
        },
        limits: limits(module.dims_of_entry(main)),
        others: encode.into_iter().collect(),
        vocab_size: table_rows(module, "ids").unwrap_or(i32::MAX as u32),
        type_vocab_size: table_rows(module, "types").unwrap_or(0),
        ..Manifest::default()
    }
}

/// Rows of the table that the main entry's parameter `name` looks up.
fn table_rows(module: &Module, name: &str) -> Option<u32> {
    let (_, entry) = module.main_entry()?;
    let param = *entry
        .params
        .iter()
        .find(|&&p| entry.value(p).name == name)?;
    entry
        .body
        .iter()
        .find_map(|inst| match (&inst.op, inst.operands.as_slice()) {
            (Op::Gather(_), [Operand::Value(v), Operand::Weight(w)]) if *v == param => module
                .weights
                .get(w.index())?
                .ty
                .fixed_dims()?
                .first()
                .copied(),
            _ => None,
        })
}

/// The padded batch of `inputs`.
pub(super) fn batch(inputs: &Inputs) -> Batch {
    let (rows, len) = (inputs.rows.len(), inputs.columns);
    let mut ids = vec![0; rows * len];
    let mut mask = vec![false; rows * len];
    let mut types = vec![0; rows * len];
    for (r, row) in inputs.rows.iter().enumerate() {
        for (i, column) in row.columns.iter().enumerate() {
            let at = r * len + column;
            (ids[at], mask[at]) = (row.ids[i], true);
            types[at] = row.types.get(i).copied().unwrap_or(0);
        }
    }
    Batch {
        rows,
        len,
        ids,
        mask: Some(mask),
        types: Some(types),
        ..Batch::default()
    }
}

fn write(path: &Path, output: &InferOutput) -> Result<()> {
    let generated: Option<Vec<Vec<i64>>> = output.generated.as_ref().map(|rows| {
        rows.iter()
            .map(|row| row.iter().map(|&id| i64::from(id)).collect())
            .collect()
    });
    let ids = generated.as_ref().map(|rows| {
        let shape = vec![rows.len(), rows.first().map_or(0, Vec::len)];
        ("generated_ids".to_string(), shape)
    });
    let floats = output
        .tensors
        .iter()
        .map(|(name, t)| (name.clone(), t.dims.clone()))
        .collect();
    let mut file = TensorFile::create(path, ids, floats)?;
    for (i, tensor) in output.tensors.values().enumerate() {
        file.write(i, 0, &tensor.data);
    }
    Ok(file.finish(&generated.unwrap_or_default())?)
}
