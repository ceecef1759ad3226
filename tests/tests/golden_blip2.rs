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
use llmc_tests::golden::{self, Case, Data, Tensor, Tensors};

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
