//! `llmc run`: what a module means, by the reference evaluator.
//!
//! In: a module in text form with a checkpoint, or a model as `compile` takes it, and named tensors.
//! Out: named tensors, as an executable's `infer` reads and writes them: the runtime's own reader
//! and writer are used. Generation is greedy.
//!
//! Deliberately not here: speed; a large model takes hours.

use std::path::Path;

use llmc::{Error, Result};
use llmc_abi::{Kind, Limits, Manifest};
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    Module, Op, Operand, TensorSource,
    eval::{
        EvalError, Evaluator,
        batch::Batch,
        infer::{InferOptions, InferOutput, infer},
    },
};
use llmc_runtime::{
    infer_input::{self, Inputs},
    tensor_file::TensorFile,
};

use super::{checkpoint_weights::CheckpointWeights, module_text};
use crate::args::Run;

/// A module, its weights, and which tokens end and fill rows.
struct Subject {
    module: Module,
    weights: Box<dyn TensorSource>,
    eos: Vec<u32>,
    pad: u32,
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
    let inputs = read_inputs(&args.tensors, &subject.module)?;
    if args.generate.is_some()
        && let Some(row) = inputs.rows.iter().position(|row| row.ids.is_empty())
    {
        let what = format!("row {row} is masked wholly: nothing to continue");
        return Err(Error::text(&args.tensors, what));
    }
    let options = InferOptions {
        hidden_states: args.hidden_states,
        generate: args.generate.map(|n| n as usize),
        eos: eos.iter().map(|&id| id as i32).collect(),
        pad: subject.pad as i32,
    };
    let refused = |e: EvalError| Error::Evaluate(e.to_string());
    let mut evaluator = Evaluator::new(&subject.module, &*subject.weights).map_err(refused)?;
    let output = infer(&mut evaluator, &batch(&inputs), &options).map_err(refused)?;
    write(&args.output, &output)
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
    })
}

fn read_model(args: &Run) -> Result<Subject> {
    let overrides = Overrides {
        weights: args.model.weights.clone(),
        tokenizer: args.model.tokenizer.clone(),
    };
    let dir = ModelDir::open(&Input::resolve(&args.input)?, &overrides)?;
    let model = Model::build(&dir, &BuildOptions::default())?;
    let (eos, pad) = (dir.generation.eos.clone(), dir.generation.pad.unwrap_or(0));
    Ok(Subject {
        module: model.module,
        weights: Box::new(model.weights),
        eos,
        pad,
    })
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

/// Reads and checks the inputs as an executable of this module would.
fn read_inputs(path: &Path, module: &Module) -> Result<Inputs> {
    let manifest = Manifest {
        kind: if module.states.is_empty() {
            Kind::Encoder
        } else {
            Kind::Decoder
        },
        limits: Limits {
            max_tokens: module.dims.n,
            max_seqs: module.dims.b,
            max_rows: module.dims.r,
            max_context: module.dims.t,
        },
        vocab_size: table_rows(module, "ids").unwrap_or(i32::MAX as u32),
        type_vocab_size: table_rows(module, "types").unwrap_or(0),
        ..Manifest::default()
    };
    let bytes = std::fs::read(path).map_err(|e| Error::text(path, format!("cannot read: {e}")))?;
    infer_input::read(&bytes, &manifest).map_err(|e| Error::text(path, e))
}

/// Rows of the table that the entry's parameter `name` looks up.
fn table_rows(module: &Module, name: &str) -> Option<u32> {
    let entry = module.entry()?;
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
fn batch(inputs: &Inputs) -> Batch {
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
