//! Keys of architectures.

use super::*;

#[test]
fn hyperparameters() {
    let without = |key: &'static str| broken("llama", move |g| g.remove(key), &[key, "missing"]);
    let gemma = |key: &'static str, value: Value, found: &'static str| {
        broken("gemma3", move |g| g.set(key, value.clone()), &[key, found])
    };
    check_all(vec![
        without("general.architecture"),
        without("llama.block_count"),
        without("llama.embedding_length"),
        without("llama.context_length"),
        without("llama.attention.layer_norm_rms_epsilon"),
        key(
            "general.architecture",
            "rwkv",
            "found \"rwkv\", supported are bert, bloom, falcon, gemma2, gemma3, gpt2, gpt-oss, llama, phi3",
        ),
        key(
            "general.architecture",
            Value::U32(1),
            "found 1, expected a text",
        ),
        key("llama.block_count", Value::U32(0), "found 0"),
        key(
            "llama.block_count",
            Value::U32(u32::MAX),
            "found 4294967295",
        ),
        changed(
            "llama.block_count",
            Value::U32(2),
            &["blk.1.attn_q.weight (model.layers.1.self_attn.q_proj.weight): missing"],
        ),
        key("llama.block_count", "1", "found \"1\""),
        key("llama.block_count", Value::F32(1.0), "found 1"),
        key("llama.embedding_length", Value::U32(0), "found 0"),
        changed(
            "llama.embedding_length",
            Value::U32(64),
            &["token_embd.weight", "found [10, 32], expected [10, 64]"],
        ),
        key(
            "llama.embedding_length",
            Value::U64(1 << 40),
            "found 1099511627776",
        ),
        key("llama.context_length", Value::U32(0), "found 0"),
        key("llama.context_length", Value::I32(-1), "found -1"),
        key("llama.attention.head_count", Value::U32(0), "found 0"),
        key("llama.attention.head_count", Value::U32(3), "found 3"),
        key("llama.attention.head_count_kv", Value::U32(0), "found 0"),
        key(
            "llama.attention.head_count_kv",
            Value::U32(5),
            "divisor of llama.attention.head_count (2)",
        ),
        key(
            "llama.attention.head_count_kv",
            Value::I32s(vec![1, 2]),
            "the same value for every layer",
        ),
        key(
            "llama.attention.head_count_kv",
            Value::I32s(vec![1; 5000]),
            "an array of 5000 i32",
        ),
        key(
            "llama.attention.key_length",
            Value::U32(7),
            "rotates 7 of 7 dimensions",
        ),
        key(
            "llama.attention.value_length",
            Value::U32(8),
            "found 8, supported is the dimension of a head (16)",
        ),
        key(
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            "found \"NaN\"",
        ),
        key(
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(-1.0),
            "found -1",
        ),
        key(
            "llama.attention.causal",
            Value::Bool(false),
            "found false, supported is true",
        ),
        key(
            "llama.rope.dimension_count",
            Value::U32(8),
            "found 8, supported is the dimension of a head (16)",
        ),
        key("llama.rope.freq_base", Value::F32(-1.0), "found -1"),
        key(
            "llama.rope.freq_base",
            Value::F32(f32::INFINITY),
            "found \"inf\"",
        ),
        key("llama.rope.scaling.type", "longrope", "found \"longrope\""),
        key("llama.rope.scaling.factor", Value::F32(0.0), "found 0"),
        key(
            "llama.rope.scaling.attn_factor",
            Value::F32(2.0),
            "found 2, supported is 1",
        ),
        broken(
            "llama",
            |g| g.set("llama.expert_count", Value::U32(8)),
            &["llama.expert_used_count", "expected a number"],
        ),
        broken(
            "qwen2",
            |g| g.set("qwen2.expert_count", Value::U32(8)),
            &["qwen2.expert_count", "found 8, supported is 0"],
        ),
        key(
            "llama.pooling_type",
            Value::U32(3),
            "found 3, supported is 0",
        ),
        key(
            "llama.logit_scale",
            Value::F32(0.5),
            "a key that is not understood for the architecture llama",
        ),
        key("llama.vocab_size", Value::U32(11), "found 11, expected 10"),
        key("llama.attention.sliding_window", "8", "found \"8\""),
        gemma("gemma3.attention.sliding_window", Value::U32(0), "found 0"),
        gemma(
            "gemma3.attention.sliding_window_pattern",
            Value::U32(0),
            "found 0",
        ),
        gemma(
            "gemma3.attention.sliding_window_pattern",
            Value::Bools(vec![true, false]),
            "found 2 layers",
        ),
        gemma(
            "gemma3.attention.sliding_window_pattern",
            Value::I32s(vec![1]),
            "true or false for every layer",
        ),
        gemma(
            "gemma3.attention.sliding_window_pattern",
            Value::Raw(9, array(7, 1, &[5])),
            "a bool: found 5",
        ),
        gemma(
            "gemma3.attention.scale",
            Value::F32(1.0),
            "a key that is not understood",
        ),
        broken(
            "bert",
            |g| g.set("bert.pooling_type", Value::U32(4)),
            &[
                "bert.pooling_type",
                "found 4, supported is 0 (none), 1 (mean)",
            ],
        ),
        broken(
            "bert",
            |g| g.set("bert.attention.causal", Value::Bool(true)),
            &["bert.attention.causal", "found true"],
        ),
        broken(
            "qwen2",
            |g| g.set("qwen2.attention.sliding_window", Value::U32(4)),
            &["qwen2.attention.sliding_window", "found 4"],
        ),
    ]);
}

#[test]
fn t5() {
    const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
    const SCORES: &str = "tokenizer.ggml.scores";
    let key = |key: &'static str, value: Value, found: &'static str| {
        broken("t5", move |g| g.set(key, value.clone()), &[key, found])
    };
    let without = |key: &'static str| broken("t5", move |g| g.remove(key), &[key, "missing"]);
    let renamed = |from: &'static str, to: &'static str, expected: &[&str]| {
        broken("t5", move |g| g.tensor(from).name = to.into(), expected)
    };
    // UMT5 has a table of its own in every layer.
    let own_table = |g: &mut Gguf| {
        let table = g.tensor("enc.blk.0.attn_rel_b.weight").clone();
        g.tensors.push(Tensor {
            name: b"enc.blk.1.attn_rel_b.weight".into(),
            ..table
        });
    };
    check_all(vec![
        without("t5.attention.relative_buckets_count"),
        without("t5.attention.layer_norm_rms_epsilon"),
        key(
            "t5.attention.relative_buckets_count",
            Value::U32(2),
            "found 2",
        ),
        key(
            "t5.attention.value_length",
            Value::U32(8),
            "the dimension of a head (16)",
        ),
        key(
            "t5.attention.scale",
            Value::F32(1.0),
            "a key that is not understood",
        ),
        key("t5.pooling_type", Value::U32(1), "found 1, supported is 0"),
        key("t5.decoder_block_count", Value::U32(0), "found 0"),
        key(
            "t5.decoder_start_token_id",
            Value::U32(8),
            "an integer from 0 to 7",
        ),
        broken(
            "t5",
            own_table,
            &["enc.blk.1.attn_rel_b.weight", "does not use"],
        ),
        renamed(
            "dec.blk.0.ffn_up.weight",
            "dec.blk.0.ffn_upper.weight",
            &["dec.blk.0.ffn_upper.weight"],
        ),
        renamed(
            "dec.blk.0.ffn_up.weight",
            "dec.blk.00.ffn_up.weight",
            &["dec.blk.00.ffn_up.weight"],
        ),
        broken(
            "t5",
            |g| {
                g.tensors
                    .retain(|t| t.name != b"dec.blk.0.cross_attn_q.weight")
            },
            &["dec.blk.0.cross_attn_q.weight", "missing"],
        ),
        broken(
            "t5",
            |g| g.tensors.retain(|t| t.name != b"enc.blk.0.ffn_gate.weight"),
            &["enc.blk.0.ffn_up.weight"],
        ),
        without(SCORES),
        key(
            SCORES,
            Value::F32s(vec![f32::NEG_INFINITY; 8]),
            "found -inf, expected a finite number",
        ),
        key(CHARSMAP, Value::I32s(vec![1]), "bytes"),
        key(
            CHARSMAP,
            Value::Raw(9, array(0, 3, &[1, 2, 3])),
            "found 3 bytes",
        ),
        without("tokenizer.ggml.eos_token_id"),
        broken(
            "t5",
            |g| {
                g.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
                g.set("tokenizer.ggml.bos_token_id", Value::U32(0));
            },
            &["tokenizer.ggml.add_bos_token", "found true"],
        ),
        broken(
            "t5",
            |g| {
                g.set("tokenizer.ggml.remove_extra_whitespaces", Value::Bool(true));
                g.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
            },
            &[
                "tokenizer.ggml.add_space_prefix",
                "where extra whitespaces are removed",
            ],
        ),
        broken(
            "t5",
            |g| g.set("tokenizer.ggml.token_type", Value::I32s(vec![1; 8])),
            &["tokenizer.ggml.unknown_token_id", "missing"],
        ),
    ]);
}
