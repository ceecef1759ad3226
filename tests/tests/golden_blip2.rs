//! BLIP-2's golden models, with OPT and with T5: by the evaluator at every stage, through executables from tensors
//! and from the pictures' files.

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    Module,
    eval::{
        self, Evaluator,
        batch::Batch,
        encoder_decoder,
        infer::{InferOptions, InferOutput, infer as evaluate},
        pictures::see,
    },
    stage, verify,
};
use llmc_passes::{Remarks, TileFacts, pipeline};
use llmc_tests::{
    binaries::{self, Compiled},
    golden::{self, Case, Data, Tensor, Tensors},
};
use serde_json::Value;
use std::path::Path;

const CASES: [&str; 2] = ["blip2_opt", "blip2_t5"];

fn case(name: &str) -> Case {
    golden::cases(&[name]).remove(0)
}

/// The last positions of each row: as many as are expected.
fn last(found: &Tensor, expected: &Tensor) -> Tensor {
    let (&[rows, have, width], &[_, kept, _]) = (&found.shape[..], &expected.shape[..]) else {
        panic!("{:?}, {:?}", found.shape, expected.shape);
    };
    let row =
        |r: usize| found.floats()[(r * have + have - kept) * width..][..kept * width].to_vec();
    Tensor {
        shape: vec![rows, kept, width],
        data: Data::F32((0..rows).flat_map(row).collect()),
    }
}

/// Compares everything that the case expects of `scenario.`, or of pictures where there is none.
#[track_caller]
fn compare(case: &Case, at: &str, scenario: &str, found: &Tensors) {
    let expected = case.part(&format!("out.{scenario}"));
    let mut seen = 0;
    for (name, want) in &expected {
        if name.contains('.') || name.starts_with("generated_m") {
            continue;
        }
        let what = format!("{} {at} {scenario}{name}", case.name);
        let have = found
            .get(name)
            .unwrap_or_else(|| panic!("{what} is missing"));
        let have = if name == "logits" {
            last(have, want)
        } else {
            have.clone()
        };
        case.compare(&what, want, &have, None)
            .unwrap_or_else(|e| panic!("{e}"));
        seen += 1;
    }
    assert!(
        seen > 0,
        "{} {at} {scenario}: nothing to compare",
        case.name
    );
}

fn tensor(t: &eval::Tensor) -> Tensor {
    Tensor {
        shape: t.dims.clone(),
        data: Data::F32(t.data.clone()),
    }
}

/// What the evaluator gives, under the names of `infer`.
fn named(output: &InferOutput) -> Tensors {
    let mut all: Tensors = output
        .tensors
        .iter()
        .map(|(n, t)| (n.clone(), tensor(t)))
        .collect();
    if let Some(rows) = &output.generated {
        let shape = [rows.len(), rows[0].len()];
        let ids = rows.concat().into_iter().map(i64::from).collect();
        all.insert("generated_ids".into(), Tensor::i64(&shape, ids));
    }
    all
}

fn batch(ids: &Tensor, mask: Option<&Tensor>, pictures: Option<(u32, eval::Tensor)>) -> Batch {
    Batch {
        rows: ids.shape[0],
        len: ids.shape[1],
        ids: ids.ints().iter().map(|&i| i as i32).collect(),
        mask: mask.map(|m| m.ints().iter().map(|&m| m != 0).collect()),
        types: None,
        pictures,
    }
}

fn check(case: &Case, model: &Model, module: &Module, at: &str, generate: bool) {
    let inputs = case.part("in.");
    let mut evaluator = Evaluator::new(module, &model.weights).unwrap();
    let pixels = &inputs["pixel_values"];
    let pixels = eval::Tensor {
        dims: pixels.shape.clone(),
        data: pixels.floats().to_vec(),
    };
    let seen = see(&mut evaluator, &pixels, false).unwrap();
    compare(case, at, "", &named(&seen));

    let (token, count) = model.pictures.as_ref().unwrap().tokens.unwrap();
    let pictures = Some((token, seen.tensors["image_features"].clone()));
    let text = inputs
        .get("batch.decoder_input_ids")
        .map(|ids| batch(ids, None, None));
    let mut run = |prompts: &Batch, texts: Option<&Batch>, new: Option<usize>| {
        let options = InferOptions {
            generate: new,
            ..InferOptions::default()
        };
        let output = match &text {
            Some(_) => encoder_decoder::infer(&mut evaluator, prompts, texts, 0, &options),
            None => evaluate(&mut evaluator, prompts, &options),
        };
        named(&output.unwrap_or_else(|e| panic!("{} {at}: {e}", case.name)))
    };
    let prompts = batch(
        &inputs["batch.input_ids"],
        inputs.get("batch.attention_mask"),
        pictures.clone(),
    );
    let mut found = run(&prompts, text.as_ref(), generate.then_some(24));
    if !generate {
        found.insert(
            "generated_ids".into(),
            case.part("out.batch.")["generated_ids"].clone(),
        );
    }
    compare(case, at, "batch.", &found);
    if generate {
        // The picture, and the token that begins a text.
        let bos = if text.is_some() { 1 } else { 2 };
        let mut row = vec![i64::from(token); count as usize];
        row.push(bos);
        let ids = Tensor::i64(&[2, row.len()], [row.clone(), row].concat());
        let found = run(&batch(&ids, None, pictures), None, Some(12));
        compare(case, at, "no_prompt.", &found);
    }
}

fn build(case: &Case) -> Model {
    let input = Input::resolve(case.dir.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    Model::build(&dir, &BuildOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

fn by_evaluator(name: &str) {
    let case = case(name);
    let model = build(&case);
    assert!(
        model.weights.unused.is_empty(),
        "{:?}",
        model.weights.unused
    );
    let fresh: Vec<String> = stage::fresh(&model.module)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(fresh.is_empty(), "{name}: {}", fresh.join("\n"));
    check(&case, &model, &model.module, "model", true);
    let mut module = model.module.clone();
    for pass in pipeline::all(TileFacts::default()) {
        pass.run(&mut module, &mut Remarks::new())
            .unwrap_or_else(|e| panic!("{name} {}: {e}", pass.name()));
        let violations: Vec<String> = verify(&module).iter().map(ToString::to_string).collect();
        assert!(
            violations.is_empty(),
            "{name} {}:\n{}",
            pass.name(),
            violations.join("\n")
        );
        let at = format!("after {}", pass.name());
        check(
            &case,
            &model,
            &module,
            &at,
            pass.name().starts_with("enter-"),
        );
    }
}

#[test]
fn opt_by_evaluator() {
    by_evaluator(CASES[0]);
}

#[test]
fn t5_by_evaluator() {
    by_evaluator(CASES[1]);
}

fn picture(case: &Case, index: usize) -> String {
    let path = case.dir.join(format!("image_{index}.png"));
    path.to_str().unwrap().to_owned()
}

/// The inputs of the batch.
fn batch_inputs(case: &Case) -> Tensors {
    let mut inputs = case.part("in.batch.");
    inputs.insert(
        "pixel_values".into(),
        case.part("in.")["pixel_values"].clone(),
    );
    inputs
}

/// Row `row` of every input, without its padding.
fn alone(inputs: &Tensors, row: usize) -> Tensors {
    let mask = &inputs["attention_mask"];
    let len = mask.shape[1];
    let kept = |name: &str, i: usize| {
        let masked = ["input_ids", "attention_mask"].contains(&name);
        !masked || mask.ints()[row * len + i] == 1
    };
    let one = |(name, t): (&String, &Tensor)| {
        let each = t.shape[1..].iter().product::<usize>();
        let mut shape = t.shape.clone();
        shape[0] = 1;
        let t = match &t.data {
            Data::F32(v) => Tensor {
                shape,
                data: Data::F32(v[row * each..][..each].to_vec()),
            },
            Data::I64(v) => {
                let own = v[row * each..][..each].iter().enumerate();
                let ids: Vec<i64> = own
                    .filter(|(i, _)| kept(name, *i))
                    .map(|(_, id)| *id)
                    .collect();
                Tensor::i64(&[1, ids.len()], ids)
            }
        };
        (name.clone(), t)
    };
    inputs.iter().map(one).collect()
}

const GREEDY: [&str; 4] = ["--generate", "24", "--eos", "none"];
const UNPROMPTED: [&str; 4] = ["--generate", "12", "--eos", "none"];

/// Tensors in, and pictures' files; one thread and two; a row alone and in a batch; with prompts and without.
fn by_executable(name: &str) -> (Case, Compiled) {
    let case = case(name);
    let model = binaries::compile(&case.dir, &[]);
    let inputs = batch_inputs(&case);
    let both = model.infer(&model.write(&inputs), &GREEDY);
    compare(&case, "from tensors", "", &both);
    compare(&case, "from tensors", "batch.", &both);
    let one = model.infer(&model.write(&inputs), &[&GREEDY[..], &["-t", "1"]].concat());
    assert_eq!(one, both, "{name}: one thread and two");

    for row in 0..2 {
        let found = model.infer(&model.write(&alone(&inputs, row)), &GREEDY);
        for (tensor, found) in &found {
            let whole = &both[tensor];
            let each = whole.shape[1..].iter().product::<usize>();
            let same = match (&found.data, &whole.data) {
                (Data::I64(f), Data::I64(w)) => f[..] == w[row * each..][..each],
                // Of rows with padding the tokens are the last ones (OPT) or the first ones (T5's encoder).
                (Data::F32(f), Data::F32(w)) => {
                    let own = &w[row * each..][..each];
                    own.starts_with(f) || own.ends_with(f)
                }
                _ => false,
            };
            assert!(same, "{name} {tensor}: row {row} alone and in a batch");
        }
    }

    // The same from the pictures' files.
    let mut texts = inputs.clone();
    let pixels = texts.remove("pixel_values").unwrap();
    let (first, second) = (picture(&case, 0), picture(&case, 1));
    let images = ["--image", &first, "--image", &second];
    let files = model.infer(&model.write(&texts), &[&GREEDY[..], &images].concat());
    compare(&case, "from files", "", &files);
    compare(&case, "from files", "batch.", &files);
    for (found, expected) in files["pixel_values"].floats().iter().zip(pixels.floats()) {
        assert!(
            (found - expected).abs() <= 1e-5,
            "{name}: {found}, expected {expected}"
        );
    }

    // Pictures alone.
    let only = Tensors::from([("pixel_values".to_owned(), pixels)]);
    let unprompted = model.infer(&model.write(&only), &UNPROMPTED);
    compare(&case, "unprompted", "", &unprompted);
    compare(&case, "unprompted", "no_prompt.", &unprompted);
    let file = model.infer(
        Path::new(&first),
        &[&UNPROMPTED[..], &["--image", &second]].concat(),
    );
    compare(&case, "unprompted files", "no_prompt.", &file);
    (case, model)
}

#[test]
fn opt_by_executable() {
    let (case, model) = by_executable(CASES[0]);
    tasks(&case, &model);
}

#[test]
fn t5_by_executable() {
    let (case, model) = by_executable(CASES[1]);
    tasks(&case, &model);
}

/// `llmc run` gives what executables give.
#[test]
fn by_run() {
    for name in CASES {
        let case = case(name);
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.st"), folder.path().join("out.st"));
        let run = |inputs: &Tensors, args: &[&str]| {
            golden::write(&input, inputs);
            let files = [
                case.dir.to_str().unwrap(),
                input.to_str().unwrap(),
                output.to_str().unwrap(),
            ];
            binaries::ok(&binaries::llmc(), &[&["run"][..], &files, args].concat());
            golden::read(&output)
        };
        let inputs = batch_inputs(&case);
        let found = run(&inputs, &GREEDY);
        compare(&case, "run", "", &found);
        compare(&case, "run", "batch.", &found);
        let only = Tensors::from([("pixel_values".to_owned(), inputs["pixel_values"].clone())]);
        compare(&case, "run", "no_prompt.", &run(&only, &UNPROMPTED));
    }
}

/// What a task that prints JSON says: the texts of a list.
fn texts(line: &str, list: &str) -> Vec<String> {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let all = line[list].as_array().unwrap().iter();
    all.map(|t| t["text"].as_str().unwrap().to_owned())
        .collect()
}

/// `caption` and `answer` say what `infer` generates.
fn tasks(case: &Case, model: &Compiled) {
    let (exe, files) = (&model.exe, [picture(case, 0), picture(case, 1)]);
    let ids = |t: &Tensor, row: usize, skip: usize| {
        let ids = t.ints()[row * t.shape[1]..][..t.shape[1]].iter().skip(skip);
        ids.map(i64::to_string).collect::<Vec<_>>().join(" ")
    };
    // Tasks end where an end token comes; before it they say the same.
    let starts = usize::from(case.name.ends_with("t5"));
    let detokenized = |t: &Tensor, row: usize| {
        let ids = ids(t, row, starts);
        let eos = if starts == 1 { "1" } else { "2" };
        let kept: Vec<&str> = ids.split(' ').take_while(|id| *id != eos).collect();
        if kept.is_empty() {
            return String::new();
        }
        let args = [&["detokenize", "--skip-special"][..], &kept].concat();
        binaries::ok(exe, &args).trim().to_owned()
    };
    let question = "how many cats are there?";
    let asked = &case.part("out.batch.")["generated_ids"];
    let line = binaries::ok(exe, &["answer", &files[0], question, "-n", "24", "--json"]);
    assert_eq!(texts(&line, "answers"), [detokenized(asked, 0)]);
    let told = &case.part("out.batch.")["generated_ids"];
    let args = [
        "caption", &files[1], "--prompt", "a story", "-n", "24", "--json",
    ];
    assert_eq!(
        texts(&binaries::ok(exe, &args), "captions"),
        [detokenized(told, 1)]
    );
    // Without a prompt, and both pictures.
    let free = &case.part("out.no_prompt.")["generated_ids"];
    let lines = binaries::ok(
        exe,
        &["caption", &files[0], &files[1], "-n", "12", "--json"],
    );
    for (row, line) in lines.lines().enumerate() {
        assert_eq!(texts(line, "captions"), [detokenized(free, row)]);
    }
    assert_eq!(lines.lines().count(), 2);
    let mut reading = std::process::Command::new(exe)
        .args(["caption", "-", "-n", "12"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let named = files.join("\n");
    std::io::Write::write_all(&mut reading.stdin.take().unwrap(), named.as_bytes()).unwrap();
    let read = reading.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), lines);
    let plain = binaries::ok(
        exe,
        &["caption", &files[0], "--prompt", "a story", "-n", "9"],
    );
    assert_eq!(plain.lines().count(), 1, "{plain:?}");
    // Several texts: searched, and drawn.
    let searched = ["--beams", "3", "--num-return", "2", "-n", "7", "--json"];
    let line = binaries::ok(exe, &[&["caption", &files[0]][..], &searched].concat());
    assert_eq!(texts(&line, "captions").len(), 2);
    let drawn = [
        "--temperature",
        "1",
        "--seed",
        "4",
        "--num-return",
        "2",
        "-n",
        "7",
        "--json",
    ];
    let line = binaries::ok(
        exe,
        &[&["answer", &files[0], question][..], &drawn].concat(),
    );
    assert_eq!(texts(&line, "answers").len(), 2);
    assert_eq!(
        line,
        binaries::ok(
            exe,
            &[&["answer", &files[0], question][..], &drawn].concat()
        )
    );

    // A text without a picture is a text.
    binaries::ok(exe, &["generate", "a story", "-n", "3", "--quiet"]);
    let info = binaries::ok(exe, &["info", "--json"]);
    let info: Value = serde_json::from_str(&info).unwrap();
    let has = |task: &str| info["tasks"].as_array().unwrap().iter().any(|t| t == task);
    assert!(has("caption") && has("answer") && has("generate"), "{info}");
    assert_eq!(info["family"], "blip-2");
}

/// Wrong inputs are refused by name, and leave no file.
#[test]
fn wrong_inputs_are_refused() {
    let case = case(CASES[0]);
    let model = binaries::compile(&case.dir, &["--target-cpu", "x86-64-v3"]);
    let output = model.dir.path().join("out.st");
    let refused = |args: &[&str], expected: &str| {
        let out = binaries::run(&model.exe, args);
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "expected {expected:?}: {error}");
        assert!(!output.exists());
    };
    let infer = |inputs: &Tensors, more: &[&str], expected: &str| {
        let input = model.write(inputs);
        let files = [input.to_str().unwrap(), output.to_str().unwrap()];
        refused(&[&["infer"][..], &files, more].concat(), expected);
    };
    let all = batch_inputs(&case);
    let without = |name: &str| {
        let mut inputs = all.clone();
        inputs.remove(name);
        inputs
    };
    infer(&without("pixel_values"), &[], "`pixel_values` is missing");
    infer(&without("input_ids"), &[], "`input_ids` is missing");
    let file = picture(&case, 0);
    infer(
        &all,
        &["--image", &file],
        "8 times: 3 pictures of 4 tokens are 12",
    );
    let mut texts = all.clone();
    texts.insert("decoder_input_ids".into(), Tensor::i64(&[2, 1], vec![0; 2]));
    infer(&texts, &[], "takes no tensor `decoder_input_ids`");
    refused(&["caption", "/nonexistent.png"], "/nonexistent.png");
    refused(
        &["answer", &file, "q", "--context", "c"],
        "--context: this model answers about pictures",
    );
    refused(&["answer"], "answer needs a picture");
    refused(&["classify", &file], "has no task `classify`");
}
