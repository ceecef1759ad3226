//! Broken safetensors, shards, and weights of another model.

use super::*;

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
