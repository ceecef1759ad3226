//! `perplexity` against the logits that `infer` writes for the same tokens: as a whole, and in windows.

use llmc_tests::{
    binaries::{self, ok},
    golden::{self, Tensor, Tensors},
};
use std::path::Path;

const TEXT: &str =
    "The quick brown fox jumps over the lazy dog, again and again, while ünïcode 東京 stands by.";

/// -ln softmax of each next token of `ids`, from `infer`'s logits.
fn expected(exe: &Path, folder: &Path, ids: &[i64]) -> Vec<f64> {
    let (input, output) = (
        folder.join("in.safetensors"),
        folder.join("out.safetensors"),
    );
    let tensor = Tensor::i64(&[1, ids.len()], ids.to_vec());
    golden::write(&input, &Tensors::from([("input_ids".into(), tensor)]));
    ok(
        exe,
        &["infer", input.to_str().unwrap(), output.to_str().unwrap()],
    );
    let tensors = golden::read(&output);
    let logits = &tensors["logits"];
    let rows = logits.floats().chunks_exact(logits.shape[2]);
    rows.zip(&ids[1..])
        .map(|(row, &next)| {
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            sum.ln() - f64::from(row[next as usize])
        })
        .collect()
}

#[test]
fn perplexity_is_that_of_the_logits() {
    for case in ["llama2_gqa", "gemma3_text"] {
        let model = binaries::compile(&golden::root().join("models").join(case), &[]);
        let (exe, folder) = (&model.exe, model.dir.path());
        let ids = ok(exe, &["tokenize", "--ids", TEXT]);
        let ids: Vec<i64> = ids.split_whitespace().map(|w| w.parse().unwrap()).collect();
        assert!(ids.len() > 40, "{case}: {}", ids.len());
        let text = folder.join("text");
        std::fs::write(&text, TEXT).unwrap();
        let nll = folder.join("nll.safetensors");
        let check = |flags: &[&str], expected: &[f64]| {
            let fixed = [
                "perplexity",
                text.to_str().unwrap(),
                "--json",
                "--nll",
                nll.to_str().unwrap(),
            ];
            let line = ok(exe, &[&fixed, flags].concat());
            let told: serde_json::Value = serde_json::from_str(&line).unwrap();
            let written = golden::read(&nll);
            assert_eq!(written["input_ids"].ints(), ids, "{case}");
            let written = written["nll"].floats();
            assert_eq!(
                (written.len(), &told["tokens"]),
                (expected.len(), &expected.len().into())
            );
            for (i, (w, e)) in written.iter().zip(expected).enumerate() {
                assert!(
                    (f64::from(*w) - e).abs() < 1e-5,
                    "{case} {i}: {w} is not {e}"
                );
            }
            let mean = expected.iter().sum::<f64>() / expected.len() as f64;
            assert!(
                (told["mean_nll"].as_f64().unwrap() - mean).abs() < 1e-5,
                "{case}"
            );
            assert!(
                (told["perplexity"].as_f64().unwrap().ln() - mean).abs() < 1e-5,
                "{case}"
            );
        };
        let whole = expected(exe, folder, &ids);
        check(&[], &whole);
        // The second window begins at 16 and counts from 32 on, the third goes to the end.
        let mut windowed = whole[..31].to_vec();
        for start in (16..).step_by(16) {
            let end = ids.len().min(start + 32);
            let nll = expected(exe, folder, &ids[start..end]);
            windowed.extend(&nll[15..]);
            if end == ids.len() {
                break;
            }
        }
        check(&["--window", "32", "--stride", "16"], &windowed);
    }
}
