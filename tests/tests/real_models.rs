//! Real models through executables: sentence embeddings as Hugging Face transformers computes them, in f32 and in
//! lower precision, and what a search with them finds.
//!
//! The models come out of Python packages (`examples/get_models.sh`); one that is not there is
//! skipped, loudly.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use llmc_tests::{
    binaries::{self, Compiled},
    golden, models,
};
use serde_json::Value;

/// Least cosine between an embedding and the reference's, in f32 and bf16.
const COSINE: f64 = 0.9999;
/// The same where weights and activations have 8 bits.
const COSINE_8_BITS: f64 = 0.999;

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn check(name: &str, quant: &str, least: f64) {
    let Some(dir) = models::folder(name) else {
        return;
    };
    let real = golden::root().join("real");
    let info: Value =
        serde_json::from_slice(&std::fs::read(real.join(format!("{name}.json"))).unwrap()).unwrap();
    let tensors = golden::read(&real.join(format!("{name}.safetensors")));
    let expected = &tensors["sentence_embedding"];
    let width = expected.shape[1];
    let compiled = binaries::compile(&dir, &["--quant", quant]);
    let mut lowest = 1.0f64;
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
        lowest = lowest.min(cosine);
        assert!(cosine >= least, "{name} {quant}: {text:?}: cosine {cosine}");
    }
    eprintln!("{name} {quant}: lowest cosine {lowest:.6}");

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
        assert!(cosine >= least, "{name} {quant}: row {i}: cosine {cosine}");
    }
}

#[test]
fn minilm() {
    check("all-minilm-l6-v2", "none", COSINE);
}

#[test]
fn minilm_in_lower_precision() {
    check("all-minilm-l6-v2", "bf16", COSINE);
    check("all-minilm-l6-v2", "q8_0", COSINE_8_BITS);
}

#[test]
fn int8_keeps_embeddings() {
    check("all-minilm-l6-v2", "int8", COSINE_8_BITS);
    check("all-mpnet-base-v2", "int8", COSINE_8_BITS);
}

#[test]
fn mpnet() {
    check("all-mpnet-base-v2", "none", COSINE);
}

#[test]
fn mpnet_in_lower_precision() {
    check("all-mpnet-base-v2", "bf16", COSINE);
    check("all-mpnet-base-v2", "q8_0", COSINE_8_BITS);
}

/// Embeddings of lines.
fn embed(model: &Compiled, lines: &[&str], args: &[&str]) -> Vec<Vec<f64>> {
    let mut child = Command::new(&model.exe)
        .args([&["embed", "-"][..], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Answers come while texts are written.
    let text = lines.join("\n");
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(out.status.success());
    let vector = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let values = line["embedding"].as_array().unwrap().iter();
        values.map(|x| x.as_f64().unwrap()).collect()
    };
    let printed = String::from_utf8(out.stdout).unwrap();
    printed.lines().map(vector).collect()
}

/// For every query all sentences, best first, with their cosines.
fn search(model: &Compiled, sentences: &[&str], queries: &[&str]) -> Vec<Vec<(usize, f64)>> {
    let found = embed(model, &[queries, sentences].concat(), &[]);
    let (queries, sentences) = found.split_at(queries.len());
    let rank = |query: &Vec<f64>| {
        let cosines = sentences.iter().map(|s| cosine(query, s));
        let mut ranks: Vec<(usize, f64)> = cosines.enumerate().collect();
        ranks.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranks
    };
    queries.iter().map(rank).collect()
}

/// Two hundred sentences are ranked as Hugging Face's embeddings rank them (`golden_more/search.py`): wherever
/// two neighbours of the reference's ranking are far enough apart, they stand in that order; and cosines agree.
#[test]
fn a_search_ranks_as_the_reference_does() {
    let name = "all-minilm-l6-v2";
    let Some(dir) = models::folder(name) else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden_more/search.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let text = |v: &'_ Value| v.as_str().unwrap().to_owned();
    let list = |v: &Value| v.as_array().unwrap().clone();
    let sentences: Vec<String> = list(&file["sentences"]).iter().map(text).collect();
    let queries: Vec<Value> = list(&file["queries"]);
    let asked: Vec<String> = queries.iter().map(|q| text(&q["query"])).collect();
    let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(sentences.len(), 200);
    // A step of precision, and how far cosines may be from the reference's.
    for (quant, near) in [("none", 1e-4), ("bf16", 1e-2)] {
        let model = binaries::compile(&dir, &["--quant", quant]);
        let found = search(&model, &sentences, &asked);
        for (query, ranks) in queries.iter().zip(found) {
            let place = |sentence: usize| ranks.iter().position(|(s, _)| *s == sentence).unwrap();
            let expected: Vec<(usize, f64)> = list(&query["ranks"])
                .iter()
                .zip(list(&query["scores"]))
                .map(|(s, x)| (s.as_u64().unwrap() as usize, x.as_f64().unwrap()))
                .collect();
            for (i, &(sentence, score)) in expected.iter().enumerate() {
                let at = format!("{quant}: {}: {:?}", query["query"], sentences[sentence]);
                let cosine = ranks[place(sentence)].1;
                assert!(
                    (cosine - score).abs() <= near,
                    "{at}: {cosine}, not {score}"
                );
                let behind = expected[i + 1..]
                    .iter()
                    .filter(|(_, s)| score - s > 2.0 * near);
                for (other, _) in behind {
                    assert!(
                        place(sentence) < place(*other),
                        "{at} behind {:?}",
                        sentences[*other]
                    );
                }
            }
        }
    }
}

/// The first dimensions alone, of length 1 again.
#[test]
fn shorter_embeddings() {
    let Some(dir) = models::folder("all-minilm-l6-v2") else {
        return;
    };
    let model = binaries::compile(&dir, &[]);
    let lines = ["A cat sleeps on the sofa.", "hello"];
    let whole = embed(&model, &lines, &[]);
    let cut = embed(&model, &lines, &["--dimensions", "64"]);
    for (whole, cut) in whole.iter().zip(&cut) {
        assert_eq!((whole.len(), cut.len()), (384, 64));
        let length = cut.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        assert!((cosine(&whole[..64], cut) - 1.0).abs() < 1e-9);
    }
    let out = binaries::run(&model.exe, &["embed", "a", "--dimensions", "385"]);
    assert_eq!(out.status.code(), Some(2));
}
