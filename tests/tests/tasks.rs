//! Tasks of encoders through executables: the JSON lines that Hugging Face's pipelines give, from arguments and
//! from standard input; what the model lacks is refused by name.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use llmc_tests::{
    binaries::{self, Compiled},
    golden::{self, Case},
    golden_run,
};
use serde_json::Value;

/// Greatest distance of a score from the reference's: outputs may differ by 2e-4 + 1e-3 · |x|.
const SCORE: f64 = 5e-4;

/// Feeds standard input; what comes out.
fn piped(model: &Compiled, args: &[&str], input: &str) -> String {
    let mut child = Command::new(&model.exe)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// Whether two JSON values agree: everything but fractions exactly.
fn differ(at: &str, found: &Value, expected: &Value, problems: &mut Vec<String>) {
    let mut note = || problems.push(format!("{at}: found {found}, expected {expected}"));
    match (found, expected) {
        (Value::Object(f), Value::Object(e)) => {
            if !f.keys().eq(e.keys()) {
                return note();
            }
            f.iter()
                .for_each(|(k, v)| differ(&format!("{at}.{k}"), v, &e[k], problems));
        }
        (Value::Array(f), Value::Array(e)) => {
            if f.len() != e.len() {
                return note();
            }
            let both = f.iter().zip(e).enumerate();
            both.for_each(|(i, (f, e))| differ(&format!("{at}[{i}]"), f, e, problems));
        }
        (Value::Number(f), Value::Number(e)) if e.is_f64() => {
            let (f, e) = (f.as_f64().unwrap(), e.as_f64().unwrap());
            // False for a NaN.
            let near = (f - e).abs() <= SCORE;
            if !near {
                note();
            }
        }
        _ if found == expected => {}
        _ => note(),
    }
}

fn compare(what: &str, printed: &str, expected: &[Value], problems: &mut Vec<String>) {
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{what}: {line}: {e}")))
        .collect();
    let (found, expected) = (Value::Array(lines), Value::Array(expected.to_vec()));
    differ(what, &found, &expected, problems);
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().unwrap();
    list.iter().map(|s| s.as_str().unwrap()).collect()
}

/// Every call of a case's `tasks.json`, with the texts as arguments and as lines.
fn check(name: &str) {
    let Case { dir, .. } = golden::cases(&[name]).remove(0);
    let model = binaries::compile(&dir, &[]);
    let calls: Value =
        serde_json::from_slice(&std::fs::read(dir.join("tasks.json")).unwrap()).unwrap();
    let mut problems = Vec::new();
    for call in calls.as_array().unwrap() {
        let (args, texts) = (strings(&call["args"]), strings(&call["texts"]));
        let expected = call["lines"].as_array().unwrap();
        let task = args[0];
        let all = [&args[..], &["--json", "--quiet", "--"], &texts].concat();
        // The query stands before the texts.
        let all: Vec<&str> = match task {
            "rerank" => {
                let flags = [&args[2..], &["--json", "--quiet", "--", args[1]]].concat();
                [&["rerank"][..], &flags, &texts].concat()
            }
            _ => all,
        };
        let printed = binaries::ok(&model.exe, &all);
        compare(
            &format!("{name} {args:?}"),
            &printed,
            expected,
            &mut problems,
        );
        let lines = texts.join("\n");
        let piped = piped(&model, &[&args[..], &["--quiet"]].concat(), &lines);
        if piped != printed {
            problems.push(format!("{name} {args:?}: lines and arguments differ"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn answers() {
    check("bert_qa");
}

#[test]
fn labels() {
    check("distilbert_multi");
}

#[test]
fn masks() {
    check("xlm_roberta_mlm");
}

#[test]
fn relevance() {
    check("mpnet_cross");
}

#[test]
fn entities() {
    check("roberta_tags");
}

/// Pairs of texts, by every way to give them: the scores of the tokens of both.
#[test]
fn pairs() {
    check_pairs("bert_seqcls");
    check_pairs("deberta_v3_seqcls");
}

fn check_pairs(name: &str) {
    let case = golden::cases(&[name]).remove(0);
    let model = binaries::compile(&case.dir, &["--target-cpu", "x86-64-v3"]);
    let config: Value =
        serde_json::from_slice(&std::fs::read(case.dir.join("config.json")).unwrap()).unwrap();
    let limit = {
        let info: Value =
            serde_json::from_str(&binaries::ok(&model.exe, &["info", "--json"])).unwrap();
        info["limits"]["context"].as_u64().unwrap() as usize
    };
    let encode = |text: &str, pair: &str| -> [Vec<i64>; 2] {
        let line = serde_json::json!({"text": text, "pair": pair}).to_string();
        let found: Value =
            serde_json::from_str(&piped(&model, &["tokenize", "--jsonl"], &line)).unwrap();
        ["ids", "type_ids"].map(|key| {
            let ids = found[key].as_array().unwrap().iter();
            ids.map(|id| id.as_i64().unwrap()).collect()
        })
    };
    // What `infer` gives for the tokens of a pair, as scores.
    let computed = |[ids, types]: [Vec<i64>; 2]| -> Vec<f64> {
        let shape = [1, ids.len()];
        let mut inputs = vec![("input_ids", ids), ("token_type_ids", types)];
        inputs.truncate(if config["type_vocab_size"] == 0 { 1 } else { 2 });
        let inputs = inputs.into_iter();
        let inputs = inputs.map(|(name, ids)| (name.to_string(), golden::Tensor::i64(&shape, ids)));
        let logits = &golden_run::infer(&model, &inputs.collect(), &[])["logits"];
        let logits: Vec<f64> = logits.floats().iter().map(|x| f64::from(*x)).collect();
        let exp: Vec<f64> = logits.iter().map(|x| x.exp()).collect();
        exp.iter().map(|x| x / exp.iter().sum::<f64>()).collect()
    };
    let label = |at: usize| config["id2label"][at.to_string()].as_str().unwrap();
    let check = |printed: &str, expected: &[Vec<f64>]| {
        assert_eq!(printed.lines().count(), expected.len(), "{printed}");
        for (line, expected) in printed.lines().zip(expected) {
            let line: Value = serde_json::from_str(line).unwrap();
            let labels = line["labels"].as_array().unwrap();
            assert_eq!(labels.len(), expected.len());
            for (at, score) in expected.iter().enumerate() {
                let found = labels.iter().find(|l| l["label"] == label(at)).unwrap();
                let found = found["score"].as_f64().unwrap();
                assert!(
                    (found - score).abs() < 1e-6,
                    "{line}: {score} of {}",
                    label(at)
                );
            }
        }
    };
    let texts = ["The fox is quick.", "A time", "Once upon"];
    let pair = "It was the best of times.";
    let expected = texts.map(|text| computed(encode(text, pair)));
    assert!(
        texts
            .iter()
            .zip(&expected)
            .all(|(text, e)| *e != computed(encode(pair, text)))
    );
    let args = ["classify", "--json", "--top-k", "9", "--quiet"];
    let all = [&args[..], &["--pair", pair], &texts].concat();
    check(&binaries::ok(&model.exe, &all), &expected);
    let tabbed = texts.map(|text| format!("{text}\t{pair}"));
    check(
        &piped(
            &model,
            &[&args[..], &["--pairs"]].concat(),
            &tabbed.join("\n"),
        ),
        &expected,
    );
    check(
        &piped(
            &model,
            &[&args[..], &["--pair", pair]].concat(),
            &texts.join("\n"),
        ),
        &expected,
    );

    // Too long: the longer text is cut, and it is said once.
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(50);
    let [mut ids, mut types] = encode(texts[0], &long);
    assert!(ids.len() > limit);
    let end = ids.len() - 1;
    ids.drain(limit - 1..end);
    types.drain(limit - 1..end);
    let line = format!("{}\t{long}", texts[0]);
    let out = binaries::run(
        &model.exe,
        &[&args[..4], &["--pairs", &line, &line]].concat(),
    );
    check(
        &String::from_utf8(out.stdout).unwrap(),
        &vec![computed([ids, types]); 2],
    );
    let warning = format!("texts of more than {limit} tokens are cut to {limit}\n");
    assert_eq!(String::from_utf8(out.stderr).unwrap(), warning);

    for (text, tabs) in [("a", 0), ("a\tb\tc", 2)] {
        let out = binaries::run(&model.exe, &["classify", "--pairs", text]);
        let message = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{message}");
        assert!(
            message.contains(&format!("found a text with {tabs} tabs")),
            "{message}"
        );
    }
}

/// A model refuses the tasks of other heads by name, and texts that it can do nothing with.
#[test]
fn what_a_model_lacks_is_refused() {
    let refused = |model: &Compiled, args: &[&str], expected: &str| {
        let out = binaries::run(&model.exe, args);
        let message = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
    };
    let compile = |name: &str| {
        let case = golden::cases(&[name]).remove(0);
        binaries::compile(Path::new(&case.dir), &["--target-cpu", "x86-64-v3"])
    };
    let model = compile("bert_mlm");
    let calls: [&[&str]; 6] = [
        &["embed", "a"],
        &["classify", "a"],
        &["tag", "a"],
        &["rerank", "a", "b"],
        &["answer", "--context", "a", "b"],
        &["generate", "a"],
    ];
    for call in calls {
        refused(&model, call, &format!("has no task `{}`", call[0]));
    }
    refused(&model, &["fill-mask", "a"], "holds no [MASK]");
    let help = binaries::ok(&model.exe, &["--help"]);
    let is_listed = |task: &str| help.contains(&format!("\n  {task} "));
    assert!(calls.iter().all(|call| !is_listed(call[0])), "{help}");
    assert!(
        ["fill-mask", "infer", "info", "tokenize"]
            .iter()
            .all(|task| is_listed(task)),
        "{help}"
    );
    assert_eq!(help, binaries::ok(&model.exe, &[]));
    let model = compile("bert_seqcls");
    refused(&model, &["fill-mask", "a"], "has no task `fill-mask`");
    refused(&model, &["rerank", "a", "b"], "gives 3 labels");
    let model = compile("bert_qa");
    refused(&model, &["answer", "a", "b"], "needs --context");
    refused(&model, &["answer", "--context", "-"], "not both");
    let long = "fox ".repeat(99);
    refused(
        &model,
        &["answer", "--context", "a", long.as_str()],
        "leave no room",
    );
}

/// What the tables of labels, and nothing else, say for a person.
#[test]
fn text_for_people() {
    let case = golden::cases(&["bert_seqcls"]).remove(0);
    let model = binaries::compile(&case.dir, &["--target-cpu", "x86-64-v3"]);
    let printed = binaries::ok(
        &model.exe,
        &["classify", "Once upon", "a time", "--top-k", "3"],
    );
    assert_eq!(printed.lines().count(), 2, "{printed}");
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.len(), 6, "{line}");
        let scores = words.chunks(2).map(|w| w[1].parse::<f64>().unwrap());
        assert!((scores.sum::<f64>() - 1.0).abs() < 2e-4, "{line}");
    }
}

/// One warning where texts are cut, none where they are read in windows.
#[test]
fn long_texts() {
    let long = "The quick brown fox jumps over the lazy dog. ".repeat(9);
    let warnings = |name: &str, args: &[&str]| {
        let case = golden::cases(&[name]).remove(0);
        let model = binaries::compile(&case.dir, &["--target-cpu", "x86-64-v3"]);
        let texts = [long.as_str(), "short", long.as_str()];
        let out = binaries::run(&model.exe, &[args, &texts].concat());
        assert!(out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let cut = warnings("distilbert_multi", &["classify"]);
    assert_eq!(cut, "texts of more than 64 tokens are cut to 64\n");
    assert_eq!(warnings("roberta_tags", &["tag"]), "");
}
