//! Configurations of models that read pictures: broken ones are refused with the file and the field.

mod common;

use common::{copy_of, read_json, write_json};
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use serde_json::{Value, json};

/// Sets a field, whose path is separated by `/`, in a file of a copy of `case`; the error.
#[track_caller]
fn refused(case: &str, file: &str, at: &str, value: Value, expected: &[&str]) {
    let folder = copy_of(case);
    let path = folder.path().join(file);
    let mut json = read_json(&path);
    let (parent, field) = at.rsplit_once('/').unwrap_or(("", at));
    let parent = if parent.is_empty() {
        "".to_owned()
    } else {
        format!("/{parent}")
    };
    json.pointer_mut(&parent).unwrap()[field] = value;
    write_json(&path, &json);
    let input = Input::resolve(folder.path().to_str().unwrap()).unwrap();
    let built = ModelDir::open(&input, &Overrides::default())
        .and_then(|dir| Model::build(&dir, &BuildOptions::default()).map(|_| ()));
    let error = built.expect_err(at).to_string();
    for part in expected {
        assert!(error.contains(part), "{at}: expected {part:?} in: {error}");
    }
}

#[test]
fn grids_of_patches() {
    let vit =
        |field, value, expected: &[&str]| refused("vit_cls", "config.json", field, value, expected);
    vit("image_size", json!(0), &["`image_size`: found 0"]);
    vit(
        "image_size",
        json!(20),
        &["`patch_size`: found 8, expected a divisor of image_size (20)"],
    );
    vit("image_size", json!(1u64 << 40), &["`image_size`: found"]);
    vit(
        "image_size",
        json!([16, 16]),
        &["`image_size`: found an array of 2"],
    );
    vit("patch_size", json!(0), &["`patch_size`: found 0"]);
    vit(
        "num_channels",
        json!(1),
        &["`num_channels`: found 1, supported is 3"],
    );
    vit("pooler_act", json!("relu"), &["`pooler_act`"]);
    vit("num_attention_heads", json!(5), &["`num_attention_heads`"]);
    vit("hidden_act", json!("wave"), &["`hidden_act`"]);
    // Another picture than the preprocessor makes.
    vit(
        "image_size",
        json!(8),
        &["`image_size`: found 8, but preprocessor_config.json makes pictures of 16 × 16"],
    );
}

#[test]
fn too_many_patches() {
    let folder = copy_of("vit_cls");
    let path = folder.path().join("config.json");
    let mut json = read_json(&path);
    json["image_size"] = json!(8192);
    json["patch_size"] = json!(8);
    write_json(&path, &json);
    let input = Input::resolve(folder.path().to_str().unwrap()).unwrap();
    let dir = ModelDir::open(&input, &Overrides::default()).unwrap();
    let error = Model::build(&dir, &BuildOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("`patch_size`: 1048577 patches, expected at most 65535"),
        "{error}"
    );
}

#[test]
fn towers() {
    let clip =
        |field, value, expected: &[&str]| refused("clip", "config.json", field, value, expected);
    clip(
        "vision_config",
        Value::Null,
        &["`vision_config`: found null, expected an object"],
    );
    clip("text_config", json!(3), &["`text_config`: found 3"]);
    clip(
        "vision_config/image_size",
        json!(24),
        &["`vision_config.image_size`: found 24, but"],
    );
    clip(
        "vision_config/patch_size",
        json!(3),
        &["`vision_config.patch_size`: found 3"],
    );
    clip(
        "text_config/eos_token_id",
        json!(-1),
        &["`text_config.eos_token_id`"],
    );
    clip("projection_dim", json!(0), &["`projection_dim`: found 0"]);
}

#[test]
fn preprocessors() {
    let vit = |field, value, expected: &[&str]| {
        refused(
            "vit_cls",
            "preprocessor_config.json",
            field,
            value,
            expected,
        );
    };
    vit(
        "image_processor_type",
        json!("DonutImageProcessor"),
        &["`image_processor_type`"],
    );
    vit("size/height", json!(-1), &["`size.height`"]);
    vit("image_std", json!([0, 1, 1]), &["`image_std`"]);
    vit("resample", json!(9), &["`resample`"]);
}

/// Weights of other shapes are told in the checkpoint's own.
#[test]
fn weights() {
    refused(
        "vit_cls",
        "config.json",
        "patch_size",
        json!(16),
        &[
            "embeddings.patch_embeddings.projection.weight",
            "found [24, 3, 8, 8], expected [24, 3, 16, 16]",
        ],
    );
}
