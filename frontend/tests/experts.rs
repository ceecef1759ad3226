//! Mixtures of experts: which layers are mixtures, where their matrices come from, and what is refused.

mod common;

use common::{copy_of, read_json, write_json};
use llmc_frontend::{BuildOptions, FrontendError, Input, Model, ModelDir, Overrides};
use llmc_ir::{DType, quant::Format};
use serde_json::{Value, json};

/// The model of a copy of a golden case whose configuration was changed.
fn build(case: &str, change: Value, random_weights: Option<u64>) -> Result<Model, FrontendError> {
    let folder = copy_of(case);
    let path = folder.path().join("config.json");
    let mut config = read_json(&path);
    for (field, value) in change.as_object().unwrap() {
        config[field] = value.clone();
    }
    write_json(&path, &config);
    let input = Input::resolve(folder.path().to_str().unwrap())?;
    let dir = ModelDir::open(&input, &Overrides::default())?;
    let options = BuildOptions {
        random_weights,
        ..BuildOptions::default()
    };
    Model::build(&dir, &options)
}

#[track_caller]
fn refused(case: &str, change: Value, expected: &[&str]) {
    let error = build(case, change, Some(1))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    for part in expected {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}

#[test]
fn dense_layers_and_mixtures_alternate() {
    let layers = |change: Value| {
        let model = build("qwen3_moe", change, Some(1)).unwrap();
        let list = model
            .module
            .layers()
            .iter()
            .map(|(class, slot)| format!("{class} {slot}"));
        list.collect::<Vec<_>>()
    };
    let five = |change: Value| {
        let mut fields = json!({"num_hidden_layers": 5});
        fields
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        layers(fields)
    };
    assert_eq!(layers(json!({})), ["layer 0", "layer 1"]);
    assert_eq!(
        five(json!({"decoder_sparse_step": 2})),
        [
            "layer.dense 0",
            "layer.moe 0",
            "layer.dense 1",
            "layer.moe 1",
            "layer.dense 2"
        ]
    );
    assert_eq!(
        five(json!({"mlp_only_layers": [0, 3]})),
        [
            "layer.dense 0",
            "layer.moe 0",
            "layer.moe 1",
            "layer.dense 1",
            "layer.moe 2"
        ]
    );
    let none = five(json!({"mlp_only_layers": [0, 1, 2, 3, 4]}));
    assert_eq!(none[4], "layer 4");
}

/// The parts of a weight, as text.
fn source(model: &Model, weight: &str) -> (DType, String) {
    let found = model
        .module
        .weights
        .iter()
        .find(|w| w.name == weight)
        .unwrap();
    (found.ty.dtype, found.source.to_string())
}

#[test]
fn matrices_come_from_where_the_checkpoint_has_them() {
    let of = |case: &str| build(case, json!({}), None).unwrap();
    let mixtral = of("mixtral");
    assert_eq!(
        source(&mixtral, "layer.w_experts_in").1,
        "\"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight\" x 4, \
         \"model.layers.{layer}.block_sparse_moe.experts.{expert}.w3.weight\" x 4"
    );
    let plain = of("gpt_oss");
    assert_eq!(
        source(&plain, "layer.full.w_experts_in").1,
        "\"model.layers.{layer}.mlp.experts.gate_up_proj\"[0..160 every 2] transposed, \
         \"model.layers.{layer}.mlp.experts.gate_up_proj\"[1..160 every 2] transposed"
    );
    let blocks = of("gpt_oss_mxfp4");
    assert_eq!(
        source(&blocks, "layer.sliding.w_experts_out"),
        (
            DType::Block(Format::MXFP4),
            "\"model.layers.{layer}.mlp.experts.down_proj\"".to_owned()
        )
    );
    assert!(
        blocks.weights.unused.is_empty(),
        "{:?}",
        blocks.weights.unused
    );
}

#[test]
fn missing_experts_are_named() {
    let error = build("mixtral", json!({"num_local_experts": 5}), None).map(|_| ());
    let error = error.unwrap_err().to_string();
    for part in [
        "experts.4.w1.weight: missing",
        "gate.weight: found [4, 24], expected [5, 24]",
    ] {
        assert!(error.contains(part), "expected {part:?} in: {error}");
    }
}

#[test]
fn odd_configurations_are_refused() {
    refused(
        "mixtral",
        json!({"num_experts_per_tok": 5}),
        &["num_experts_per_tok", "at most num_local_experts (4)"],
    );
    refused(
        "mixtral",
        json!({"num_experts_per_tok": 0}),
        &["num_experts_per_tok", "found 0"],
    );
    refused(
        "mixtral",
        json!({"num_local_experts": 5000}),
        &["num_local_experts", "found 5000"],
    );
    refused(
        "qwen3_moe",
        json!({"num_experts": 4096, "moe_intermediate_size": 1_000_000}),
        &["num_experts", "found 4096 experts of 24 × 1000000"],
    );
    refused(
        "qwen3_moe",
        json!({"num_experts": 4096, "num_hidden_layers": 4096}),
        &["num_experts", "at most 262144 of all layers"],
    );
    refused(
        "qwen3_moe",
        json!({"decoder_sparse_step": 0}),
        &["decoder_sparse_step", "found 0"],
    );
    refused(
        "qwen3_moe",
        json!({"mlp_only_layers": [-1]}),
        &["mlp_only_layers", "an array of integers"],
    );
    refused(
        "gpt_oss",
        json!({"swiglu_alpha": 2.0}),
        &["swiglu_alpha", "found 2"],
    );
    refused(
        "gpt_oss",
        json!({"swiglu_limit": 0.0}),
        &["swiglu_limit", "found 0"],
    );
    refused(
        "gpt_oss",
        json!({"rope_scaling": null}),
        &["rope_scaling", "YaRN"],
    );
    refused(
        "gpt_oss",
        json!({"quantization_config": {"quant_method": "fp8"}}),
        &["quantization_config.quant_method", "fp8", "mxfp4"],
    );
}

#[test]
fn blocks_of_another_shape_are_refused() {
    let error = build("gpt_oss_mxfp4", json!({"intermediate_size": 64}), None).map(|_| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("gate_up_proj: found [4, 64, 32], expected [4, 128, 32]"),
        "{error}"
    );
}
