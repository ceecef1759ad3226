//! `llmc run` as a process: golden models and modules in text form through the reference evaluator.
//!
//! What the evaluator computes is compared with all goldens elsewhere; this is the command: files
//! in and out, generation, weights beside a text, refusals.

use std::path::{Path, PathBuf};

use llmc_tests::{
    binaries::{llmc, ok, run},
    golden::{self, Case, Data, Tensor, Tensors},
};

fn case(name: &str) -> Case {
    golden::cases(&[name])
        .into_iter()
        .find(|case| case.name == name)
        .unwrap()
}

struct Files {
    _folder: tempfile::TempDir,
    input: PathBuf,
    output: PathBuf,
}

fn files(inputs: &Tensors) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (input, output) = (path("in.safetensors"), path("out.safetensors"));
    golden::write(&input, inputs);
    Files {
        _folder: folder,
        input,
        output,
    }
}

fn evaluate(input: &Path, inputs: &Tensors, flags: &[&str]) -> Tensors {
    let files = files(inputs);
    let paths = [input, &files.input, &files.output].map(|path| path.to_str().unwrap());
    let mut args = vec!["run"];
    args.extend(paths);
    args.extend(flags);
    ok(&llmc(), &args);
    let left = std::fs::read_dir(files.output.parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(left, 2, "the inputs and the outputs");
    golden::read(&files.output)
}

fn compare(case: &Case, scenario: &str, found: &Tensors) {
    let inputs = case.inputs(scenario);
    for (name, expected) in case.outputs(scenario) {
        if let Some(found) = found.get(name) {
            let result = case.compare(name, expected, found, inputs.get("attention_mask"));
            assert!(
                result.is_ok(),
                "{} {scenario}: {}",
                case.name,
                result.unwrap_err()
            );
        }
    }
}

#[test]
fn a_decoder_continues_a_padded_batch() {
    let case = case("llama2_gqa");
    let found = evaluate(
        &case.dir,
        &case.inputs("batch"),
        &["--generate", "24", "--eos", "none"],
    );
    compare(&case, "batch", &found);
    assert!(found.contains_key("logits"));
    assert_eq!(found["generated_ids"].shape, [2, 24]);

    let eos = case.scalar("eos_test.eos_token_id").unwrap().to_string();
    let found = evaluate(
        &case.dir,
        &case.inputs("batch"),
        &["--generate", "15", "--eos", &eos],
    );
    let (_, expected) = case
        .outputs("eos_test")
        .find(|(name, _)| *name == "generated_ids")
        .unwrap();
    assert_eq!(&found["generated_ids"], expected);
}

#[test]
fn an_encoder_gives_hidden_states() {
    let case = case("bert_base");
    let found = evaluate(&case.dir, &case.inputs("batch"), &["--hidden-states"]);
    compare(&case, "batch", &found);
    for name in [
        "last_hidden_state",
        "pooler_output",
        "hidden_states.0",
        "hidden_states.2",
    ] {
        assert!(found.contains_key(name), "{name}");
    }
}

/// The text of a model and its checkpoint mean what the model means, before and after the passes,
/// up to the order of roundings.
#[test]
fn a_text_with_a_checkpoint_is_the_model() {
    for name in ["llama2_gqa", "bert_base"] {
        let case = case(name);
        let folder = tempfile::tempdir().unwrap();
        let planned = folder.path().join("planned.tir");
        let input = case.dir.to_str().unwrap();
        ok(
            &llmc(),
            &[
                "compile",
                input,
                "--emit=tir",
                "-o",
                planned.to_str().unwrap(),
                "--quiet",
            ],
        );
        let text = ok(&llmc(), &["compile", input, "--stop-after=cse", "--quiet"]);
        let first = folder.path().join("first.tir");
        std::fs::write(&first, text).unwrap();
        for text in [planned, first] {
            let found = evaluate(&text, &case.inputs("single"), &["--weights", input]);
            compare(&case, "single", &found);
            assert!(found.contains_key("last_hidden_state"));
        }
    }
}

#[test]
fn wrong_inputs_are_refused() {
    let llama = case("llama2_gqa");
    let model = llama.dir.to_str().unwrap();
    let text =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests/passes/whole-pipeline/llama.tir");
    let text = text.to_str().unwrap();
    let ids = |ids: Vec<i64>| {
        Tensors::from([("input_ids".to_string(), Tensor::i64(&[1, ids.len()], ids))])
    };
    let masked = |mut tensors: Tensors| {
        tensors.insert("attention_mask".into(), Tensor::i64(&[1, 2], vec![0, 0]));
        tensors
    };
    let floats = Tensor {
        shape: vec![1, 1],
        data: Data::F32(vec![1.0]),
    };
    let other_model = ["--weights", model];
    let cases: Vec<(&str, Tensors, &[&str], &str)> = vec![
        (model, Tensors::new(), &[], "`input_ids` is missing"),
        (
            model,
            ids(vec![356]),
            &[],
            "`input_ids` holds 356 at [0, 0]",
        ),
        (model, ids(vec![-1]), &[], "`input_ids` holds -1"),
        (
            model,
            ids(vec![1; 193]),
            &[],
            "193 tokens, this model takes 192",
        ),
        (
            model,
            Tensors::from([("input_ids".into(), floats)]),
            &[],
            "expected I64 or I32",
        ),
        (
            model,
            masked(ids(vec![1, 2])),
            &["--generate", "1"],
            "row 0 is masked wholly",
        ),
        (
            model,
            ids(vec![1]),
            &["--generate", "1", "--eos", "x"],
            "--eos x",
        ),
        (text, ids(vec![1]), &[], "--weights"),
        (text, ids(vec![1]), &["--weights", "/nowhere"], "/nowhere"),
        (text, ids(vec![1]), &other_model, "weight @"),
        ("gone.tir", ids(vec![1]), &[], "gone.tir"),
    ];
    for (input, tensors, flags, words) in cases {
        let files = files(&tensors);
        let mut args = vec![
            "run",
            input,
            files.input.to_str().unwrap(),
            files.output.to_str().unwrap(),
        ];
        args.extend(flags);
        let out = run(&llmc(), &args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{words}: {said}");
        assert!(
            said.starts_with("error: ") && said.contains(words),
            "expected {words:?} in: {said}"
        );
        assert!(!files.output.exists(), "{words}");
    }
}
