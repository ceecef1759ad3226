//! Golden models that read pictures: by the evaluator at every stage, and through executables from tensors and
//! from the pictures' files.

use std::path::{Path, PathBuf};

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::{
    Module, TensorSource,
    eval::{self, Evaluator, batch::Batch, infer::InferOptions, pictures::see},
    stage, verify,
};
use llmc_passes::{Remarks, TileFacts, pipeline};
use llmc_tests::{
    binaries::{self, Compiled},
    golden::{self, Case, Data, Tensor, Tensors},
};

/// The case of this name.
fn case(name: &str) -> Case {
    golden::cases(&[name]).remove(0)
}

fn build(case: &Case) -> Model {
    let input = Input::resolve(case.dir.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    Model::build(&dir, &BuildOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

fn tensor(t: &eval::Tensor) -> Tensor {
    Tensor {
        shape: t.dims.clone(),
        data: Data::F32(t.data.clone()),
    }
}

/// Everything that the evaluator gives for the case's pictures and texts.
fn evaluate(case: &Case, model: &Model, module: &Module, source: &dyn TensorSource) -> Tensors {
    let inputs = case.part("in.");
    let pixels = &inputs["pixel_values"];
    let mut evaluator = Evaluator::new(module, source).unwrap();
    let pixels = eval::Tensor {
        dims: pixels.shape.clone(),
        data: pixels.floats().to_vec(),
    };
    let seen = see(&mut evaluator, &pixels, true).unwrap();
    let mut found: Tensors = seen
        .tensors
        .iter()
        .map(|(n, t)| (n.clone(), tensor(t)))
        .collect();
    let Some((scale, end)) = model.pictures.as_ref().unwrap().similarity else {
        return found;
    };
    let (ids, mask) = (&inputs["input_ids"], &inputs["attention_mask"]);
    let (rows, len) = (ids.shape[0], ids.shape[1]);
    let mut kept: Vec<bool> = mask.ints().iter().map(|&m| m != 0).collect();
    for (ids, kept) in ids.ints().chunks(len).zip(kept.chunks_mut(len)) {
        let at = match end {
            llmc_frontend::blocks::TextEnd::First(id) => {
                ids.iter().position(|&i| i == i64::from(id))
            }
            llmc_frontend::blocks::TextEnd::Greatest => {
                ids.iter().position(|i| Some(i) == ids.iter().max())
            }
        };
        kept[at.unwrap_or(0) + 1..].fill(false);
    }
    let batch = Batch {
        rows,
        len,
        ids: ids.ints().iter().map(|&i| i as i32).collect(),
        mask: Some(kept),
        ..Batch::default()
    };
    let read = eval::infer::infer(&mut evaluator, &batch, &InferOptions::default()).unwrap();
    found.extend(read.tensors.iter().map(|(n, t)| (n.clone(), tensor(t))));
    let (images, texts) = (&found["image_embeds"], &found["text_embeds"]);
    let width = images.shape[1];
    let products = |name: &str, a: &Tensor, b: &Tensor| {
        let mut data = Vec::new();
        for a in a.floats().chunks(width) {
            for b in b.floats().chunks(width) {
                data.push(scale * a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
            }
        }
        let shape = vec![a.shape[0], b.shape[0]];
        (
            name.to_owned(),
            Tensor {
                shape,
                data: Data::F32(data),
            },
        )
    };
    let both = [
        products("logits_per_image", images, texts),
        products("logits_per_text", texts, images),
    ];
    found.extend(both);
    found
}

/// Compares every output that the golden has.
#[track_caller]
fn compare(case: &Case, at: &str, found: &Tensors) {
    let expected = case.part("out.");
    assert!(!expected.is_empty());
    for (name, want) in &expected {
        let what = format!("{} {at} {name}", case.name);
        let have = found
            .get(name)
            .unwrap_or_else(|| panic!("{what} is missing"));
        case.compare(&what, want, have, None)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

fn by_evaluator(name: &str) {
    let case = case(name);
    let model = build(&case);
    let fresh: Vec<String> = stage::fresh(&model.module)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(fresh.is_empty(), "{name}: {}", fresh.join("\n"));
    compare(
        &case,
        "model",
        &evaluate(&case, &model, &model.module, &model.weights),
    );
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
        compare(
            &case,
            &at,
            &evaluate(&case, &model, &module, &model.weights),
        );
    }
}

#[test]
fn vit_by_evaluator() {
    by_evaluator("vit_cls");
}

#[test]
fn clip_by_evaluator() {
    by_evaluator("clip");
}

fn picture(case: &Case, index: usize) -> PathBuf {
    case.dir.join(format!("image_{index}.png"))
}

/// Tensors in; the same from the pictures' files; one thread and two; a picture alone and in a batch.
fn by_executable(name: &str, args: &[&str]) -> (Case, Compiled) {
    let case = case(name);
    let model = binaries::compile(&case.dir, &[]);
    let mut inputs = case.part("in.");
    let both = model.infer(&model.write(&inputs), args);
    compare(&case, "from tensors", &both);
    let one = [args, &["-t", "1"]].concat();
    assert_eq!(
        model.infer(&model.write(&inputs), &one),
        both,
        "{name}: one thread"
    );

    let pixels = inputs.remove("pixel_values").unwrap();
    let (first, second) = (picture(&case, 0), picture(&case, 1));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let files = match inputs.is_empty() {
        true => model.infer(Path::new(first), &[args, &["--image", second]].concat()),
        false => {
            let images = ["--image", first, "--image", second];
            model.infer(&model.write(&inputs), &[args, &images].concat())
        }
    };
    compare(&case, "from files", &files);
    for (found, expected) in files["pixel_values"].floats().iter().zip(pixels.floats()) {
        assert!(
            (found - expected).abs() <= 1e-5,
            "{name}: {found}, expected {expected}"
        );
    }
    let alone = model.infer(Path::new(second), args);
    for (tensor, found) in alone.iter().filter(|(n, _)| *n != "pixel_values") {
        let whole = files[tensor].floats();
        assert_eq!(
            found.floats(),
            &whole[whole.len() / 2..],
            "{name}: {tensor} alone"
        );
    }
    (case, model)
}

#[test]
fn vit_by_executable() {
    let (case, model) = by_executable("vit_cls", &["--hidden-states"]);
    let logits = &case.tensors["out.logits"];
    for index in 0..2 {
        let row = &logits.floats()[index * 3..][..3];
        let best = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        let sum: f32 = row.iter().map(|x| (x - row[best]).exp()).sum();
        let file = picture(&case, index);
        let line = binaries::ok(&model.exe, &["classify", "--json", file.to_str().unwrap()]);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let label = &line["labels"][0];
        assert_eq!(label["label"], format!("LABEL_{best}"));
        assert!(
            (label["score"].as_f64().unwrap() - f64::from(1.0 / sum)).abs() < 1e-3,
            "{line}"
        );
    }
    let (code, error) = fails(&model.exe, &["classify", "/nonexistent.png"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("/nonexistent.png"), "{error}");
}

#[test]
fn clip_by_executable() {
    let (case, model) = by_executable("clip", &[]);
    for index in 0..2 {
        let file = picture(&case, index);
        let line = binaries::ok(&model.exe, &["embed", file.to_str().unwrap()]);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let found = line["embedding"].as_array().unwrap();
        let expected = &case.tensors["out.image_embeds"].floats()[index * found.len()..];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.as_f64().unwrap() - f64::from(*expected)).abs() < 1e-3);
        }
    }
    let line = binaries::ok(&model.exe, &["embed", "a story", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let row: Vec<f64> = line["embedding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect();
    let length: f64 = row.iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
}

/// Runs a command that must fail: its exit code and what it says.
fn fails(program: &Path, args: &[&str]) -> (i32, String) {
    let out = binaries::run(program, args);
    (
        out.status.code().unwrap(),
        String::from_utf8(out.stderr).unwrap(),
    )
}

/// `run` gives what executables give, and `verify` finds them near.
#[test]
fn run_and_verify() {
    for name in ["vit_cls", "clip"] {
        let case = case(name);
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.st"), folder.path().join("out.st"));
        golden::write(&input, &case.part("in."));
        let model = case.dir.to_str().unwrap();
        let files = [input.to_str().unwrap(), output.to_str().unwrap()];
        let hidden: &[&str] = if name == "clip" {
            &[]
        } else {
            &["--hidden-states"]
        };
        binaries::ok(
            &binaries::llmc(),
            &[&["run", model][..], &files, hidden].concat(),
        );
        compare(&case, "run", &golden::read(&output));
        let (code, error) = fails(
            &binaries::llmc(),
            &[&["run", model][..], &files, &["--generate", "2"]].concat(),
        );
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("does not generate"), "{error}");
    }
    for name in ["vit_cls", "clip", "blip2_opt", "blip2_t5"] {
        let case = case(name);
        let model = binaries::compile(&case.dir, &["--target-cpu", "x86-64-v3"]);
        let (exe, folder) = (model.exe.to_str().unwrap(), case.dir.to_str().unwrap());
        let said = binaries::ok(&binaries::llmc(), &["verify", exe, "--against", folder]);
        let what = if name == "clip" {
            "image_embeds"
        } else {
            "last_hidden_state"
        };
        assert!(said.contains(what), "{name}: {said}");
    }
}

/// Shapes of well-known models, with the parameters of their cards.
#[test]
fn parameters_are_those_of_the_cards() {
    for (name, parameters) in [("vit-base", 86_567_656u64), ("clip-vit-b-32", 151_277_313)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
        let path = path.join(format!("{name}.json"));
        let input = Input::resolve(path.to_str().unwrap()).unwrap();
        let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
        let options = BuildOptions {
            random_weights: Some(1),
            ..BuildOptions::default()
        };
        let model = Model::build(&dir, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(verify(&model.module).is_empty(), "{name}");
        assert_eq!(model.weights.parameters, parameters, "{name}");
    }
}

/// Wrong tensors and files are refused by name.
#[test]
fn wrong_inputs_are_refused() {
    let case = case("vit_cls");
    let model = binaries::compile(&case.dir, &[]);
    let output = model.dir.path().join("out.st");
    let refused = |inputs: &Tensors, more: &[&str], expected: &str| {
        let input = model.write(inputs);
        let mut args = vec!["infer", input.to_str().unwrap(), output.to_str().unwrap()];
        args.extend(more);
        let (code, error) = fails(&model.exe, &args);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains(expected), "expected {expected:?}: {error}");
        assert!(!output.exists());
    };
    let pixels = |shape: &[usize]| {
        let data = vec![0.0; shape.iter().product()];
        let t = Tensor {
            shape: shape.to_vec(),
            data: Data::F32(data),
        };
        Tensors::from([("pixel_values".to_owned(), t)])
    };
    refused(&pixels(&[1, 3, 16, 8]), &[], "expected [batch, 3, 16, 16]");
    refused(&pixels(&[3, 16, 16]), &[], "expected [batch, 3, 16, 16]");
    refused(&pixels(&[1, 1, 16, 16]), &[], "expected [batch, 3, 16, 16]");
    refused(&Tensors::new(), &[], "`pixel_values` is missing");
    let ids = Tensors::from([("input_ids".to_owned(), Tensor::i64(&[1, 2], vec![1, 2]))]);
    refused(&ids, &[], "takes no tensor `input_ids`");
    let ints = Tensors::from([(
        "pixel_values".to_owned(),
        Tensor::i64(&[1, 3, 16, 16], vec![0; 768]),
    )]);
    refused(&ints, &[], "expected F32");
    refused(
        &pixels(&[1, 3, 16, 16]),
        &["--image", "/nonexistent.png"],
        "/nonexistent.png",
    );
    refused(
        &pixels(&[1, 3, 16, 16]),
        &["--generate", "3"],
        "infer --generate",
    );
}
