//! Golden models through executables: every output of `infer`, greedy generation, beams, logits
//! processors, distributions of the next token, and the same bits
//! alone, in a batch, with one thread or two, in one pass or step by step.

use std::path::Path;

use llmc_tests::{
    binaries::{self, Compiled},
    gguf::{Elements, Gguf},
    golden::{self, Case, Data, Tensor, Tensors},
    golden_run::{self, Runner, infer, scenario},
    model_copy,
};

/// One row alone gives the bits that it gives in a batch; one thread those of two; greedy steps
/// through the cache the argmax of one pass.
fn determinism(case: &Case, model: &Compiled, problems: &mut Vec<String>) {
    let inputs = case.inputs("batch");
    let both = infer(model, &inputs, &["--hidden-states"]);
    if infer(model, &inputs, &["--hidden-states", "-t", "1"]) != both {
        problems.push(format!("{}: one thread and two differ", case.name));
    }
    let (ids, mask) = (&inputs["input_ids"], &inputs["attention_mask"]);
    let len = ids.shape[1];
    for row in 0..ids.shape[0] {
        let alone: Tensors = inputs
            .iter()
            .map(|(n, t)| {
                let kept: Vec<i64> = (0..len)
                    .filter(|i| mask.ints()[row * len + i] == 1)
                    .map(|i| t.ints()[row * len + i])
                    .collect();
                (n.clone(), Tensor::i64(&[1, kept.len()], kept))
            })
            .collect();
        let found = infer(model, &alone, &["--hidden-states"]);
        for (name, t) in &found {
            let batch = &both[name];
            let spans = ["start_logits", "end_logits"].contains(&name.as_str());
            let expected: Vec<f32> = if t.shape.len() == 3 || spans {
                let width = t.shape.get(2).copied().unwrap_or(1);
                (0..len)
                    .filter(|i| mask.ints()[row * len + i] == 1)
                    .flat_map(|i| batch.floats()[(row * len + i) * width..][..width].to_vec())
                    .collect()
            } else {
                batch.floats()[row * t.shape[1]..][..t.shape[1]].to_vec()
            };
            if t.data != Data::F32(expected) {
                problems.push(format!(
                    "{} {name}: row {row} alone and in a batch differ",
                    case.name
                ));
            }
        }
    }
}

/// The tokens that stepping through the cache chose are the argmax of one pass over all of them.
fn stepping(case: &Case, model: &Compiled, problems: &mut Vec<String>) {
    if case
        .outputs("single")
        .all(|(name, _)| name != "generated_ids")
    {
        return;
    }
    let inputs = case.inputs("single");
    let stepped = infer(model, &inputs, &["--generate", "24", "--eos", "none"]);
    let new = &stepped["generated_ids"];
    let mut ids = inputs["input_ids"].ints().to_vec();
    let prompt = ids.len();
    ids.extend(new.ints());
    let all = Tensors::from([(
        "input_ids".to_string(),
        Tensor::i64(&[1, ids.len()], ids.clone()),
    )]);
    let once = infer(model, &all, &[]);
    let logits = &once["logits"];
    let width = logits.shape[2];
    for (i, &id) in ids.iter().enumerate().skip(prompt) {
        let row = &logits.floats()[(i - 1) * width..][..width];
        let best = (0..width)
            .max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
            .unwrap();
        if best as i64 != id {
            problems.push(format!(
                "{}: step {} differs from one pass",
                case.name,
                i - prompt
            ));
        }
    }
}

/// Encoder-decoders: a source alone gives the bits that it gives in a batch, with a text or without.
fn pairs(case: &Case, model: &Compiled, problems: &mut Vec<String>) {
    let inputs = case.inputs("batch");
    let args = ["--hidden-states", "--generate", "9", "--eos", "none"];
    let both = infer(model, &inputs, &args);
    let mut one = args.to_vec();
    one.extend(["-t", "1"]);
    if infer(model, &inputs, &one) != both {
        problems.push(format!("{}: one thread and two differ", case.name));
    }
    let row_of = |t: &Tensor, row: usize, kept: &[usize]| -> Tensor {
        let width: usize = t.shape[2..].iter().product();
        let at = |i: &usize| (row * t.shape[1] + i) * width..(row * t.shape[1] + i + 1) * width;
        let mut shape = t.shape.clone();
        (shape[0], shape[1]) = (1, kept.len());
        let data = match &t.data {
            Data::F32(v) => Data::F32(kept.iter().flat_map(|i| v[at(i)].to_vec()).collect()),
            Data::I64(v) => Data::I64(kept.iter().flat_map(|i| v[at(i)].to_vec()).collect()),
        };
        Tensor { shape, data }
    };
    let mask = inputs["attention_mask"].clone();
    for row in 0..mask.shape[0] {
        let columns = mask.shape[1];
        let kept: Vec<usize> = (0..columns)
            .filter(|i| mask.ints()[row * columns + i] == 1)
            .collect();
        let all = |t: &Tensor| (0..t.shape[1]).collect::<Vec<_>>();
        let columns_of = |name: &str, t: &Tensor| match case.is_masked(name) {
            true => kept.clone(),
            false => all(t),
        };
        let source = row_of(&inputs["input_ids"], row, &kept);
        let text = &inputs["decoder_input_ids"];
        let alone = Tensors::from([
            ("input_ids".to_string(), source.clone()),
            (
                "decoder_input_ids".to_string(),
                row_of(text, row, &all(text)),
            ),
        ]);
        for (name, t) in &infer(model, &alone, &args) {
            let expected = row_of(&both[name], row, &columns_of(name, &both[name]));
            if *t != expected {
                let name = format!("{} {name}", case.name);
                problems.push(format!("{name}: row {row} alone and in a batch differ"));
            }
        }
        let alone = Tensors::from([("input_ids".to_string(), source)]);
        let found = infer(model, &alone, &["--generate", "9", "--eos", "none"]);
        let ids = &both["generated_ids"];
        if found["generated_ids"] != row_of(ids, row, &all(ids)) {
            problems.push(format!("{}: a text without a text differs", case.name));
        }
    }
    // What stepping wrote is the argmax of one pass over it.
    let ids = &both["generated_ids"];
    let mut again = inputs.clone();
    again.insert("decoder_input_ids".into(), ids.clone());
    let logits = &infer(model, &again, &[])["logits"];
    let width = logits.shape[2];
    for (row, text) in ids.ints().chunks(ids.shape[1]).enumerate() {
        for (i, pair) in text.windows(2).enumerate() {
            let row = &logits.floats()[(row * ids.shape[1] + i) * width..][..width];
            let best = (0..width)
                .max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
                .unwrap();
            if best as i64 != pair[1] {
                problems.push(format!("{}: step {i} differs from one pass", case.name));
            }
        }
    }
}

fn check(prefixes: &[&str]) {
    check_with(prefixes, &[]);
}

/// The cases compiled with `options`.
fn check_with(prefixes: &[&str], options: &[&str]) {
    let cases = golden::cases(prefixes);
    assert!(!cases.is_empty(), "no such case");
    let mut problems = Vec::new();
    for case in cases {
        let model = binaries::compile(Path::new(&case.dir), options);
        if case.has_source() {
            pairs(&case, &model, &mut problems);
        } else {
            determinism(&case, &model, &mut problems);
        }
        // Keys of a growing rope stay as the prompt's length and their own positions made them.
        if !case.name.contains("dynamic") && !case.has_source() {
            stepping(&case, &model, &mut problems);
        }
        let model = Runner::Executable(model);
        for name in ["single", "cross", "short", "batch"] {
            if case.has(name) {
                problems.extend(scenario(&case, &model, name));
            }
        }
        problems.extend(golden_run::eos_test(&case, &model));
        problems.extend(golden_run::beams(&case, &model));
        problems.extend(golden_run::processors(&case, &model));
        problems.extend(golden_run::distributions(&case, &model));
    }
    assert!(
        problems.is_empty(),
        "{} differences:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn llama() {
    check(&["llama"]);
}

#[test]
fn falcon() {
    check(&["falcon"]);
}

#[test]
fn gemma() {
    check(&["gemma2", "gemma3_text"]);
}

#[test]
fn gpt() {
    check(&["gpt1", "gpt2", "gptbigcode", "gptneo"]);
}

/// Products of MXFP4 weights are exact with f32 rows.
#[test]
fn gpt_oss() {
    check_with(&["gpt_oss"], &["--activations", "f32"]);
}

/// Families and ropes that `tests/golden` lacks.
#[test]
fn others() {
    check(&["bloom", "gpt3", "dynamic_rope", "stablelm"]);
}

#[test]
fn mistral() {
    check(&["mistral"]);
}

#[test]
fn mixtral() {
    check(&["mixtral"]);
}

#[test]
fn opt() {
    check(&["opt"]);
}

#[test]
fn phi3() {
    check(&["phi3"]);
}

#[test]
fn qwen() {
    check(&["qwen2", "qwen3"]);
}

#[test]
fn encoders() {
    check(&[
        "albert",
        "bert",
        "deberta",
        "distilbert",
        "mpnet",
        "roberta",
        "t5_encoder",
        "xlm_roberta",
    ]);
}

#[test]
fn t5() {
    check(&["t5_v1_0", "flan_t5"]);
}

/// The golden models as GGUF files.
#[test]
fn gguf() {
    let mut problems = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "bert_base",
        "falcon_mqa",
        "falcon_new_arch",
        "flan_t5",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "gpt_oss",
        "gptbigcode_mqa",
        "llama2_gqa",
        "llama3_rope",
        "mistral_swa",
        "mixtral",
        "phi3_longrope",
        "phi3_partial_gqa",
        "phi3_swa",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "t5_encoder",
        "t5_v1_0",
        "bloom_heads6",
        "stablelm_bias",
        "stablelm_parallel",
    ] {
        let mut case = golden::cases(&[name]).remove(0);
        // The converter drops BERT's pooler.
        case.tensors
            .retain(|name, _| !name.ends_with("pooler_output"));
        let path = folder.path().join(format!("{name}.gguf"));
        Gguf::of_golden(&case.dir, Elements::F32).write(&path);
        let model = Runner::Executable(binaries::compile(&path, &[]));
        problems.extend(scenario(&case, &model, "single"));
        problems.extend(scenario(&case, &model, "batch"));
        // The file stores factors in f32, as transformers reads them.
        if case.has("cross") {
            problems.extend(scenario(&case, &model, "cross"));
        }
        for elements in [Elements::F16, Elements::BF16] {
            Gguf::of_golden(&case.dir, elements).write(&path);
            let model = binaries::compile(&path, &["--target-cpu", "x86-64-v3"]);
            let (exe, input) = (model.exe.to_str().unwrap(), path.to_str().unwrap());
            binaries::ok(&binaries::llmc(), &["verify", exe, "--against", input]);
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Experts in MXFP4, exactly.
#[test]
fn gguf_mxfp4() {
    let mut problems = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    let case = golden::cases(&["gpt_oss_mxfp4"]).remove(0);
    let path = folder.path().join("gpt_oss_mxfp4.gguf");
    Gguf::of_golden(&case.dir, Elements::BF16).write(&path);
    let model = Runner::Executable(binaries::compile(&path, &["--activations", "f32"]));
    problems.extend(scenario(&case, &model, "single"));
    problems.extend(scenario(&case, &model, "batch"));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// With a sentence-transformers description of how to pool, the golden's embedding comes out.
#[test]
fn sentence_embedding() {
    let case = golden::cases(&["mpnet_base"]).remove(0);
    let folder = model_copy::of(&case.name);
    let module = |index: usize, path: &str, kind: &str| {
        format!(
            r#"{{"idx": {index}, "name": "{index}", "path": "{path}", "type": "sentence_transformers.models.{kind}"}}"#
        )
    };
    let modules = [
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ];
    std::fs::write(
        folder.path().join("modules.json"),
        format!("[{}]", modules.join(", ")),
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    std::fs::write(
        folder.path().join("1_Pooling/config.json"),
        r#"{"word_embedding_dimension": 24, "pooling_mode_mean_tokens": true}"#,
    )
    .unwrap();
    let model = binaries::compile(folder.path(), &[]);
    for scenario in ["single", "batch"] {
        let found = infer(&model, &case.inputs(scenario), &[]);
        let (name, expected) = case
            .outputs(scenario)
            .find(|(name, _)| *name == "sentence_embedding")
            .unwrap();
        case.compare(name, expected, &found[name], None).unwrap();
    }
}
