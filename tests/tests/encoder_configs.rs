//! Encoders' configurations: the parameters of their cards, verified modules, and one that runs.

use std::path::{Path, PathBuf};

use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::verify;
use llmc_tests::{
    binaries,
    golden::{self, Tensor, Tensors},
    model_copy,
};
use serde_json::json;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/configs")
        .join(format!("{name}.json"))
}

/// The model of a configuration, which is legal.
fn build(path: &Path) -> Model {
    let input = Input::resolve(path.to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let options = BuildOptions {
        random_weights: Some(1),
        ..BuildOptions::default()
    };
    let model = Model::build(&dir, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(verify(&model.module).is_empty(), "{}", path.display());
    model
}

/// The base model's parameters, and those of its masked language model, whose matrix is the token table.
#[test]
fn parameters_are_those_of_the_cards() {
    for (name, masked, base_parameters, masked_parameters) in [
        (
            "albert-base-v2",
            "AlbertForMaskedLM",
            11_683_584,
            11_221_680,
        ),
        ("bert-base", "BertForMaskedLM", 109_482_240, 109_514_298),
        ("bert-large", "BertForMaskedLM", 335_141_888, 335_174_458),
        (
            "distilbert-base",
            "DistilBertForMaskedLM",
            66_362_880,
            66_985_530,
        ),
        ("minilm-l6", "BertForMaskedLM", 22_713_216, 22_744_506),
        ("mpnet-base", "MPNetForMaskedLM", 109_486_464, 109_518_527),
        (
            "roberta-base",
            "RobertaForMaskedLM",
            124_645_632,
            124_697_433u64,
        ),
    ] {
        assert_eq!(
            build(&config(name)).weights.parameters,
            base_parameters,
            "{name}"
        );
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("config.json");
        std::fs::copy(config(name), &copy).unwrap();
        model_copy::edit(&copy, json!({"architectures": [masked]}));
        let found = build(&copy).weights.parameters;
        assert_eq!(found, masked_parameters, "{name}, {masked}");
    }
}

/// BERT's shape with random weights, from the configuration alone.
#[test]
fn bert_base_compiles_and_runs() {
    let flags = ["--random-weights", "1", "--target-cpu", "native"];
    let model = binaries::compile(&config("bert-base"), &flags);
    let path = |name: &str| model.dir.path().join(name);
    let ids: Vec<i64> = (0..10).map(|i| 101 + i * 37).collect();
    let inputs = Tensors::from([("input_ids".to_string(), Tensor::i64(&[1, 10], ids))]);
    golden::write(&path("in.st"), &inputs);
    let (input, output) = (path("in.st"), path("out.st"));
    let args = ["infer", input.to_str().unwrap(), output.to_str().unwrap()];
    binaries::ok(&model.exe, &args);
    let found = golden::read(&output);
    assert_eq!(found["last_hidden_state"].shape, [1, 10, 768]);
    assert_eq!(found["pooler_output"].shape, [1, 768]);
    for row in found["last_hidden_state"].floats().chunks(768) {
        // Behind a layer norm with weights of 1.
        let mean = row.iter().sum::<f32>() / 768.0;
        let square = row.iter().map(|x| x * x).sum::<f32>() / 768.0;
        assert!(
            mean.abs() < 1e-3 && (square - 1.0).abs() < 1e-2,
            "{mean} {square}"
        );
    }
}

/// The same as a sentence encoder, with a tokenizer of few tokens.
#[test]
fn bert_base_embeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::copy(config("bert-base"), path("config.json")).unwrap();
    let tokenizer = golden::root().join("tokenizers/bert");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tokenizer.join(name), path(name)).unwrap();
    }
    let module = |index: u32, path: &str, kind: &str| {
        let ty = format!("sentence_transformers.models.{kind}");
        json!({"idx": index, "name": index.to_string(), "path": path, "type": ty})
    };
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling")
    ]);
    std::fs::write(path("modules.json"), modules.to_string()).unwrap();
    std::fs::create_dir(path("1_Pooling")).unwrap();
    let pooling = json!({"word_embedding_dimension": 768, "pooling_mode_mean_tokens": true});
    std::fs::write(path("1_Pooling/config.json"), pooling.to_string()).unwrap();
    let flags = ["--random-weights", "1", "--target-cpu", "native"];
    let model = binaries::compile(folder.path(), &flags);
    let texts = ["The fox is quick.", "A time"];
    let lines = binaries::ok(&model.exe, &[&["embed"][..], &texts].concat());
    let lines: Vec<Vec<f32>> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let row = line["embedding"].as_array().unwrap().iter();
            row.map(|x| x.as_f64().unwrap() as f32).collect()
        })
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines
            .iter()
            .all(|row| row.len() == 768 && row.iter().all(|x| x.is_finite()))
    );
    assert_ne!(lines[0], lines[1]);
}
