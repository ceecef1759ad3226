//! Broken inputs: each gives one error of the right kind that names the file and the field, at once.
//!
//! A case takes a small valid directory, breaks one thing, and says what the error has to contain.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{add_sentence_modules, copy_of, read_json, write_json};
use llmc_frontend::{BuildOptions, FrontendError, Input, Model, ModelDir, Overrides};
use serde_json::{Value, json};

/// Which kind of error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Wrong,
    Unsupported,
    Io,
}
use Kind::{Io, Unsupported, Wrong};

fn open(folder: &Path) -> Result<Model, FrontendError> {
    let dir = ModelDir::open(
        &Input::resolve(folder.to_str().unwrap())?,
        &Overrides::default(),
    )?;
    Model::build(&dir, &BuildOptions::default())
}

/// Breaks a copy of `case` and expects the error to contain every one of `expected`.
#[track_caller]
fn check(case: &str, kind: Kind, expected: &[&str], break_it: impl FnOnce(&Path)) {
    let folder = copy_of(case);
    break_it(folder.path());
    let start = Instant::now();
    let error = match open(folder.path()) {
        Ok(_) => panic!("accepted, expected an error with {expected:?}"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}: {text}",
        start.elapsed()
    );
    let found = match error {
        FrontendError::Input(_) => Wrong,
        FrontendError::Unsupported(_) => Unsupported,
        FrontendError::Io { .. } => Io,
        _ => panic!("{text}"),
    };
    assert_eq!(found, kind, "{text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in: {text}");
    }
    assert!(text.len() < 8000, "{} bytes: {text}", text.len());
}

/// A change of a JSON file; `null` deletes the field.
fn edit(folder: &Path, file: &str, change: Value) {
    let path = folder.join(file);
    let mut value = read_json(&path);
    merge(&mut value, change);
    write_json(&path, &value);
}

fn merge(value: &mut Value, change: Value) {
    match (value, change) {
        (Value::Object(members), Value::Object(changes)) => {
            for (key, change) in changes {
                match change {
                    Value::Null => drop(members.shift_remove(&key)),
                    change => merge(members.entry(key).or_insert(Value::Null), change),
                }
            }
        }
        (value, change) => *value = change,
    }
}

fn write(folder: &Path, file: &str, bytes: &[u8]) {
    std::fs::write(folder.join(file), bytes).unwrap();
}

/// Changes the header of a safetensors file, whose data stays.
fn edit_header(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    write_header(
        &path,
        &serde_json::to_vec(&header).unwrap(),
        &bytes[8 + length..],
    );
}

fn write_header(path: &Path, header: &[u8], data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}

/// A language model that is told pictures: each section, and what ties them together.
#[test]
fn pictures_in_texts() {
    let cases = [
        (
            json!({"image_token_index": null}),
            Wrong,
            "`image_token_index`: missing, expected the id of the token",
        ),
        (
            json!({"image_token_index": 300}),
            Wrong,
            "`image_token_index`: found 300",
        ),
        (
            json!({"num_query_tokens": 96}),
            Wrong,
            "`num_query_tokens`: found 96, expected fewer than the text's positions (96)",
        ),
        (
            json!({"num_query_tokens": 5}),
            Wrong,
            "query_tokens: found [1, 4, 24], expected [1, 5, 24]",
        ),
        (
            json!({"text_config": {"model_type": "llama"}}),
            Unsupported,
            "`text_config.model_type`: found \"llama\"",
        ),
        (
            json!({"text_config": {"word_embed_proj_dim": 12}}),
            Unsupported,
            "text_config.word_embed_proj_dim",
        ),
        (
            json!({"text_config": {"hidden_size": 48}}),
            Unsupported,
            "word_embed_proj_dim",
        ),
        (
            json!({"text_config": 3}),
            Wrong,
            "`text_config`: found 3, expected an object",
        ),
        (
            json!({"vision_config": {"image_size": 20}}),
            Wrong,
            "`vision_config.patch_size`: found 8, expected a divisor",
        ),
        (
            json!({"vision_config": {"image_size": 24}}),
            Wrong,
            "preprocessor_config.json makes pictures of 16 × 16",
        ),
        (
            json!({"vision_config": null}),
            Wrong,
            "preprocessor_config.json makes pictures of 16 × 16",
        ),
        (
            json!({"qformer_config": {"cross_attention_frequency": 0}}),
            Wrong,
            "`qformer_config.cross_attention_frequency`: found 0",
        ),
        (
            json!({"qformer_config": {"cross_attention_frequency": 1}}),
            Wrong,
            "layer.1.crossattention.attention.key.weight: missing",
        ),
        (
            json!({"qformer_config": {"use_qformer_text_input": true}}),
            Unsupported,
            "use_qformer_text_input",
        ),
        (
            json!({"qformer_config": {"num_attention_heads": 5}}),
            Wrong,
            "qformer_config.num_attention_heads",
        ),
        (
            json!({"qformer_config": {"position_embedding_type": "relative_key"}}),
            Unsupported,
            "position_embedding_type",
        ),
        (
            json!({"architectures": ["Blip2ForImageTextRetrieval"]}),
            Unsupported,
            "Blip2ForConditionalGeneration",
        ),
    ];
    for (change, kind, expected) in cases {
        check("blip2_opt", kind, &[expected], |folder| {
            edit(folder, "config.json", change)
        });
    }
    check(
        "blip2_t5",
        Wrong,
        &["language_model.lm_head.weight"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"text_config": {"vocab_size": 208}}),
            );
        },
    );
}

#[test]
fn configuration_fields() {
    // Field → value → what the error says of it.
    let cases = [
        (
            "hidden_size",
            json!(0),
            Wrong,
            "found 0, expected an integer from 1 to",
        ),
        (
            "hidden_size",
            json!(-24),
            Wrong,
            "found -24, expected an integer",
        ),
        (
            "hidden_size",
            json!(24.5),
            Wrong,
            "found 24.5, expected an integer",
        ),
        (
            "hidden_size",
            json!("24"),
            Wrong,
            "found \"24\", expected an integer",
        ),
        ("hidden_size", json!([24]), Wrong, "found an array of 1"),
        (
            "hidden_size",
            json!(null),
            Wrong,
            "missing, expected an integer",
        ),
        (
            "hidden_size",
            json!(1u64 << 40),
            Wrong,
            "found 1099511627776",
        ),
        ("num_attention_heads", json!(0), Wrong, "found 0"),
        (
            "num_attention_heads",
            json!(u64::MAX),
            Wrong,
            "found 18446744073709551615",
        ),
        (
            "num_key_value_heads",
            json!(3),
            Wrong,
            "expected a divisor of num_attention_heads (4)",
        ),
        (
            "num_key_value_heads",
            json!(8),
            Wrong,
            "expected a divisor of num_attention_heads (4)",
        ),
        ("num_hidden_layers", json!(0), Wrong, "found 0"),
        (
            "num_hidden_layers",
            json!(100_000_000),
            Wrong,
            "found 100000000, expected an integer from 1 to 4096",
        ),
        ("intermediate_size", json!(0), Wrong, "found 0"),
        ("vocab_size", json!(0), Wrong, "found 0"),
        ("vocab_size", json!(1e300), Wrong, "found 1e+300"),
        ("max_position_embeddings", json!(0), Wrong, "found 0"),
        ("head_dim", json!(0), Wrong, "found 0"),
        (
            "head_dim",
            json!(7),
            Wrong,
            "rotates 7 of 7 dimensions, expected an even number",
        ),
        (
            "rms_norm_eps",
            json!("1e-5"),
            Wrong,
            "found \"1e-5\", expected a number",
        ),
        (
            "rms_norm_eps",
            json!(-1.0),
            Wrong,
            "found -1.0, expected a number from 0",
        ),
        (
            "rope_theta",
            json!(0),
            Wrong,
            "found 0, expected a number from 1",
        ),
        (
            "rope_scaling",
            json!("linear"),
            Wrong,
            "found \"linear\", expected an object",
        ),
        (
            "tie_word_embeddings",
            json!("no"),
            Wrong,
            "found \"no\", expected true or false",
        ),
        (
            "attention_bias",
            json!(1),
            Wrong,
            "found 1, expected true or false",
        ),
        (
            "hidden_act",
            json!("mish"),
            Unsupported,
            "found \"mish\", supported is silu",
        ),
        ("hidden_act", json!(3), Wrong, "found 3, expected a string"),
        (
            "architectures",
            json!("LlamaForCausalLM"),
            Wrong,
            "expected an array of strings",
        ),
        (
            "architectures",
            json!(["RwkvForCausalLM"]),
            Unsupported,
            "found RwkvForCausalLM, supported are the families albert, bert",
        ),
        (
            "model_type",
            json!("qwen2"),
            Wrong,
            "found \"qwen2\", expected \"llama\" for LlamaForCausalLM",
        ),
        (
            "eos_token_id",
            json!(356),
            Wrong,
            "found 356, expected a token id below 356",
        ),
        (
            "bos_token_id",
            json!("<s>"),
            Wrong,
            "found \"<s>\", expected a token id",
        ),
        (
            "initializer_range",
            json!(-1),
            Wrong,
            "found -1, expected a number",
        ),
    ];
    for (field, value, kind, expected) in cases {
        let field_named = format!("config.json: `{field}`: ");
        check("llama2_mha", kind, &[&field_named, expected], |folder| {
            edit(folder, "config.json", json!({ field: value }));
            std::fs::remove_file(folder.join("generation_config.json")).unwrap();
        });
    }
    check(
        "llama2_mha",
        Unsupported,
        &["`rope_scaling.rope_type`: found \"proportional\""],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"rope_scaling": {"rope_type": "proportional"}}),
            );
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["`rope_scaling.short_factor`: missing, expected an array of numbers"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"rope_scaling": {"rope_type": "longrope"}}),
            );
        },
    );
    check(
        "llama3_rope",
        Wrong,
        &["`rope_scaling.high_freq_factor`: found 0.5, expected more than"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"rope_scaling": {"high_freq_factor": 0.5}}),
            );
        },
    );
    check(
        "gemma3_text",
        Wrong,
        &["`layer_types`: found 1 layers, expected num_hidden_layers (3)"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"layer_types": ["full_attention"]}),
            );
        },
    );
    check(
        "gemma3_text",
        Wrong,
        &["`sliding_window`: found 0"],
        |folder| {
            edit(folder, "config.json", json!({"sliding_window": 0}));
        },
    );
    check(
        "bert_base",
        Unsupported,
        &["`is_decoder`: found true, supported is false"],
        |folder| {
            edit(folder, "config.json", json!({"is_decoder": true}));
        },
    );
    check(
        "bert_base",
        Unsupported,
        &["`position_embedding_type`: found \"relative_key\""],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"position_embedding_type": "relative_key"}),
            );
        },
    );
    check(
        "mpnet_base",
        Unsupported,
        &["`relative_attention_num_buckets`: found 16, supported is 32"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({"relative_attention_num_buckets": 16}),
            );
        },
    );
    check(
        "mpnet_base",
        Wrong,
        &["`max_position_embeddings`: found 2, expected more than 2"],
        |folder| {
            edit(folder, "config.json", json!({"max_position_embeddings": 2}));
        },
    );
}

#[test]
fn configuration_files() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "config.json: not valid JSON: EOF"),
        (b"{\"hidden_size\": 24", "is the download complete?"),
        (b"[]", "found an array of 0, expected an object"),
        (b"{\"a\": NaN}", "not valid JSON"),
        (b"{\"a\": 1, \"a\": 2}", "key `a` occurs twice"),
        (b"{\"a\": 1e999}", "number out of range"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
        (b"{} {}", "trailing characters"),
    ];
    for (bytes, expected) in cases {
        check(
            "llama2_mha",
            Wrong,
            &["config.json: ", expected],
            |folder| write(folder, "config.json", bytes),
        );
    }
    check(
        "llama2_mha",
        Wrong,
        &["config.json: ", "recursion limit"],
        |folder| {
            write(
                folder,
                "config.json",
                format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20)).as_bytes(),
            );
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["config.json: ", "expected at most 67108864"],
        |folder| {
            write(folder, "config.json", &vec![b' '; (64 << 20) + 1]);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["config.json: ", "too many values"],
        |folder| {
            write(
                folder,
                "config.json",
                format!("[0{}]", ",0".repeat(5 << 20)).as_bytes(),
            );
        },
    );
    check("llama2_mha", Wrong, &["no config.json"], |folder| {
        std::fs::remove_file(folder.join("config.json")).unwrap();
    });
    check(
        "llama2_mha",
        Wrong,
        &["config.json: found a directory, expected a regular file"],
        |folder| {
            std::fs::remove_file(folder.join("config.json")).unwrap();
            std::fs::create_dir(folder.join("config.json")).unwrap();
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["generation_config.json: `temperature`: found -1.0"],
        |folder| {
            edit(
                folder,
                "generation_config.json",
                json!({"temperature": -1.0}),
            );
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["generation_config.json: `eos_token_id`: found an array of 2"],
        |folder| {
            edit(
                folder,
                "generation_config.json",
                json!({"eos_token_id": [2, 4_000_000_000u64]}),
            );
        },
    );
}

const WEIGHTS: &str = "model.safetensors";
const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn weight_files() {
    check(
        "llama2_mha",
        Wrong,
        &["no weights: expected model.safetensors", "--random-weights"],
        |folder| {
            std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
        },
    );
    check(
        "llama2_mha",
        Unsupported,
        &["pytorch_model.bin: a pickle checkpoint"],
        |folder| {
            std::fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).unwrap();
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["adapter_model.safetensors: an adapter without its base"],
        |folder| {
            std::fs::rename(
                folder.join(WEIGHTS),
                folder.join("adapter_model.safetensors"),
            )
            .unwrap();
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["model.safetensors: the file has 3 bytes"],
        |folder| write(folder, WEIGHTS, b"abc"),
    );
    check(
        "llama2_mha",
        Wrong,
        &["model.safetensors: header length: found 18446744073709551615"],
        |folder| {
            write(folder, WEIGHTS, &[0xff; 64]);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["model.safetensors: header: ", "JSON object"],
        |folder| {
            write(folder, WEIGHTS, &[2, 0, 0, 0, 0, 0, 0, 0, b'[', b']']);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["data_offsets", "is the download complete?"],
        |folder| {
            let bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
            write(folder, WEIGHTS, &bytes[..bytes.len() - 100]);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["the last 4 bytes belong to no tensor"],
        |folder| {
            let mut bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
            bytes.extend([0; 4]);
            write(folder, WEIGHTS, &bytes);
        },
    );
    let cases: [(&str, Kind, &str, Value); 6] = [
        (
            "shape",
            Wrong,
            "expected 2208 for the shape [24, 23]",
            json!([24, 23]),
        ),
        ("shape", Wrong, "overflows", json!([u64::MAX, 2])),
        ("shape", Wrong, "negative", json!([-24, -24])),
        ("dtype", Unsupported, "found \"Q4_K\"", json!("Q4_K")),
        (
            "data_offsets",
            Wrong,
            "expected a range inside",
            json!([0, u64::MAX]),
        ),
        ("data_offsets", Wrong, "found [8, 0]", json!([8, 0])),
    ];
    for (field, kind, expected, value) in cases {
        let expected = if expected == "negative" {
            "-24"
        } else {
            expected
        };
        check(
            "llama2_mha",
            kind,
            &["model.safetensors: ", Q, expected],
            |folder| {
                edit_header(folder, WEIGHTS, |header| header[Q][field] = value);
            },
        );
    }
    check("llama2_mha", Wrong, &["overlaps tensor"], |folder| {
        edit_header(folder, WEIGHTS, |header| {
            header[Q]["data_offsets"] =
                header["model.layers.0.self_attn.o_proj.weight"]["data_offsets"].clone();
        });
    });
    check(
        "llama2_mha",
        Wrong,
        &["tensor `a` occurs twice"],
        |folder| {
            let one = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
            write_header(
                &folder.join(WEIGHTS),
                format!("{{\"a\": {one}, \"a\": {one}}}").as_bytes(),
                &[0; 4],
            );
        },
    );
}

#[test]
fn weights_of_another_model() {
    check(
        "llama2_gqa",
        Wrong,
        &[
            "weight shape mismatch for family `llama`\n",
            "\n  model.layers.0.self_attn.k_proj.weight: found [24, 24], expected [12, 24]\n",
            "\n  model.layers.1.self_attn.v_proj.weight: found [24, 24], expected [12, 24]\n",
            "\n  note: expected rows = num_key_value_heads (1) × head_dim (12), columns = hidden_size (24), from config.json\n",
            "\n  help: does this checkpoint belong to another config?",
        ],
        |folder| edit(folder, "config.json", json!({"num_key_value_heads": 1})),
    );
    check(
        "llama2_mha",
        Wrong,
        &[
            "weights are missing for family `llama`",
            "q_proj.bias: missing",
        ],
        |folder| {
            edit(folder, "config.json", json!({"attention_bias": true}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[
            "weights are missing",
            "model.layers.2.input_layernorm.weight: missing",
        ],
        |folder| {
            edit(folder, "config.json", json!({"num_hidden_layers": 3}));
        },
    );
    check("llama2_mha", Wrong, &["… and "], |folder| {
        edit(folder, "config.json", json!({"num_hidden_layers": 4096}));
    });
    check(
        "llama2_mha",
        Wrong,
        &["found type i32, supported are f32, f16 and bf16"],
        |folder| {
            edit_header(folder, WEIGHTS, |header| header[Q]["dtype"] = json!("I32"));
        },
    );
    check(
        "qwen2",
        Wrong,
        &["lm_head.weight: missing, expected [300, 24]"],
        |folder| {
            edit(folder, "config.json", json!({"tie_word_embeddings": false}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["which is more than 2^40 elements"],
        |folder| {
            edit(
                folder,
                "config.json",
                json!({
                    "vocab_size": 1 << 24, "hidden_size": 1 << 20, "num_attention_heads": 64, "head_dim": 16384,
                    "num_key_value_heads": 64,
                }),
            );
        },
    );
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards() {
    let case = "llama2_bf16_sharded";
    for name in [
        "../model-00001-of-00002.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "..",
        "",
    ] {
        check(
            case,
            Wrong,
            &[
                INDEX,
                "`weight_map.model.norm.weight`",
                "expected the name of a file",
            ],
            |folder| {
                edit(
                    folder,
                    INDEX,
                    json!({"weight_map": {"model.norm.weight": name}}),
                );
            },
        );
    }
    check(
        case,
        Wrong,
        &[INDEX, "`weight_map.model.norm.weight`: found 1"],
        |folder| {
            edit(
                folder,
                INDEX,
                json!({"weight_map": {"model.norm.weight": 1}}),
            );
        },
    );
    check(
        case,
        Wrong,
        &[INDEX, "expected a .safetensors file"],
        |folder| {
            edit(
                folder,
                INDEX,
                json!({"weight_map": {"model.norm.weight": "config.json"}}),
            );
        },
    );
    check(case, Wrong, &[INDEX, "`weight_map`: missing"], |folder| {
        edit(folder, INDEX, json!({"weight_map": null}));
    });
    check(
        case,
        Wrong,
        &[INDEX, "`weight_map`: found 3, expected an object"],
        |folder| {
            edit(folder, INDEX, json!({"weight_map": 3}));
        },
    );
    check(
        case,
        Wrong,
        &[
            INDEX,
            "shards are missing",
            "model-00002-of-00002.safetensors",
        ],
        |folder| {
            std::fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
        },
    );
    check(
        case,
        Wrong,
        &[
            INDEX,
            "not in the shards",
            "model.norm.weight: not in ",
            "model-00002",
        ],
        |folder| {
            edit(
                folder,
                INDEX,
                json!({"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}),
            );
        },
    );
    check(
        case,
        Wrong,
        &["weights are missing", "model.norm.weight: missing"],
        |folder| {
            edit(
                folder,
                INDEX,
                json!({"weight_map": {"model.norm.weight": null}}),
            );
        },
    );
}

const TOKENIZER: &str = "tokenizer.json";

#[test]
fn tokenizers() {
    let edits: [(&str, Value, Kind, &str); 17] = [
        (
            "llama2_mha",
            json!({"model": null}),
            Wrong,
            "`model`: missing",
        ),
        (
            "llama2_mha",
            json!({"model": 1}),
            Wrong,
            "`model`: found 1, expected an object",
        ),
        (
            "llama2_mha",
            json!({"model": {"type": "WordLevel"}}),
            Unsupported,
            "`model.type`: found \"WordLevel\"",
        ),
        (
            "llama2_mha",
            json!({"model": {"type": 1}}),
            Wrong,
            "`model.type`: found 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": null}}),
            Wrong,
            "`model.vocab`: missing",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": []}}),
            Wrong,
            "`model.vocab`: found an array of 0",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 356}}}),
            Wrong,
            "`x` has id 356, expected one below vocab_size (356)",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": -1}}}),
            Wrong,
            "`x` has id -1",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 4_294_967_295u64}}}),
            Wrong,
            "`x` has id 4294967295",
        ),
        (
            "llama2_mha",
            json!({"model": {"vocab": {"x": 5}}}),
            Wrong,
            "which another token has too",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": 1}}),
            Wrong,
            "`model.merges`: found 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": [["a"]]}}),
            Wrong,
            "`model.merges[0]`: found an array of 1",
        ),
        (
            "llama2_mha",
            json!({"model": {"merges": [["q", "§§"]]}}),
            Wrong,
            "not a usable tokenizer",
        ),
        (
            "llama2_mha",
            json!({"added_tokens": 1}),
            Wrong,
            "`added_tokens`: found 1",
        ),
        (
            "llama2_mha",
            json!({"added_tokens": [{"id": 0}]}),
            Wrong,
            "`added_tokens[0].content`",
        ),
        (
            "llama2_mha",
            json!({"pre_tokenizer": {"type": "Unheard"}}),
            Wrong,
            "not a usable tokenizer",
        ),
        (
            "llama2_mha",
            json!({"version": "9.9"}),
            Wrong,
            "not a usable tokenizer: Unknown tokenizer version",
        ),
    ];
    for (case, change, kind, expected) in edits {
        check(case, kind, &[TOKENIZER, expected], |folder| {
            edit(folder, TOKENIZER, change)
        });
    }
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "is the download complete?"],
        |folder| {
            let bytes = std::fs::read(folder.join(TOKENIZER)).unwrap();
            write(folder, TOKENIZER, &bytes[..bytes.len() / 2]);
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "`normalizer`: nested deeper than"],
        |folder| {
            let mut nested = json!({"type": "NFC"});
            for _ in 0..30 {
                nested = json!({"type": "Sequence", "normalizers": [nested, {"type": "Nope"}]});
            }
            edit(folder, TOKENIZER, json!({ "normalizer": nested }));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "gets id ", "added_tokens"],
        |folder| {
            let mut tokenizer = read_json(&folder.join(TOKENIZER));
            let extra = json!({"id": 355, "content": "<new>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false});
            tokenizer["added_tokens"]
                .as_array_mut()
                .unwrap()
                .push(extra);
            write_json(&folder.join(TOKENIZER), &tokenizer);
        },
    );
    check(
        "bert_base",
        Wrong,
        &[TOKENIZER, "`post_processor`: ", "has id 9999"],
        |folder| {
            let processor =
                json!({"type": "BertProcessing", "sep": ["[SEP]", 9999], "cls": ["[CLS]", 2]});
            edit(folder, TOKENIZER, json!({"post_processor": null}));
            edit(folder, TOKENIZER, json!({ "post_processor": processor }));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &[TOKENIZER, "expected one below vocab_size (100)"],
        |folder| {
            edit(folder, "config.json", json!({"vocab_size": 100}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer.model: not a SentencePiece model"],
        |folder| {
            std::fs::rename(folder.join(TOKENIZER), folder.join("tokenizer.model")).unwrap();
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer_config.json: `chat_template`: found 1"],
        |folder| {
            edit(folder, "tokenizer_config.json", json!({"chat_template": 1}));
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["tokenizer_config.json: `bos_token`: found an object of 1"],
        |folder| {
            edit(folder, "tokenizer_config.json", json!({"bos_token": null}));
            edit(
                folder,
                "tokenizer_config.json",
                json!({"bos_token": {"id": 1}}),
            );
        },
    );
    check(
        "llama2_mha",
        Wrong,
        &["chat_template.jinja: not valid UTF-8"],
        |folder| {
            write(folder, "chat_template.jinja", b"\xff\xfe\xfd");
        },
    );
}

#[test]
fn sentence_modules() {
    let with = |kind: Kind, expected: &[&str], break_it: &dyn Fn(&Path)| {
        check("bert_base", kind, expected, |folder| {
            add_sentence_modules(folder, 24);
            break_it(folder);
        });
    };
    let set = |i: usize, field: &'static str, value: Value| {
        move |folder: &Path| {
            let mut modules = read_json(&folder.join("modules.json"));
            modules[i][field] = value.clone();
            write_json(&folder.join("modules.json"), &modules);
        }
    };
    let dense = json!("sentence_transformers.models.Dense");
    with(
        Unsupported,
        &["modules.json: `[2].type`: found \"sentence_transformers.models.Dense\""],
        &set(2, "type", dense),
    );
    with(
        Wrong,
        &["modules.json: `[1].path`", "expected a folder inside"],
        &set(1, "path", json!("../1_Pooling")),
    );
    with(
        Wrong,
        &["modules.json: `[1].path`: found 7"],
        &set(1, "path", json!(7)),
    );
    let pooling_first = json!("sentence_transformers.models.Pooling");
    with(
        Wrong,
        &["modules.json: found the modules Pooling, Pooling, Normalize"],
        &set(0, "type", pooling_first),
    );
    with(
        Io,
        &["cannot open ", "2_Gone/config.json"],
        &set(1, "path", json!("2_Gone")),
    );
    with(
        Wrong,
        &["modules.json: found an object of 0, expected an array"],
        &|folder| {
            write(folder, "modules.json", b"{}");
        },
    );
    let pooling =
        |change: Value| move |folder: &Path| edit(folder, "1_Pooling/config.json", change.clone());
    let none = pooling(json!({"pooling_mode_mean_tokens": false}));
    with(
        Wrong,
        &["1_Pooling/config.json: `pooling_mode_*`: no mode is on"],
        &none,
    );
    let two = pooling(json!({"pooling_mode_cls_token": true}));
    with(
        Unsupported,
        &["1_Pooling/config.json: `pooling_mode_", "2 modes are on"],
        &two,
    );
    let sqrt = pooling(
        json!({"pooling_mode_mean_tokens": false, "pooling_mode_mean_sqrt_len_tokens": true}),
    );
    with(
        Unsupported,
        &["`pooling_mode_mean_sqrt_len_tokens`: found true, supported is mean_tokens"],
        &sqrt,
    );
    let weighted = pooling(
        json!({"pooling_mode_mean_tokens": false, "pooling_mode_weightedmean_tokens": true}),
    );
    with(
        Unsupported,
        &["`pooling_mode_weightedmean_tokens`"],
        &weighted,
    );
    let text = pooling(json!({"pooling_mode_mean_tokens": "yes"}));
    with(
        Wrong,
        &["`pooling_mode_mean_tokens`: found \"yes\", expected true or false"],
        &text,
    );
    let width = pooling(json!({"word_embedding_dimension": 384}));
    with(
        Wrong,
        &["`word_embedding_dimension`: found 384, expected the model's hidden size (24)"],
        &width,
    );
    with(
        Wrong,
        &["sentence_bert_config.json: `max_seq_length`: found 0"],
        &|folder| {
            edit(
                folder,
                "sentence_bert_config.json",
                json!({"max_seq_length": 0}),
            );
        },
    );
    check(
        "llama2_mha",
        Unsupported,
        &["config.json: sentence-transformers over the decoder family `llama`"],
        |folder| {
            add_sentence_modules(folder, 24);
        },
    );
    check(
        "llama2_mha",
        Unsupported,
        &["config.json: `model_type`"],
        |folder| {
            edit(folder, "config.json", json!({"model_type": "rwkv"}));
            add_sentence_modules(folder, 24);
        },
    );
}

#[test]
fn inputs() {
    let folder = copy_of("llama2_mha");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["m.gguf", "m.bin", "m.txt"] {
        write(folder.path(), name, b"GGML");
    }
    for (input, kind, expected) in [
        (
            "hf:org/name".to_owned(),
            Unsupported,
            "hf:org/name: downloading",
        ),
        (path("m.bin"), Unsupported, "m.bin: a pickle checkpoint"),
        (
            path("m.txt"),
            Wrong,
            "m.txt: expected a Hugging Face directory",
        ),
        (
            path(WEIGHTS),
            Wrong,
            "model.safetensors: weights without a configuration",
        ),
        (path("absent"), Io, "cannot open "),
        (
            "/dev/null".to_owned(),
            Wrong,
            "/dev/null: neither a directory nor a file",
        ),
    ] {
        let error = Input::resolve(&input).unwrap_err();
        let found = match &error {
            FrontendError::Input(_) => Wrong,
            FrontendError::Unsupported(_) => Unsupported,
            _ => Io,
        };
        assert_eq!(found, kind, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let options = BuildOptions {
        max_context: Some(193),
        ..BuildOptions::default()
    };
    let dir = ModelDir::open(
        &Input::Directory(folder.path().into()),
        &Overrides::default(),
    )
    .unwrap();
    let error = Model::build(&dir, &options).err().unwrap().to_string();
    assert!(
        error.contains("--max-context: found 193, expected 1 to the model's context (192)"),
        "{error}"
    );
}
