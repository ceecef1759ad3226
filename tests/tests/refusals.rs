//! Broken inputs through `llmc compile`: each gives one error that names the file and the field,
//! exit code 2, no file, within bounded time and memory.
//!
//! The kinds of errors and their exact words are the frontend's tests; this is the whole command.

mod refused;

use std::path::Path;

use llmc_tests::model_copy::{add_sentence_modules, edit, edit_header, write_header};
use refused::{Refusal, check_all, refusal};
use serde_json::{Value, json};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const INDEX: &str = "model.safetensors.index.json";
const Q: &str = "model.layers.0.self_attn.q_proj.weight";

/// A golden Llama one of whose JSON files has other fields.
fn changed(file: &'static str, change: Value, expected: &[&'static str]) -> Refusal {
    refusal("llama2_gqa", expected)
        .broken_by(move |folder| edit(&folder.join(file), change.clone()))
}

/// A golden Llama one of whose files has other bytes.
fn replaced(file: &'static str, bytes: Vec<u8>, expected: &[&'static str]) -> Refusal {
    refusal("llama2_gqa", expected)
        .broken_by(move |folder| std::fs::write(folder.join(file), &bytes).unwrap())
}

/// A golden Llama one of whose files ends early.
fn cut(
    file: &'static str,
    keep: impl Fn(usize) -> usize + Sync + Send + 'static,
    expected: &[&'static str],
) -> Refusal {
    refusal("llama2_gqa", expected).broken_by(move |folder| {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        std::fs::write(folder.join(file), &bytes[..keep(bytes.len())]).unwrap();
    })
}

#[test]
fn configurations() {
    let field = |name: &'static str, value: Value, found: &'static str| {
        changed(
            CONFIG,
            json!({ name: value }),
            &["config.json", name, found],
        )
    };
    check_all(vec![
        field("hidden_size", json!(0), "found 0"),
        field("hidden_size", json!(-24), "found -24"),
        field("hidden_size", json!("24"), "found \"24\""),
        field("hidden_size", json!(1u64 << 40), "found 1099511627776"),
        field("hidden_size", Value::Null, "missing"),
        field(
            "num_attention_heads",
            json!(u64::MAX),
            "found 18446744073709551615",
        ),
        field(
            "num_key_value_heads",
            json!(3),
            "divisor of num_attention_heads (4)",
        ),
        field("num_hidden_layers", json!(100_000_000), "found 100000000"),
        field("vocab_size", json!(1e300), "found 1e+300"),
        field("head_dim", json!(7), "even"),
        field("rms_norm_eps", json!([1]), "an array of 1"),
        field("hidden_act", json!("mish"), "\"mish\""),
        field(
            "architectures",
            json!(["RwkvForCausalLM"]),
            "RwkvForCausalLM",
        ),
        field("model_type", json!("qwen2"), "\"qwen2\""),
        changed(
            CONFIG,
            json!({"rope_parameters": {"rope_type": "spiral"}}),
            &["config.json", "rope_type", "spiral"],
        ),
        replaced(CONFIG, Vec::new(), &["config.json", "not valid JSON"]),
        cut(
            CONFIG,
            |n| n / 2,
            &["config.json", "is the download complete?"],
        ),
        replaced(CONFIG, b"[]".into(), &["config.json", "expected an object"]),
        replaced(
            CONFIG,
            b"{\"a\": 1, \"a\": 2}".into(),
            &["config.json", "`a` occurs twice"],
        ),
        replaced(
            CONFIG,
            b"\xff\xfe\x00".into(),
            &["config.json", "not valid JSON"],
        ),
        replaced(
            CONFIG,
            "[".repeat(1 << 20).into(),
            &["config.json", "recursion limit"],
        ),
        replaced(
            CONFIG,
            vec![b' '; (64 << 20) + 1],
            &["config.json", "67108864"],
        ),
        replaced(
            CONFIG,
            format!("[0{}]", ",0".repeat(5 << 20)).into(),
            &["config.json", "too many values"],
        ),
        // More than any machine holds, in numbers that are each allowed.
        changed(
            CONFIG,
            json!({
                "vocab_size": 1 << 24, "hidden_size": 1 << 20, "num_attention_heads": 64,
                "head_dim": 16384, "num_key_value_heads": 64,
            }),
            &["2^40 elements"],
        ),
        refusal("llama2_gqa", &["config.json", "expected a regular file"]).broken_by(|folder| {
            std::fs::remove_file(folder.join(CONFIG)).unwrap();
            std::os::unix::fs::symlink("/dev/zero", folder.join(CONFIG)).unwrap();
        }),
        refusal("llama2_gqa", &["no config.json"]).broken_by(|folder| {
            std::fs::remove_file(folder.join(CONFIG)).unwrap();
            std::os::unix::fs::symlink("config.json", folder.join(CONFIG)).unwrap();
        }),
        refusal("llama2_gqa", &["no config.json"])
            .broken_by(|folder| std::fs::remove_file(folder.join(CONFIG)).unwrap()),
        refusal("llama2_gqa", &["config.json", "found a directory"]).broken_by(|folder| {
            std::fs::remove_file(folder.join(CONFIG)).unwrap();
            std::fs::create_dir(folder.join(CONFIG)).unwrap();
        }),
        changed(
            "generation_config.json",
            json!({"temperature": -1}),
            &["generation_config.json", "temperature"],
        ),
        changed(
            "generation_config.json",
            json!({"eos_token_id": [2, 4_000_000_000u64]}),
            &["generation_config.json", "eos_token_id"],
        ),
    ]);
}

#[test]
fn weights() {
    let header = |change: Value, expected: &[&'static str]| {
        let all: Vec<&str> = ["model.safetensors"]
            .into_iter()
            .chain(expected.iter().copied())
            .collect();
        refusal("llama2_gqa", &all)
            .broken_by(move |folder| edit_header(&folder.join(WEIGHTS), change.clone()))
    };
    check_all(vec![
        replaced(WEIGHTS, Vec::new(), &["model.safetensors", "0 bytes"]),
        replaced(
            WEIGHTS,
            vec![0xff; 64],
            &["model.safetensors", "header length"],
        ),
        cut(WEIGHTS, |_| 4, &["model.safetensors", "4 bytes"]),
        cut(WEIGHTS, |_| 100, &["model.safetensors", "header"]),
        cut(
            WEIGHTS,
            |n| n - 1,
            &["model.safetensors", "is the download complete?"],
        ),
        cut(
            WEIGHTS,
            |n| n / 2,
            &["model.safetensors", "is the download complete?"],
        ),
        refusal("llama2_gqa", &["model.safetensors", "belong to no tensor"]).broken_by(|folder| {
            let mut bytes = std::fs::read(folder.join(WEIGHTS)).unwrap();
            bytes.extend([0; 4]);
            std::fs::write(folder.join(WEIGHTS), bytes).unwrap();
        }),
        header(json!({Q: {"shape": [24, 23]}}), &[Q, "[24, 23]"]),
        header(json!({Q: {"shape": [u64::MAX, 2]}}), &[Q, "overflows"]),
        header(json!({Q: {"dtype": "Q4_K"}}), &[Q, "Q4_K"]),
        header(
            json!({Q: {"data_offsets": [0, u64::MAX]}}),
            &[Q, "expected a range inside"],
        ),
        header(json!({Q: {"data_offsets": [8, 0]}}), &[Q, "found [8, 0]"]),
        header(json!({Q: null}), &["belong"]),
        replaced(
            WEIGHTS,
            [&2u64.to_le_bytes()[..], b"[]"].concat(),
            &["model.safetensors", "header"],
        ),
        refusal("llama2_gqa", &["model.safetensors", "`a` occurs twice"]).broken_by(|folder| {
            let one = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
            let header = format!("{{\"a\": {one}, \"a\": {one}}}");
            write_header(&folder.join(WEIGHTS), header.as_bytes(), &[0; 4]);
        }),
        refusal("llama2_gqa", &["no weights", "--random-weights"])
            .broken_by(|folder| std::fs::remove_file(folder.join(WEIGHTS)).unwrap()),
        refusal("llama2_gqa", &["pytorch_model.bin", "pickle"]).broken_by(|folder| {
            std::fs::rename(folder.join(WEIGHTS), folder.join("pytorch_model.bin")).unwrap();
        }),
        // A header of gigabytes, in a file that is as long and takes no space.
        refusal("llama2_gqa", &["model.safetensors", "header length"]).broken_by(|folder| {
            let path = folder.join(WEIGHTS);
            std::fs::write(&path, (1u64 << 30).to_le_bytes()).unwrap();
            std::fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(2 << 30)
                .unwrap();
        }),
        // A checkpoint of another model: all mismatches in one error.
        changed(
            CONFIG,
            json!({"num_key_value_heads": 1}),
            &[
                "k_proj.weight: found [24, 24], expected [12, 24]",
                "layers.1.self_attn.v_proj",
                "num_key_value_heads (1)",
            ],
        ),
        changed(
            CONFIG,
            json!({"num_hidden_layers": 3}),
            &["model.layers.2.input_layernorm.weight: missing"],
        ),
        changed(
            CONFIG,
            json!({"attention_bias": true}),
            &["q_proj.bias: missing"],
        ),
    ]);
}

#[test]
fn shards() {
    let map = |value: Value, expected: &[&'static str]| {
        let all: Vec<&str> = [INDEX]
            .into_iter()
            .chain(expected.iter().copied())
            .collect();
        refusal("llama2_bf16_sharded", &all).broken_by(move |folder| {
            edit(&folder.join(INDEX), json!({"weight_map": value.clone()}));
        })
    };
    check_all(vec![
        map(
            json!({"model.norm.weight": "../../etc/passwd"}),
            &["model.norm.weight", "expected the name of a file"],
        ),
        map(
            json!({"model.norm.weight": "/etc/passwd"}),
            &["model.norm.weight", "expected the name of a file"],
        ),
        map(
            json!({"model.norm.weight": 1}),
            &["model.norm.weight", "found 1"],
        ),
        map(
            json!({"model.norm.weight": "config.json"}),
            &["model.norm.weight", "a .safetensors file"],
        ),
        map(
            json!({"model.norm.weight": "gone.safetensors"}),
            &["shards are missing", "gone.safetensors"],
        ),
        map(Value::Null, &["weight_map", "missing"]),
        map(json!(3), &["weight_map", "found 3"]),
        refusal("llama2_bf16_sharded", &[INDEX, "shards are missing"]).broken_by(|folder| {
            std::fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
        }),
        refusal("llama2_bf16_sharded", &["model-00001-of-00002.safetensors"]).broken_by(|folder| {
            std::fs::write(folder.join("model-00001-of-00002.safetensors"), b"abc").unwrap();
        }),
    ]);
}

#[test]
fn tokenizers() {
    let tokenizer = |change: Value, expected: &[&'static str]| {
        let all: Vec<&str> = [TOKENIZER]
            .into_iter()
            .chain(expected.iter().copied())
            .collect();
        changed(TOKENIZER, change, &all)
    };
    check_all(vec![
        cut(
            TOKENIZER,
            |n| n / 2,
            &["tokenizer.json", "is the download complete?"],
        ),
        refusal("llama2_gqa", &["tokenizer.json", "268435456"]).broken_by(|folder| {
            let file = std::fs::File::create(folder.join(TOKENIZER)).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        tokenizer(json!({"model": null}), &["model", "missing"]),
        tokenizer(
            json!({"model": {"type": "WordLevel"}}),
            &["model.type", "WordLevel"],
        ),
        tokenizer(
            json!({"model": {"vocab": []}}),
            &["model.vocab", "an array of 0"],
        ),
        tokenizer(
            json!({"model": {"vocab": {"x": 4_294_967_295u64}}}),
            &["`x`", "4294967295"],
        ),
        tokenizer(
            json!({"model": {"vocab": {"x": 5}}}),
            &["another token has too"],
        ),
        tokenizer(json!({"model": {"merges": [["a"]]}}), &["model.merges[0]"]),
        tokenizer(
            json!({"pre_tokenizer": {"type": "Unheard"}}),
            &["not a usable tokenizer"],
        ),
        tokenizer(
            json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}),
            &["normalizer", "precompiled_charsmap: found 4 bytes"],
        ),
        tokenizer(
            json!({"added_tokens": [{"id": 0}]}),
            &["added_tokens[0].content"],
        ),
        changed(
            "tokenizer_config.json",
            json!({"chat_template": 1}),
            &["tokenizer_config.json", "chat_template"],
        ),
        changed(CONFIG, json!({"vocab_size": 100}), &["vocab_size (100)"]),
        refusal("llama2_gqa", &["chat_template.jinja", "UTF-8"]).broken_by(|folder| {
            std::fs::write(folder.join("chat_template.jinja"), b"\xff\xfe").unwrap()
        }),
        refusal(
            "llama2_gqa",
            &["tokenizer.model", "not a SentencePiece model"],
        )
        .broken_by(|folder| {
            std::fs::rename(folder.join(TOKENIZER), folder.join("tokenizer.model")).unwrap();
        }),
    ]);
}

#[test]
fn sentence_transformers() {
    let modules = |break_it: fn(&Path), expected: &[&'static str]| {
        refusal("bert_base", expected).broken_by(move |folder| {
            add_sentence_modules(folder, 24);
            break_it(folder);
        })
    };
    check_all(vec![
        modules(
            |f| std::fs::write(f.join("modules.json"), b"{}").unwrap(),
            &["modules.json", "expected an array"],
        ),
        modules(
            |f| {
                std::fs::write(
                    f.join("modules.json"),
                    br#"[{"type": "a.Dense", "path": ""}]"#,
                )
                .unwrap()
            },
            &["modules.json", "[0].type", "a.Dense"],
        ),
        modules(
            |f| {
                std::fs::write(
                    f.join("modules.json"),
                    br#"[{"type": "a.Pooling", "path": "../x"}]"#,
                )
                .unwrap()
            },
            &["modules.json", "[0].path", "../x"],
        ),
        modules(
            |f| std::fs::remove_dir_all(f.join("1_Pooling")).unwrap(),
            &["1_Pooling/config.json"],
        ),
        modules(
            |f| {
                edit(
                    &f.join("1_Pooling/config.json"),
                    json!({"word_embedding_dimension": 384}),
                )
            },
            &["word_embedding_dimension", "384"],
        ),
        modules(
            |f| {
                edit(
                    &f.join("1_Pooling/config.json"),
                    json!({"pooling_mode_cls_token": true}),
                )
            },
            &["1_Pooling/config.json", "pooling_mode_"],
        ),
        modules(
            |f| {
                edit(
                    &f.join("sentence_bert_config.json"),
                    json!({"max_seq_length": 0}),
                )
            },
            &["sentence_bert_config.json", "max_seq_length"],
        ),
    ]);
}

#[test]
fn command_lines() {
    let flags = |flags: &[&'static str], expected: &[&'static str]| {
        refusal("llama2_gqa", expected).with(flags)
    };
    check_all(vec![
        flags(&["--max-context", "0"], &["--max-context", "0"]),
        flags(&["--max-context", "193"], &["--max-context", "193", "192"]),
        flags(&["--max-context", "many"], &["--max-context", "many"]),
        flags(&["--quant", "q9"], &["--quant", "q9"]),
        flags(&["--kv", "q9"], &["--kv", "q9", "q8_0"]),
        flags(&["--kv", "q8_0"], &["kv", "q8_0", "whole blocks of 32"]),
        flags(
            &["--activations", "int8"],
            &["quantize-activations", "int8"],
        ),
        flags(
            &["--activations", "bf16", "--quant", "q8_0"],
            &["quantize-activations", "no product", "bf16"],
        ),
        flags(&["--activations", "f8"], &["--activations", "f8"]),
        flags(&["--emit", "wasm"], &["--emit", "wasm"]),
        flags(&["--target", "riscv64"], &["--target", "riscv64"]),
        flags(&["--target-cpu", "i386"], &["--target-cpu", "i386"]),
        flags(&["--random-weights", "x"], &["--random-weights", "x"]),
        flags(&["--print-after", "nonsense"], &["nonsense", "fuse-qkv"]),
        flags(&["--stop-after", "nonsense"], &["nonsense", "fuse-qkv"]),
        flags(&["--weights", "/nowhere"], &["/nowhere"]),
        flags(&["--weights", "/dev/null"], &["/dev/null"]),
        flags(&["--tokenizer", "/nowhere"], &["/nowhere"]),
        flags(&["--nonsense"], &["--nonsense"]),
        flags(&["--verbose", "--quiet"], &["--quiet"]),
        refusal("", &["gone", "No such file"]).of("gone"),
        refusal("", &["hf:org/name"]).of("hf:org/name"),
        refusal("", &["/dev/null"]).of("/dev/null"),
        refusal("", &["model.gguf", "version"]).of("model.gguf"),
        refusal("", &["model.bin", "pickle"]).of("model.bin"),
        refusal("", &["model.txt", "expected a Hugging Face directory"]).of("model.txt"),
        refusal("", &["model.safetensors", "without a configuration"]).of("model.safetensors"),
    ]);
}
