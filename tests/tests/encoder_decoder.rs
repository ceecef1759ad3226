//! The faces of an encoder-decoder: texts about a source, from the command line.

use llmc_tests::{
    binaries::{self, llmc, ok, run},
    golden,
    golden_run::{self, Runner},
    model_copy,
};
use serde_json::{Value, json};
use std::path::Path;

const TEXT: &str = "The weather today is warm.";

/// A golden Flan-T5 whose configuration knows a translation.
fn compiled() -> (tempfile::TempDir, binaries::Compiled) {
    let folder = model_copy::of("flan_t5");
    let prefix = json!({"prefix": "translate English to German: ", "num_beams": 4});
    model_copy::edit(
        &folder.path().join("config.json"),
        json!({"task_specific_params": {"translation_en_to_de": prefix, "other": {"max_length": 3}}}),
    );
    let model = binaries::compile(folder.path(), &["--target-cpu", "x86-64-v3"]);
    (folder, model)
}

#[test]
fn texts_about_a_source() {
    let (folder, model) = compiled();
    let exe = &model.exe;
    let prompt = format!("translate English to German: {TEXT}");
    let generated = ok(exe, &["generate", &prompt, "-n", "12", "--quiet"]);
    let translated = ok(exe, &["translate", TEXT, "-n", "12"]);
    let flat = generated.replace('\n', " ");
    assert_eq!(translated.trim_end(), flat.trim());
    assert_eq!(
        ok(exe, &["translate", "--to", "de", TEXT, "-n", "12"]),
        translated
    );
    let two = ok(
        exe,
        &["translate", TEXT, "Once", "-n", "12", "--beams", "2"],
    );
    assert_eq!(two.lines().count(), 2, "{two}");
    let args = "--json -n 12 --beams 2 --num-return 2";
    let args: Vec<&str> = ["translate", TEXT, "Once"]
        .into_iter()
        .chain(args.split(' '))
        .collect();
    let json = ok(exe, &args);
    for ((line, plain), text) in json.lines().zip(two.lines()).zip([TEXT, "Once"]) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["text"], text);
        let said = line["translations"].as_array().unwrap();
        let best = said[0]["text"].as_str().unwrap().replace('\n', " ");
        assert_eq!((said.len(), best.as_str()), (2, plain));
        let score = |i: usize| said[i]["score"].as_f64().unwrap();
        assert!(score(0) >= score(1), "{line}");
    }
    assert_eq!(json.lines().count(), 2, "{json}");

    // What `generate --ids` prints are the ids of `infer`, behind the start token.
    let ids = ok(
        exe,
        &[
            "generate",
            TEXT,
            "-n",
            "9",
            "--ids",
            "--ignore-eos",
            "--quiet",
        ],
    );
    let ids: Vec<i64> = ids
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    let source = ok(exe, &["tokenize", "--ids", TEXT]);
    let source: Vec<i64> = source
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    let inputs = golden::Tensors::from([(
        "input_ids".to_string(),
        golden::Tensor::i64(&[1, source.len()], source),
    )]);
    let args = ["--generate", "9", "--eos", "none"];
    let found = golden_run::infer(&model, &inputs, &args);
    assert_eq!(found["generated_ids"].ints(), [&[0][..], &ids].concat());

    for (line, words) in [
        (&["summarize", TEXT][..], "has no task `summarize`"),
        (&["perplexity", "-"], "has no task `perplexity`"),
        (&["chat"], "has no task `chat`"),
        (&["translate", "--to", "fr", TEXT], "translates en to de"),
        (
            &["translate", TEXT, "--beams", "2", "--num-return", "2"],
            "each text gets one line, unless --json",
        ),
    ] {
        let out = run(exe, line);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(words), "{line:?}: {said}");
        assert_eq!(out.status.code(), Some(2), "{line:?}: {said}");
    }
    drop(folder);
}

/// Newer configurations say that weights are tied whatever the checkpoint has, and the scale apart.
#[test]
fn the_checkpoint_tells_whether_the_head_is_its_own() {
    for (name, scaled) in [("flan_t5", false), ("t5_v1_0", true)] {
        let cases = golden::cases(&[name]);
        let folder = model_copy::of(name);
        let change = json!({"tie_word_embeddings": true, "scale_decoder_outputs": scaled});
        model_copy::edit(&folder.path().join("config.json"), change);
        let runner = Runner::evaluator(folder.path());
        let [case] = cases.as_slice() else {
            panic!("{name}: {} cases", cases.len());
        };
        let problems = golden_run::scenario(case, &runner, "single");
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn measured_and_described() {
    let (folder, model) = compiled();
    let exe = &model.exe;
    let lines = |args: &[&str]| -> Vec<Value> {
        let text = ok(exe, args);
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    };
    let bench = lines(&[
        "bench", "-p", "70", "-n", "5", "-b", "2", "-r", "1", "--json",
    ]);
    let tests: Vec<&Value> = bench.iter().map(|l| &l["test"]).collect();
    assert_eq!(tests, [&json!("enc70 b2"), &json!("tg5 b2")]);
    let profile = lines(&["profile", "-p", "70", "-n", "3", "--json"]);
    for (test, phase) in [
        ("enc70", "encoder.layer.attend"),
        ("tg3", "decoder.layer.attend.1"),
    ] {
        let here = |l: &&Value| l["test"] == test && l["phase"] == phase;
        let line = profile.iter().find(here);
        let line = line.unwrap_or_else(|| panic!("{test} {phase}: {profile:#?}"));
        assert!(line["calls"].as_u64().unwrap() > 0, "{line}");
    }
    let info = &lines(&["info", "--json"])[0];
    assert_eq!(info["kind"], "encoder_decoder");
    assert_eq!(info["entries"][0]["entry"], "decode");
    assert_eq!(info["entries"][1]["entry"], "encode");
    let tasks = info["tasks"].as_array().unwrap();
    assert!(tasks.contains(&json!("translate")) && !tasks.contains(&json!("summarize")));
    let folder = folder.path().to_str().unwrap();
    ok(
        &llmc(),
        &["verify", exe.to_str().unwrap(), "--against", folder],
    );
    let inspected = ok(&llmc(), &["inspect", folder, "--json"]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["kind"], "encoder-decoder");
    let names: Vec<&Value> = inspected["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| &o["name"])
        .collect();
    assert!(
        names.contains(&&json!("encoder_last_hidden_state")),
        "{names:?}"
    );
}

/// A configuration alone, with made-up weights: Flan-T5's shape compiles, and writes.
#[test]
fn made_up_weights() {
    let folder = tempfile::tempdir().unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/configs/flan-t5-base.json"
    );
    let path = folder.path().join("flan.json");
    std::fs::copy(config, &path).unwrap();
    // As wide as the published one, in two layers: the rest is more of the same.
    model_copy::edit(
        &path,
        json!({"num_layers": 2, "num_decoder_layers": 2, "vocab_size": 2048}),
    );
    let exe = folder.path().join("model");
    let (path, exe_text) = (path.to_str().unwrap(), exe.to_str().unwrap());
    let args = [
        "compile",
        path,
        "--random-weights",
        "1",
        "-o",
        exe_text,
        "--quiet",
    ];
    ok(&llmc(), &args);
    let bench = ok(&exe, &["bench", "-p", "40", "-n", "3", "-r", "1", "--json"]);
    assert_eq!(bench.lines().count(), 2, "{bench}");
}

/// Flan-T5 base at its full depth, with made-up weights and a tokenizer of few tokens.
#[test]
fn flan_t5_base_translates() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("flan-t5-base.json");
    std::fs::copy(configs.join("flan-t5-base.json"), &config).unwrap();
    let prefix = json!({"prefix": "translate English to German: "});
    let tasks = json!({"task_specific_params": {"translation_en_to_de": prefix}});
    model_copy::edit(&config, tasks);
    let tokenizer = golden::root().join("tokenizers/t5");
    let flags = [
        "--random-weights",
        "1",
        "--quant",
        "q8_0",
        "--target-cpu",
        "native",
    ];
    let tokenizer = ["--tokenizer", tokenizer.to_str().unwrap()];
    let model = binaries::compile(&config, &[&flags[..], &tokenizer].concat());
    let args = [
        "generate",
        TEXT,
        "-n",
        "20",
        "--ids",
        "--ignore-eos",
        "--quiet",
    ];
    let ids = ok(&model.exe, &args);
    assert_eq!(ids.split_whitespace().count(), 20, "{ids}");
    let lines = ok(&model.exe, &["translate", TEXT, TEXT, "-n", "20"]);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{lines:?}");
}
