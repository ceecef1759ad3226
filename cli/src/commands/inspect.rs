//! `llmc inspect`: what a model is, before anything is compiled.
//!
//! In: a model as `compile` takes it; weights are looked at, not read, and may be missing. Out: a
//! summary and a table of the weights, or one JSON object with the same facts. With `--quant` the
//! weights are shown as `quantize-weights` leaves them, and what it has to say about each.

use std::collections::BTreeMap;

use llmc::Result;
use llmc_frontend::{BuildOptions, Input, Kind, Model, ModelDir, Overrides};
use llmc_ir::{Entry, Func, Module, Op};
use llmc_passes::{Manager, Precision, Quant, Remark, pipeline};
use serde_json::{Value, json};

use super::{inspect_table, stdout};
use crate::args::Inspect;

/// Reads the model and prints what it is.
pub fn run(args: &Inspect) -> Result<()> {
    let overrides = Overrides {
        weights: args.model.weights.clone(),
        tokenizer: args.model.tokenizer.clone(),
    };
    let dir = ModelDir::open(&Input::resolve(&args.input)?, &overrides)?;
    let stored = args.model.weights.is_some() || dir.has_weights();
    // Weights made up have the types that the configuration names, and open no file.
    let random_weights = if stored { None } else { Some(0) };
    let mut model = Model::build(
        &dir,
        &BuildOptions {
            random_weights,
            ..BuildOptions::default()
        },
    )?;
    let notes = quantise(&mut model.module, args.quant)?;
    let facts = facts(&dir, &model, stored, (args.quant, &notes));
    let text = if args.json {
        format!("{facts}\n")
    } else {
        inspect_table::table(&facts)
    };
    stdout::print(&text)
}

/// Gives the weights the types that `compile` would; tells what was decided about each.
fn quantise(module: &mut Module, quant: Quant) -> Result<Vec<String>> {
    let precision = Precision {
        quant,
        ..Precision::default()
    };
    if quant == Quant::None {
        return Ok(Vec::new());
    }
    let manager = Manager::new().stop_after("quantize-weights");
    let report = manager.run(&pipeline::fused_in(precision), module)?;
    let notes = report.remarks.iter().filter_map(|r| match r {
        Remark::Note { at, what, .. } => Some(format!("{at}: {what}")),
        Remark::Missed { .. } => None,
    });
    Ok(notes.collect())
}

/// Everything there is to tell, in the order of telling.
fn facts(dir: &ModelDir, model: &Model, stored: bool, (quant, notes): (Quant, &[String])) -> Value {
    let module = &model.module;
    let (types, bytes) = types(module);
    let weights: Vec<Value> = module
        .weights
        .iter()
        .map(|w| {
            let parts: Vec<&str> = w.source.patterns().collect();
            json!({
                "name": w.name,
                "layers": w.slots,
                "type": w.ty.dtype.name(),
                "shape": w.ty.fixed_dims(),
                "from": parts,
            })
        })
        .collect();
    let tokens = &dir.generation;
    json!({
        "name": dir.name,
        "family": model.family,
        "architecture": model.architecture,
        "kind": match model.kind {
            Kind::Decoder => "decoder",
            Kind::Encoder => "encoder",
            Kind::EncoderDecoder => "encoder-decoder",
        },
        "parameters": model.weights.parameters,
        "layers": module.layers().len(),
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "type_vocab_size": model.type_vocab_size,
        "max_context": model.max_context,
        "layer_classes": classes(module),
        "kv_cache": module.states.iter().map(|s| json!({
            "name": s.name,
            "layers": s.slots,
            "kv_heads": s.heads,
            "k_dim": s.k_dim,
            "v_dim": s.v_dim,
            "window": s.window,
        })).collect::<Vec<_>>(),
        "outputs": outputs(module),
        "weight_types": types,
        "weight_bytes": bytes,
        "quant": quant.name(),
        "quant_notes": notes,
        "weights_found": stored,
        "tokens": {"bos": tokens.bos, "eos": tokens.eos, "pad": tokens.pad},
        "tokenizer": tokenizer(dir),
        "sentence": sentence(dir),
        "weights": weights,
        "unused": model.weights.unused,
    })
}

/// Each layer class: its layers, and what its attention looks like.
fn classes(module: &Module) -> Vec<Value> {
    let class = |func: &Func| {
        let repeat = module.repeat_of(&func.name);
        let layers = repeat.into_iter().flat_map(|r| r.layers.iter().enumerate());
        let layers = layers.filter(|(_, (class, _))| *class == func.name);
        let layers: Vec<usize> = layers.map(|(i, _)| i).collect();
        let find =
            |attr: fn(&Op) -> Option<Value>| func.body.iter().find_map(|inst| attr(&inst.op));
        (!layers.is_empty()).then(|| {
            json!({
                "name": func.name,
                "layers": layers,
                "heads": find(|op| match op {
                    Op::SplitHeads(split) => Some(json!(split.heads)),
                    _ => None,
                }),
                "mask": find(|op| match op {
                    Op::MaskScores(mask) => Some(json!(mask.mask.to_string())),
                    Op::Attention(attention) => Some(json!(attention.mask.to_string())),
                    _ => None,
                }),
            })
        })
    };
    module.funcs.iter().filter_map(class).collect()
}

fn outputs(module: &Module) -> Vec<Value> {
    let one = |(entry, func): (Entry, &Func)| {
        let results = func.results.iter().map(move |(name, v)| {
            let name = match entry {
                Entry::Encode => format!("encoder_{name}"),
                _ => name.clone(),
            };
            json!({"name": name, "type": func.ty(*v).to_string()})
        });
        results.collect::<Vec<_>>()
    };
    module.entries().flat_map(one).collect()
}

/// Bytes by element type, and together.
fn types(module: &Module) -> (BTreeMap<&'static str, u64>, u64) {
    let mut types = BTreeMap::new();
    for weight in &module.weights {
        let dims = weight.ty.fixed_dims().unwrap_or_default();
        let cols = dims.last().map_or(1, |&dim| u64::from(dim));
        let rows: u64 = dims
            .iter()
            .rev()
            .skip(1)
            .map(|&dim| u64::from(dim))
            .product();
        let one = rows * weight.ty.dtype.row_bytes(cols);
        let bytes = one * u64::from(weight.slots.unwrap_or(1));
        *types.entry(weight.ty.dtype.name()).or_default() += bytes;
    }
    let bytes = types.values().sum();
    (types, bytes)
}

fn tokenizer(dir: &ModelDir) -> Value {
    use llmc_frontend::tokenizer::Kind;
    let Some(tokenizer) = &dir.tokenizer else {
        return Value::Null;
    };
    json!({
        "kind": match tokenizer.kind {
            Kind::ByteLevelBpe => "byte-level BPE",
            Kind::SentencePieceBpe => "SentencePiece BPE",
            Kind::CharacterBpe => "character BPE",
            Kind::WordPiece => "WordPiece",
            Kind::Unigram => "Unigram",
        },
        "size": tokenizer.size,
        "special": tokenizer.special.iter()
            .map(|s| json!({"role": s.role, "text": s.text, "id": s.id}))
            .collect::<Vec<_>>(),
        "chat_templates": tokenizer.templates.iter().map(|t| &t.name).collect::<Vec<_>>(),
    })
}

fn sentence(dir: &ModelDir) -> Value {
    use llmc_frontend::sentence::Pooling;
    let Some(sentence) = &dir.sentence else {
        return Value::Null;
    };
    json!({
        "pooling": match sentence.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Max => "max",
            Pooling::LastToken => "last token",
        },
        "normalize": sentence.normalize,
        "max_tokens": sentence.max_tokens,
    })
}
