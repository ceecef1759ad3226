//! `llmc verify` as a process: executables against the evaluator on the model that they were made of.

use std::path::Path;

use llmc_tests::{
    binaries::{self, Compiled, llmc, ok, run},
    golden,
};
use serde_json::Value;

fn dir(name: &str) -> std::path::PathBuf {
    golden::root().join("models").join(name)
}

fn compiled(name: &str) -> Compiled {
    binaries::compile(&dir(name), &[])
}

/// What a command did.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn verify(exe: &Path, against: &Path, flags: &[&str]) -> Ran {
    let mut args = vec![
        "verify",
        exe.to_str().unwrap(),
        "--against",
        against.to_str().unwrap(),
    ];
    args.extend(flags);
    let out = run(&llmc(), &args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: out.status.code(),
        stdout: text(out.stdout),
        stderr: text(out.stderr),
    }
}

#[test]
fn every_layer_of_a_decoder_agrees() {
    let llama = compiled("llama2_gqa");
    let against = dir("llama2_gqa");
    let paths = [&llama.exe, &against].map(|p| p.to_str().unwrap());
    let text = ok(
        &llmc(),
        &["verify", paths[0], "--against", paths[1], "--json"],
    );
    let report: Value = serde_json::from_str(&text).unwrap();
    let outputs = report["outputs"].as_array().unwrap();
    let names: Vec<&str> = outputs
        .iter()
        .map(|o| o["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"hidden_states.0") && names.contains(&"hidden_states.2"),
        "{names:?}"
    );
    for output in outputs {
        assert_eq!(output["ok"], true, "{output}");
        assert!(output["error"].as_f64().unwrap() < 1e-4, "{output}");
    }
    let logits = outputs.iter().find(|o| o["name"] == "logits").unwrap();
    assert_eq!(logits["argmax_agreement"], 1.0);
    assert!(logits["kl_mean"].as_f64().unwrap() < 1e-8, "{logits}");

    let shown = ok(
        &llmc(),
        &[
            "verify",
            paths[0],
            "--against",
            paths[1],
            "--text",
            "Once upon a time",
        ],
    );
    assert!(shown.contains("KL divergence"), "{shown}");

    // A limit that no f32 arithmetic keeps.
    let failed = verify(&llama.exe, &against, &["--max-error", "0"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("above its limit"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stdout.contains("above the limit"),
        "{}",
        failed.stdout
    );
}

#[test]
fn an_encoder_agrees_and_another_model_is_refused() {
    let bert = compiled("bert_base");
    let agrees = verify(&bert.exe, &dir("bert_base"), &[]);
    assert_eq!(agrees.code, Some(0), "{}", agrees.stderr);
    assert!(
        agrees.stdout.contains("last_hidden_state"),
        "{}",
        agrees.stdout
    );
    let other = verify(&bert.exe, &dir("mpnet_base"), &[]);
    assert_eq!(other.code, Some(2), "{}", other.stderr);
    assert!(
        other.stderr.contains("family: found \"bert\""),
        "{}",
        other.stderr
    );
}

#[test]
fn what_is_no_executable_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    for file in [text, folder.path().join("nothing")] {
        let refused = verify(&file, &dir("bert_base"), &[]);
        assert_ne!(refused.code, Some(0));
        assert!(
            refused.stderr.starts_with("error: cannot run"),
            "{}",
            refused.stderr
        );
    }
}
