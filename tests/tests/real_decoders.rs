//! Real language models through executables, beside what Hugging Face transformers computes with the
//! same (dequantised) weights in f32: `tests/golden/real/README.md`.
//!
//! Two arithmetics: exact (`--activations f32`) and the default, which quantises activations to 8 bits.
//! Models that are not there are skipped, loudly.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use llmc_tests::{
    binaries::{self, Compiled, ok},
    golden::{self, Tensor, Tensors},
    models,
};
use serde_json::Value;

/// How close an arithmetic must be.
struct Tolerance {
    /// Relative or absolute, as `relative` says.
    mean_nll: f64,
    relative: bool,
    /// The best token must be the same wherever the margin exceeds this …
    margin: f32,
    /// … and anywhere in this share of the positions.
    agreement: f64,
}

const EXACT: Tolerance = Tolerance {
    mean_nll: 1e-4,
    relative: false,
    margin: 1e-3,
    agreement: 0.0,
};
const DEFAULT: Tolerance = Tolerance {
    mean_nll: 0.005,
    relative: true,
    margin: f32::INFINITY,
    agreement: 0.96,
};

/// Texts part after a near-tie: below this margin any continuation counts.
const TIE: f32 = 0.05;

struct Real {
    info: Value,
    tensors: Tensors,
}

fn real(name: &str) -> Real {
    let folder = golden::root().join("real");
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    Real {
        info: serde_json::from_slice(&text).unwrap(),
        tensors: golden::read(&folder.join(format!("{name}.safetensors"))),
    }
}

fn infer(model: &Compiled, ids: &[i64], flags: &[&str]) -> Tensors {
    let path = |name: &str| model.dir.path().join(name).to_str().unwrap().to_string();
    let (input, output) = (path("in.st"), path("out.st"));
    let ids = Tensor::i64(&[1, ids.len()], ids.to_vec());
    golden::write(
        input.as_ref(),
        &BTreeMap::from([("input_ids".to_string(), ids)]),
    );
    let mut args = vec!["infer", &input, &output];
    args.extend(flags);
    ok(&model.exe, &args);
    golden::read(output.as_ref())
}

fn best(row: &[f32]) -> usize {
    (0..row.len())
        .reduce(|a, b| if row[b] > row[a] { b } else { a })
        .unwrap()
}

fn nll(row: &[f32], next: usize) -> f64 {
    let most = f64::from(row[best(row)]);
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - most).exp()).sum();
    most + sum.ln() - f64::from(row[next])
}

/// Every position of the text: likelihoods and best tokens.
fn check_text(name: &str, model: &Compiled, real: &Real, tolerance: &Tolerance) {
    let ids = real.tensors["text.input_ids"].ints();
    let found = infer(model, ids, &[]);
    let logits = &found["logits"];
    let width = logits.shape[2];
    let rows: Vec<&[f32]> = logits.floats().chunks_exact(width).collect();
    assert_eq!(rows.len(), ids.len());

    let nlls = rows
        .iter()
        .zip(&ids[1..])
        .map(|(row, &next)| nll(row, next as usize));
    let mean = nlls.sum::<f64>() / (ids.len() - 1) as f64;
    let expected = real.info["mean_nll"].as_f64().unwrap();
    let off = (mean - expected).abs() / if tolerance.relative { expected } else { 1.0 };
    println!("{name}: mean NLL {mean:.6}, expected {expected:.6}");
    assert!(
        off <= tolerance.mean_nll,
        "{name}: mean NLL {mean}, expected {expected}"
    );

    let top = real.tensors["text.top8_logits"].floats();
    let argmax = real.tensors["text.argmax"].ints();
    let mut same = 0;
    for (i, row) in rows.iter().enumerate() {
        if best(row) as i64 == argmax[i] {
            same += 1;
            continue;
        }
        let margin = top[8 * i] - top[8 * i + 1];
        assert!(
            margin <= tolerance.margin,
            "{name}: position {i}: best token {}, expected {} by {margin}",
            best(row),
            argmax[i]
        );
    }
    println!(
        "{name}: best token the same at {same} of {} positions",
        rows.len()
    );
    assert!(
        f64::from(same) >= tolerance.agreement * rows.len() as f64,
        "{name}: {same} of {}",
        rows.len()
    );
}

/// Greedy continuations of the prompts, up to the first near-tie.
fn check_prompts(name: &str, model: &Compiled, real: &Real) {
    for prompt in 0..real.info["prompts"].as_array().unwrap().len() {
        let ids = real.tensors[&format!("p{prompt}.input_ids")].ints();
        let expected = real.tensors[&format!("p{prompt}.greedy_ids")].ints();
        let found = infer(model, ids, &["--generate", "32", "--eos", "none"]);
        let generated = found["generated_ids"].ints();
        let Some(at) = (0..32).find(|&i| generated[i] != expected[i]) else {
            continue;
        };
        // They part at `at`: the margin there, by the executable's own logits.
        let so_far = [ids, &expected[..at]].concat();
        let logits = infer(model, &so_far, &[]);
        let row = logits["logits"]
            .floats()
            .rchunks_exact(logits["logits"].shape[2])
            .next()
            .unwrap();
        let (chosen, wanted) = (row[generated[at] as usize], row[expected[at] as usize]);
        println!(
            "{name}: prompt {prompt} parts at token {at}: margin {}",
            chosen - wanted
        );
        assert!(
            chosen - wanted <= TIE,
            "{name}: prompt {prompt}, token {at}: {} by {}, expected {}",
            generated[at],
            chosen - wanted,
            expected[at]
        );
    }
}

/// The prompts' tokens, and that text goes in and comes out.
fn check_tokens(name: &str, model: &Compiled, real: &Real) {
    let prompts = real.info["prompts"].as_array().unwrap();
    let text = std::iter::once((&real.info["text"], "text.input_ids".to_string()));
    let prompts = prompts
        .iter()
        .enumerate()
        .map(|(i, p)| (&p["text"], format!("p{i}.input_ids")));
    for (text, ids) in text.chain(prompts) {
        let found = ok(
            &model.exe,
            &["tokenize", "--ids", "--", text.as_str().unwrap()],
        );
        let found: Vec<i64> = found
            .split_whitespace()
            .map(|w| w.parse().unwrap())
            .collect();
        assert_eq!(found, real.tensors[&ids].ints(), "{name}: {text}");
    }
}

fn check(name: &str) {
    let Some(file) = models::gguf(name) else {
        return;
    };
    let real = real(name);
    let exact = binaries::compile(&file, &["--activations", "f32"]);
    check_tokens(name, &exact, &real);
    check_text(&format!("{name} exact"), &exact, &real, &EXACT);
    check_prompts(&format!("{name} exact"), &exact, &real);
    drop(exact);
    let default = binaries::compile(&file, &[]);
    check_text(&format!("{name} default"), &default, &real, &DEFAULT);
    let text = ok(
        &default.exe,
        &[
            "generate",
            "The capital of France is",
            "-n",
            "8",
            "--temperature",
            "0",
            "--quiet",
        ],
    );
    assert!(!text.trim().is_empty(), "{name}: nothing generated");
}

#[test]
fn gemma3() {
    check("gemma3-270m");
}

#[test]
fn qwen25_coder() {
    check("qwen2.5-coder-0.5b");
}

#[test]
#[ignore = "a large model: make test-full"]
fn qwen25_coder_large() {
    let name = "qwen2.5-coder-1.5b";
    check(name);
    let Some(file) = models::gguf(name) else {
        return;
    };
    let model = binaries::compile(&file, &[]);
    let said = chat(
        &model,
        "What is the capital of France? Answer in one word.\n",
    );
    assert!(said.contains("Paris"), "{said}");
}

/// What the model answers to one message.
fn chat(model: &Compiled, message: &str) -> String {
    let mut child = Command::new(&model.exe)
        .args(["chat", "--temperature", "0", "--quiet", "-n", "32"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(message.as_bytes())
        .unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap()
}
