//! Vocabularies, merges and templates.

use super::*;

#[test]
fn tokenizers() {
    const PRE: &str = "tokenizer.ggml.pre";
    const MERGES: &str = "tokenizer.ggml.merges";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let texts = |texts: &[&str]| Value::Texts(texts.iter().map(|t| t.to_string()).collect());
    let qwen = |key: &'static str, value: Value, found: &'static str| {
        broken("qwen2", move |g| g.set(key, value.clone()), &[key, found])
    };
    let eleven: Vec<String> = (0..11).map(|i| format!("t{i}")).collect();
    let bad_text = array(8, 1, &[&1u64.to_le_bytes()[..], &[0xff]].concat());
    check_all(vec![
        key(
            "tokenizer.ggml.model",
            "rwkv",
            "found \"rwkv\", supported is \"bert\", \"gpt2\", \"llama\" or \"t5\"",
        ),
        key("tokenizer.ggml.model", Value::U32(1), "found 1"),
        key(
            "tokenizer.ggml.nonsense",
            Value::U32(1),
            "a key of the tokenizer that is not understood",
        ),
        key(
            "tokenizer.ggml.precompiled_charsmap",
            Value::U32(1),
            "found 1, supported is none beside pieces of the model t5",
        ),
        broken(
            "llama",
            |g| g.remove("tokenizer.ggml.tokens"),
            &[TOKENS, "missing"],
        ),
        key(TOKENS, Value::I32s(vec![1]), "an array of 1 i32"),
        key(TOKENS, Value::Raw(9, bad_text), "is not valid UTF-8"),
        key(
            TOKENS,
            Value::Texts(vec!["x".repeat(2000); 10]),
            "found 2000 bytes",
        ),
        broken(
            "llama",
            move |g| {
                g.set(TOKENS, Value::Texts(eleven.clone()));
                g.set("tokenizer.ggml.token_type", Value::I32s(vec![1; 11]));
                g.set("tokenizer.ggml.scores", Value::F32s(vec![0.0; 11]));
            },
            &[TOKENS, "at most 10, the model's rows"],
        ),
        key(
            "tokenizer.ggml.scores",
            Value::F32s(vec![0.0; 9]),
            "one for each of 10 tokens",
        ),
        key(
            "tokenizer.ggml.scores",
            Value::F32s(vec![f32::NAN; 10]),
            "found NaN",
        ),
        broken(
            "llama",
            |g| g.remove("tokenizer.ggml.scores"),
            &["tokenizer.ggml.scores", "missing"],
        ),
        key(
            "tokenizer.ggml.token_type",
            Value::I32s(vec![1; 11]),
            "one for each of 10 tokens",
        ),
        key(
            "tokenizer.ggml.token_type",
            Value::I32s(vec![9; 10]),
            "found 9, expected 1 to 6",
        ),
        key(
            "tokenizer.ggml.token_type",
            Value::I32s(vec![-1; 10]),
            "expected an integer from 0",
        ),
        key(
            TOKENS,
            texts(&["a", "a", "b", "c", "d", "e", "f", "g", "h", "i"]),
            "which is token 0 too",
        ),
        key(
            TOKENS,
            texts(&["", "a", "b", "c", "d", "e", "f", "g", "h", "i"]),
            "found an empty token",
        ),
        key(
            "tokenizer.ggml.bos_token_id",
            Value::U32(10),
            "found 10, expected an integer from 0 to 9",
        ),
        key("tokenizer.ggml.eos_token_id", Value::I32(-1), "found -1"),
        broken(
            "llama",
            |g| g.remove("tokenizer.ggml.bos_token_id"),
            &["tokenizer.ggml.bos_token_id", "missing"],
        ),
        key(
            "tokenizer.ggml.add_bos_token",
            Value::U32(1),
            "found 1, expected true or false",
        ),
        key(
            "tokenizer.ggml.remove_extra_whitespaces",
            Value::Bool(true),
            "found true",
        ),
        key(
            "tokenizer.chat_template",
            Value::Text("x".repeat(2 << 20)),
            "a template of 2097152 bytes",
        ),
        changed(
            "tokenizer.chat_templates",
            texts(&["rag"]),
            &["`tokenizer.chat_template.rag`: missing"],
        ),
        qwen(
            PRE,
            "gpt-5".into(),
            "found \"gpt-5\", supported is default, gpt-2",
        ),
        broken(
            "qwen2",
            |g| g.remove("tokenizer.ggml.pre"),
            &[PRE, "missing", "--tokenizer"],
        ),
        broken(
            "qwen2",
            |g| g.remove("tokenizer.ggml.merges"),
            &[MERGES, "missing"],
        ),
        qwen(MERGES, texts(&["ab"]), "found \"ab\", expected two tokens"),
        qwen(
            MERGES,
            texts(&["a q"]),
            "found \"a q\", expected two tokens",
        ),
        qwen(MERGES, texts(&[""]), "found \"\", expected two tokens"),
        broken(
            "bert",
            |g| {
                g.remove("tokenizer.ggml.unknown_token_id");
                g.set(
                    TOKENS,
                    Value::Texts((0..8).map(|i| format!("▁t{i}")).collect()),
                );
            },
            &["tokenizer.ggml.unknown_token_id", "missing"],
        ),
    ]);
}
