//! Broken config.json and preprocessor_config.json.

use super::*;

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
