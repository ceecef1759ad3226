//! `llmc verify`: how far an executable is from the model that it was made of.
//!
//! In: an executable and its model. Out: a row for each layer boundary and output: the relative error
//! against the reference evaluator, which computes the model as the family defines it, in full
//! precision; for logits also the Kullback–Leibler divergence and the agreement of the best token.
//!
//! Both see the same tokens: a text's, or numbers from a fixed generator; models that read pictures see one of such
//! numbers. Exit code 1 where an error is above its limit.
//!
//! Deliberately not here: speed; the evaluator takes about a second for each 10⁹ weights × tokens,
//! and four bytes a parameter.

use std::{path::Path, process::Command};

use indexmap::IndexMap;
use llmc::{Error, Result};
use llmc_frontend::{BuildOptions, Input, Kind, Model, ModelDir, Overrides};
use llmc_ir::eval::{Tensor, infer::InferOptions};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use super::{divergence::Divergence, run::Subject, stdout};
use crate::args::Verify;

/// Largest relative error where all arithmetic is f32, and where it is not.
const ERROR: [f64; 2] = [1e-3, 0.5];
/// Largest mean divergence in nats, likewise.
const DIVERGENCE: [f64; 2] = [1e-6, 0.2];

/// Compares and prints.
pub fn run(args: &Verify) -> Result<()> {
    let info = executable(&args.executable, &["info", "--json"])?;
    let info: Value = serde_json::from_slice(&info)
        .map_err(|e| Error::text(&args.executable, format!("`info --json`: {e}")))?;
    let overrides = Overrides {
        weights: args.model.weights.clone(),
        tokenizer: args.model.tokenizer.clone(),
    };
    let dir = ModelDir::open(&Input::resolve(&args.against)?, &overrides)?;
    let model = Model::build(&dir, &BuildOptions::default())?;
    same_model(&args.executable, &info, &model)?;
    let (inputs, tokens) = inputs(args, &model)?;
    let exact = is_exact(&info, &model);
    // Where embeddings are all that comes out, nobody asks for more.
    let options = InferOptions {
        hidden_states: model
            .pictures
            .as_ref()
            .is_none_or(|p| p.similarity.is_none()),
        ..InferOptions::default()
    };
    let folder = tempfile::tempdir().map_err(|e| Error::io("create", &std::env::temp_dir(), e))?;
    let path = folder.path().join("in.safetensors");
    std::fs::write(&path, &inputs).map_err(|e| Error::io("write", &path, e))?;
    let expected = Subject::of(&dir, model).evaluate(&path, &inputs, &options)?;
    let found = infer_with(&args.executable, &path, options.hidden_states)?;
    let rows = compare(&args.executable, &expected.tensors, &found)?;
    let limits = Limits {
        error: args.max_error.unwrap_or(ERROR[usize::from(!exact)]),
        divergence: args.max_kl.unwrap_or(DIVERGENCE[usize::from(!exact)]),
    };
    let failed: Vec<&Row> = rows.iter().filter(|r| !limits.hold(r)).collect();
    let text = if args.json {
        render_json(&rows, &limits, tokens)
    } else {
        render(&rows, &limits, tokens)
    };
    stdout::print(&text)?;
    match failed.first() {
        None => Ok(()),
        Some(row) => Err(Error::Differs {
            executable: args.executable.display().to_string(),
            what: row.name.clone(),
            count: failed.len(),
        }),
    }
}

/// Runs the executable and returns what it prints.
fn executable(path: &Path, args: &[&str]) -> Result<Vec<u8>> {
    // A bare name is a file here, not a command to look up.
    let program = match path.components().count() {
        1 => Path::new(".").join(path),
        _ => path.to_path_buf(),
    };
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| Error::io("run", path, e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let what = format!("`{}` failed: {}", args.join(" "), said.trim());
    Err(Error::text(path, what))
}

/// Refuses a model that the executable was not made of, as far as one can tell.
fn same_model(file: &Path, info: &Value, model: &Model) -> Result<()> {
    let wanted = [
        ("family", json!(model.family)),
        ("architecture", json!(model.architecture)),
        ("hidden_size", json!(model.hidden_size)),
        ("vocab_size", json!(model.vocab_size)),
        ("parameters", json!(model.weights.parameters)),
    ];
    for (field, expected) in wanted {
        let found = &info[field];
        if *found != expected {
            let what = format!("{field}: found {found}, but the model has {expected}");
            return Err(Error::text(file, what));
        }
    }
    Ok(())
}

/// Whether the executable computes in f32 with the weights as they are stored.
fn is_exact(info: &Value, model: &Model) -> bool {
    let arithmetic = &info["arithmetic"];
    let mut stored: Vec<&str> = model
        .module
        .weights
        .iter()
        .map(|w| w.ty.dtype.name())
        .collect();
    // Vectors are always kept in f32, which holds every other type exactly.
    stored.push("f32");
    let kept =
        |types: &serde_json::Map<String, Value>| types.keys().all(|t| stored.contains(&t.as_str()));
    let kv = info["kv"]
        .as_array()
        .is_none_or(|kv| kv.iter().all(|c| c["dtype"] == "f32"));
    arithmetic["activations"] == "f32" && kv && arithmetic["weights"].as_object().is_some_and(kept)
}

/// Numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    /// A number below `end`: the high bits of a linear congruential generator.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % end.max(1)
    }
}

/// The tensors that both see, and how many tokens they are.
fn inputs(args: &Verify, model: &Model) -> Result<(Vec<u8>, usize)> {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let told = model.pictures.as_ref().and_then(|p| p.tokens);
    let before = told.map_or(0, |(_, count)| count as usize);
    let most = model.max_context.min(model.module.dims.n) as usize;
    let text = ids(
        args,
        model,
        most.saturating_sub(before).max(1),
        &mut numbers,
    )?;
    let picture = told.map_or(Vec::new(), |(id, count)| {
        vec![i64::from(id); count as usize]
    });
    let ids = [picture, text.clone()].concat();
    let bytes = |ids: &[i64]| -> Vec<u8> { ids.iter().flat_map(|id| id.to_le_bytes()).collect() };
    let mut tokens = ids.len();
    let mut tensors = Vec::new();
    if model.vocab_size > 0 {
        tensors.push(("input_ids", Dtype::I64, vec![1, ids.len()], bytes(&ids)));
    }
    if model.kind == Kind::EncoderDecoder {
        // The same tokens are source and text.
        let shape = vec![1, text.len()];
        tensors.push(("decoder_input_ids", Dtype::I64, shape, bytes(&text)));
    }
    if let Some(pictures) = &model.pictures {
        let edge = pictures.grid.image as usize;
        let pixels = (0..3 * edge * edge).map(|_| numbers.below(4001) as f32 / 1000.0 - 2.0);
        let data = pixels.flat_map(f32::to_le_bytes).collect();
        tensors.push(("pixel_values", Dtype::F32, vec![1, 3, edge, edge], data));
        if model.vocab_size == 0 {
            tokens = pictures.grid.tokens() as usize;
        }
    }
    let wrong = |e| Error::Bug(format!("the tensors for both: {e}"));
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        TensorView::new(*dtype, shape.clone(), data).map(|view| (*name, view))
    });
    let views = views
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(wrong)?;
    let file = safetensors::serialize(views, None).map_err(wrong)?;
    Ok((file, tokens))
}

/// The tokens of a text, or made up, at most so many.
fn ids(args: &Verify, model: &Model, most: usize, numbers: &mut Numbers) -> Result<Vec<i64>> {
    if let Some(text) = &args.text {
        let printed = executable(&args.executable, &["tokenize", "--ids", "--", text])?;
        let printed = String::from_utf8_lossy(&printed);
        let ids: Option<Vec<i64>> = printed.split_whitespace().map(|w| w.parse().ok()).collect();
        let mut ids = ids
            .filter(|ids| !ids.is_empty())
            .ok_or_else(|| Error::text(&args.executable, format!("no tokens come of {text:?}")))?;
        ids.truncate(most);
        return Ok(ids);
    }
    let stands = model.pictures.as_ref().and_then(|p| p.tokens);
    let count = (args.tokens as usize).clamp(1, most);
    let ids = (0..count).map(|_| numbers.below(u64::from(model.vocab_size)) as i64);
    // No text names a picture that is not there.
    let plain = |id| match stands {
        Some((token, _)) if id == i64::from(token) => 0,
        _ => id,
    };
    Ok(ids.map(plain).collect())
}

/// Named tensors as the executable computes them.
fn infer_with(exe: &Path, input: &Path, hidden: bool) -> Result<IndexMap<String, Vec<f32>>> {
    let output = input.with_file_name("out.safetensors");
    let words = [input.to_string_lossy(), output.to_string_lossy()];
    let flags: &[&str] = if hidden { &["--hidden-states"] } else { &[] };
    executable(exe, &[&["infer", &words[0], &words[1]], flags].concat())?;
    let bytes = std::fs::read(&output).map_err(|e| Error::io("read", &output, e))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::text(exe, format!("`infer` wrote: {e}")))?;
    let floats = |data: &[u8]| {
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    Ok(file
        .tensors()
        .iter()
        .map(|(name, t)| (name.clone(), floats(t.data())))
        .collect())
}

/// One line of the report.
struct Row {
    name: String,
    /// ‖found − expected‖ / ‖expected‖.
    error: f64,
    /// The largest difference of one element.
    largest: f64,
    /// For logits.
    divergence: Option<Divergence>,
}

struct Limits {
    error: f64,
    divergence: f64,
}

impl Limits {
    /// NaN is above every limit.
    fn hold(&self, row: &Row) -> bool {
        row.error <= self.error
            && row
                .divergence
                .as_ref()
                .is_none_or(|d| d.mean <= self.divergence)
    }
}

fn compare(
    exe: &Path,
    expected: &IndexMap<String, Tensor>,
    found: &IndexMap<String, Vec<f32>>,
) -> Result<Vec<Row>> {
    let row = |(name, want): (&String, &Tensor)| {
        let have = found.get(name).filter(|have| have.len() == want.data.len());
        let have = have.ok_or_else(|| {
            Error::text(exe, format!("`infer` gave no {name} of {:?}", want.dims))
        })?;
        let pairs = have
            .iter()
            .zip(&want.data)
            .map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (mut off, mut all, mut largest) = (0.0, 0.0, 0f64);
        for (a, b) in pairs {
            off += (a - b) * (a - b);
            all += b * b;
            largest = if (a - b).is_nan() {
                f64::NAN
            } else {
                largest.max((a - b).abs())
            };
        }
        let error = if all > 0.0 {
            (off / all).sqrt()
        } else {
            off.sqrt()
        };
        let divergence = (name == "logits").then(|| Divergence::of(&want.data, have, want.last()));
        Ok(Row {
            name: name.clone(),
            error,
            largest,
            divergence,
        })
    };
    expected.iter().map(row).collect()
}

fn render(rows: &[Row], limits: &Limits, tokens: usize) -> String {
    let mut text = format!("{:<24} {:>12} {:>12}\n", "", "rel. error", "largest");
    for r in rows {
        let mark = if limits.hold(r) {
            ""
        } else {
            "  above the limit"
        };
        text += &format!(
            "{:<24} {:>12.3e} {:>12.3e}{mark}\n",
            r.name, r.error, r.largest
        );
    }
    for d in rows.iter().filter_map(|r| r.divergence.as_ref()) {
        text += &format!(
            "\nKL divergence {:.3e} nats (largest {:.3e}); best token the same at {} of {} positions\n",
            d.mean, d.largest, d.agreeing, d.rows
        );
    }
    text + &format!(
        "{tokens} tokens; limits: relative error {:e}, divergence {:e}\n",
        limits.error, limits.divergence
    )
}

fn render_json(rows: &[Row], limits: &Limits, tokens: usize) -> String {
    let row = |r: &Row| {
        let mut value =
            json!({"name": r.name, "error": r.error, "largest": r.largest, "ok": limits.hold(r)});
        if let Some(d) = &r.divergence {
            value["kl_mean"] = json!(d.mean);
            value["kl_max"] = json!(d.largest);
            value["argmax_agreement"] = json!(d.agreeing as f64 / d.rows.max(1) as f64);
        }
        value
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    let limits = json!({"error": limits.error, "kl_mean": limits.divergence});
    format!(
        "{}\n",
        json!({"tokens": tokens, "limits": limits, "outputs": rows})
    )
}
