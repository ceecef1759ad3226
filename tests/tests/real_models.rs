//! Real models through executables: sentence embeddings as Hugging Face transformers computes them.
//!
//! The models come out of Python packages (`examples/get_models.sh`); one that is not there is
//! skipped, loudly.

use llmc_tests::{binaries, golden, models};
use serde_json::Value;

/// Least cosine between an embedding and the reference's, in f32.
const COSINE: f64 = 0.9999;

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn check(name: &str) {
    let Some(dir) = models::folder(name) else {
        return;
    };
    let real = golden::root().join("real");
    let info: Value =
        serde_json::from_slice(&std::fs::read(real.join(format!("{name}.json"))).unwrap()).unwrap();
    let tensors = golden::read(&real.join(format!("{name}.safetensors")));
    let expected = &tensors["sentence_embedding"];
    let width = expected.shape[1];
    let compiled = binaries::compile(&dir, &[]);
    let sentences: Vec<&str> = info["sentences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s.as_str().unwrap())
        .collect();
    let rows: Vec<Vec<f64>> = expected
        .floats()
        .chunks(width)
        .map(|r| r.iter().map(|&x| x.into()).collect())
        .collect();

    // Texts through the tokenizer, one by one.
    for (text, want) in sentences.iter().zip(&rows) {
        let line = binaries::ok(&compiled.exe, &["embed", "--quiet", "--", text]);
        let found: Value = serde_json::from_str(line.trim()).unwrap();
        let found: Vec<f64> = found["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|x| x.as_f64().unwrap())
            .collect();
        let cosine = cosine(&found, want);
        assert!(cosine >= COSINE, "{name}: {text:?}: cosine {cosine}");
    }

    // The reference's own ids, as one batch.
    let (input, output) = (
        compiled.dir.path().join("in.st"),
        compiled.dir.path().join("out.st"),
    );
    let inputs = ["input_ids", "attention_mask"].map(|n| (n.to_string(), tensors[n].clone()));
    golden::write(&input, &inputs.into());
    binaries::ok(
        &compiled.exe,
        &["infer", input.to_str().unwrap(), output.to_str().unwrap()],
    );
    let found = golden::read(&output);
    for (i, (got, want)) in found["sentence_embedding"]
        .floats()
        .chunks(width)
        .zip(&rows)
        .enumerate()
    {
        let got: Vec<f64> = got.iter().map(|&x| x.into()).collect();
        let cosine = cosine(&got, want);
        assert!(cosine >= COSINE, "{name}: row {i}: cosine {cosine}");
    }
}

#[test]
fn minilm() {
    check("all-minilm-l6-v2");
}

#[test]
fn mpnet() {
    check("all-mpnet-base-v2");
}
