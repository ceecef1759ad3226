//! Hostile and broken GGUF files through `llmc compile`: each gives one error that names the file and what is wrong
//! in it, exit code 2, no file, within bounded time and memory.
//!
//! Among them is the shape of every published vulnerability of GGUF readers: counts and lengths that wrap when they
//! are multiplied or added to, arrays that nest, shapes whose product overflows, types out of range, an alignment of
//! zero, rows that are no whole blocks, offsets that point elsewhere.

mod refused;

use std::path::Path;

use llmc_tests::{
    binaries,
    gguf::{Gguf, Tensor, Value},
};
use refused::{Refusal, check_all, refusal};

const F16: (u32, u64, u64) = (1, 1, 2);
const F32: (u32, u64, u64) = (0, 1, 4);
const FILE: &str = "x.gguf";
/// Where the numbers of tensors and of keys stand.
const TENSORS: usize = 8;
const KEYS: usize = 16;

/// A tiny model with something wrong.
fn broken(
    arch: &'static str,
    change: impl Fn(&mut Gguf) + Send + Sync + 'static,
    expected: &[&str],
) -> Refusal {
    let all: Vec<&str> = [FILE].iter().chain(expected).copied().collect();
    let refusal = refusal("", &all).broken_by(move |folder| {
        let mut gguf = Gguf::tiny(arch, F16);
        change(&mut gguf);
        gguf.write(&folder.join(FILE));
    });
    refusal.of(FILE)
}

/// A tiny Llama with other bytes; `change` is told where the header ends.
fn bytes(
    change: impl Fn(usize, &mut Vec<u8>) + Send + Sync + 'static,
    expected: &[&str],
) -> Refusal {
    let all: Vec<&str> = [FILE].iter().chain(expected).copied().collect();
    let refusal = refusal("", &all).broken_by(move |folder| {
        let (header, mut bytes) = Gguf::tiny("llama", F16).bytes();
        change(header, &mut bytes);
        std::fs::write(folder.join(FILE), bytes).unwrap();
    });
    refusal.of(FILE)
}

fn put(bytes: &mut [u8], at: usize, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A tiny Llama with one more key of any value.
fn value(ty: u32, value: Vec<u8>, expected: &[&str]) -> Refusal {
    let change = move |gguf: &mut Gguf| {
        gguf.keys
            .insert(0, (b"general.x".into(), Value::Raw(ty, value.clone())));
    };
    broken("llama", change, expected)
}

fn array(of: u32, count: u64, rest: &[u8]) -> Vec<u8> {
    [&of.to_le_bytes()[..], &count.to_le_bytes(), rest].concat()
}

/// A tiny Llama one of whose keys has another value.
fn key(key: &'static str, value: impl Into<Value>, found: &'static str) -> Refusal {
    let value = value.into();
    broken(
        "llama",
        move |gguf| gguf.set(key, value.clone()),
        &[key, found],
    )
}

/// The same, where the error names another key or a tensor.
fn changed(key: &'static str, value: Value, expected: &[&str]) -> Refusal {
    broken("llama", move |gguf| gguf.set(key, value.clone()), expected)
}

/// A tiny Llama one of whose tensors is described otherwise.
fn tensor(change: impl Fn(&mut Tensor) + Send + Sync + 'static, expected: &[&str]) -> Refusal {
    const NAME: &str = "blk.0.ffn_up.weight";
    broken("llama", move |gguf| change(gguf.tensor(NAME)), expected)
}

#[test]
fn whole_tiny_models_compile() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = (8, 32, 34);
    for (arch, ty) in [
        ("bert", F32),
        ("gemma3", F32),
        ("llama", F32),
        ("qwen2", F32),
        ("t5", F32),
        ("t5", blocks),
    ] {
        let path = folder.path().join(format!("{arch}.gguf"));
        Gguf::tiny(arch, ty).write(&path);
        binaries::compile(&path, &["--target-cpu", "x86-64-v3"]);
    }
}

#[test]
fn containers() {
    check_all(vec![
        bytes(
            |_, b| b.clear(),
            &["magic: found 0 bytes", "is the download complete?"],
        ),
        bytes(|_, b| b.truncate(3), &["magic: found 3 bytes"]),
        bytes(
            |_, b| put(b, 0, b"GGXX"),
            &["magic: found \"GGXX\", expected \"GGUF\""],
        ),
        bytes(
            |_, b| put(b, 0, b"tjgg"),
            &["a GGML file of a format before GGUF"],
        ),
        bytes(|_, b| b.truncate(6), &["version: found 2 bytes"]),
        bytes(
            |_, b| put(b, 4, 0u32.to_le_bytes()),
            &["version: found 0, expected 2 or 3"],
        ),
        bytes(|_, b| put(b, 4, 1u32.to_le_bytes()), &["GGUF version 1"]),
        bytes(|_, b| put(b, 4, 4u32.to_le_bytes()), &["version: found 4"]),
        bytes(
            |_, b| put(b, 4, u32::MAX.to_le_bytes()),
            &["version: found 4294967295"],
        ),
        bytes(
            |_, b| put(b, 4, 3u32.to_be_bytes()),
            &["a big-endian GGUF file"],
        ),
        bytes(
            |_, b| b.truncate(20),
            &["the number of keys: found 4 bytes"],
        ),
        bytes(
            |_, b| put(b, TENSORS, u64::MAX.to_le_bytes()),
            &["the number of tensors: found 18446744073709551615"],
        ),
        bytes(
            |_, b| put(b, TENSORS, (1u64 << 32).to_le_bytes()),
            &["the number of tensors: found 4294967296"],
        ),
        // × the size of a description wraps to something small.
        bytes(
            |_, b| put(b, TENSORS, ((1u64 << 63) / 25 * 2 + 1).to_le_bytes()),
            &["the number of tensors"],
        ),
        bytes(
            |_, b| put(b, KEYS, u64::MAX.to_le_bytes()),
            &["the number of keys: found 18446744073709551615"],
        ),
        bytes(
            |_, b| put(b, KEYS, (1u64 << 61).to_le_bytes()),
            &["the number of keys: found 2305843009213693952"],
        ),
        bytes(
            |_, b| put(b, KEYS, 60_000u64.to_le_bytes()),
            &["the number of keys: found 60000"],
        ),
        broken(
            "llama",
            |g| g.key_count = Some(g.keys.len() as u64 + 1),
            &["the name of tensor 0: found"],
        ),
        broken(
            "llama",
            |g| g.key_count = Some(g.keys.len() as u64 - 1),
            &["dimensions, expected at most 4"],
        ),
        broken(
            "llama",
            |g| g.tensor_count = Some(g.tensors.len() as u64 + 1),
            &["the name of tensor"],
        ),
        bytes(
            |header, b| b.truncate(header / 2),
            &["is the download complete?"],
        ),
        bytes(
            |header, b| b.truncate(header - 3),
            &["is the download complete?"],
        ),
        bytes(
            |header, b| b.truncate(header),
            &["`token_embd.weight`: offset", "is the download complete?"],
        ),
        bytes(
            |_, b| b.truncate(b.len() - 1),
            &["`output_norm.weight`: offset", "is the download complete?"],
        ),
        refusal("", &[FILE, "neither a directory nor a file"])
            .of(FILE)
            .broken_by(|folder| {
                std::os::unix::fs::symlink("/dev/zero", folder.join(FILE)).unwrap();
            }),
    ]);
}

#[test]
fn keys_and_values() {
    let raw_key = |name: Vec<u8>, expected: &[&'static str]| {
        broken(
            "llama",
            move |g| g.keys.insert(0, (name.clone(), Value::U8(0))),
            expected,
        )
    };
    check_all(vec![
        bytes(
            |_, b| put(b, 24, u64::MAX.to_le_bytes()),
            &["key 0: found 18446744073709551615 bytes, expected 1 to"],
        ),
        // Added to a position it wraps to one before.
        bytes(
            |_, b| put(b, 24, (u64::MAX - 15).to_le_bytes()),
            &["key 0: found 18446744073709551600 bytes"],
        ),
        bytes(
            |_, b| put(b, 24, 60_000u64.to_le_bytes()),
            &["key 0: found "],
        ),
        raw_key(Vec::new(), &["key 0: found 0 bytes"]),
        raw_key(vec![b'k'; 70_000], &["key 0: found 70000 bytes"]),
        raw_key(vec![b'k', 0xff], &["key 0", "is not valid UTF-8"]),
        raw_key(
            b"llama.block_count".into(),
            &["`llama.block_count`: occurs twice"],
        ),
        // What a terminal would obey is spelled out.
        broken(
            "llama",
            |g| {
                let key = b"a\x1b[31m\nb".repeat(100);
                g.keys
                    .extend([(key.clone(), Value::U8(0)), (key, Value::U8(0))]);
            },
            &["`a\\u{1b}[31m\\nb", "occurs twice"],
        ),
        value(13, Vec::new(), &["`general.x`: value type: found 13"]),
        value(
            u32::MAX,
            Vec::new(),
            &["`general.x`: value type: found 4294967295"],
        ),
        value(
            8,
            u64::MAX.to_le_bytes().into(),
            &["the value of `general.x`: found"],
        ),
        value(
            8,
            (u64::MAX - 40).to_le_bytes().into(),
            &["expected 18446744073709551575"],
        ),
        value(
            8,
            (1u64 << 40).to_le_bytes().into(),
            &["the value of `general.x`: found"],
        ),
        value(7, vec![2], &["`general.x`: a bool: found 2"]),
        value(
            9,
            array(13, 1, &[0]),
            &["`general.x`: type of the array's elements: found 13"],
        ),
        value(
            9,
            array(9, 1, &array(0, 1, &[0])),
            &["`general.x`: an array of arrays"],
        ),
        // As deep as a file allows.
        value(
            9,
            array(9, 1, &[]).repeat(100_000),
            &["`general.x`: an array of arrays"],
        ),
        value(
            9,
            array(9, u64::MAX, &[]),
            &["`general.x`: an array of arrays"],
        ),
        value(
            9,
            array(0, u64::MAX, &[]),
            &["`general.x`: an array of 18446744073709551615 u8"],
        ),
        // × 4, × 8 and + 8 wrap.
        value(
            9,
            array(4, 1 << 62, &[]),
            &["`general.x`: an array of 4611686018427387904 u32"],
        ),
        value(
            9,
            array(10, 1 << 61, &[]),
            &["`general.x`: an array of 2305843009213693952 u64"],
        ),
        value(
            9,
            array(8, 1 << 61, &[]),
            &["`general.x`: an array of 2305843009213693952 string"],
        ),
        value(
            9,
            array(8, 1 << 20, &[]),
            &["`general.x`: an array of 1048576 string"],
        ),
        value(
            9,
            array(8, 2, &u64::MAX.to_le_bytes()),
            &["the value of `general.x`: found"],
        ),
        key("general.alignment", Value::U32(0), "found 0"),
        key(
            "general.alignment",
            Value::U32(3),
            "found 3, expected a power of two",
        ),
        key("general.alignment", Value::U32(1 << 31), "found 2147483648"),
        key("general.alignment", "32", "found \"32\""),
        key("general.alignment", Value::I32(-32), "found -32"),
        changed("general.alignment", Value::U32(64), &["offset: found"]),
        key("general.type", "adapter", "found \"adapter\""),
    ]);
}

#[test]
fn tensors() {
    check_all(vec![
        tensor(
            |t| t.dims = vec![32, 64, 1, 1, 1],
            &["`blk.0.ffn_up.weight`: found 5 dimensions"],
        ),
        tensor(
            |t| t.dims = vec![1; 1000],
            &["found 1000 dimensions, expected at most 4"],
        ),
        tensor(
            |t| t.dims = vec![1 << 32, 1 << 32],
            &["shape: found [4294967296, 4294967296]"],
        ),
        tensor(
            |t| t.dims = vec![1 << 22, 1 << 22, 1 << 20, 1],
            &["shape: found", "2^40 elements"],
        ),
        tensor(
            |t| t.dims = vec![32, u64::MAX],
            &["shape: found [18446744073709551615, 32]"],
        ),
        tensor(
            |t| t.dims = vec![1 << 63, 2],
            &["shape: found [2, 9223372036854775808]"],
        ),
        tensor(|t| t.dims = vec![32, 0], &["shape: found [0, 32]"]),
        tensor(
            |t| t.dims = vec![0, u64::MAX],
            &["shape: found [18446744073709551615, 0]"],
        ),
        tensor(
            |t| t.dims = vec![32, 1 << 30],
            &["offset: found", "is the download complete?"],
        ),
        tensor(
            |t| t.dims = vec![32, 63],
            &["(model.layers.0.mlp.up_proj.weight): found [63, 32], expected [64, 32]"],
        ),
        tensor(
            |t| t.dims = vec![2048],
            &["found [2048], expected [64, 32]", "from x.gguf"],
        ),
        tensor(|t| t.ty = 4, &["type q4_2 (4), which GGUF has no longer"]),
        tensor(
            |t| t.ty = 31,
            &["type q4_0_4_4 (31), which GGUF has no longer"],
        ),
        tensor(|t| t.ty = 200, &["type 200, which is none of GGUF's"]),
        tensor(|t| t.ty = u32::MAX, &["type 4294967295"]),
        tensor(
            |t| (t.ty, t.dims) = (12, vec![32, 64]),
            &["rows of a multiple of 256 elements for q4_k"],
        ),
        tensor(
            |t| (t.ty, t.dims) = (8, vec![33, 64]),
            &["rows of a multiple of 32 elements for q8_0"],
        ),
        tensor(
            |t| (t.ty, t.dims) = (8, vec![]),
            &["rows of a multiple of 32 elements for q8_0"],
        ),
        tensor(
            |t| (t.ty, t.dims) = (20, vec![32, 64]),
            &["found type iq4_nl, supported are f32, f16, bf16, mxfp4, q2_k"],
        ),
        tensor(
            |t| (t.ty, t.dims) = (26, vec![32, 16]),
            &["blk.0.ffn_up.weight"],
        ),
        tensor(
            |t| t.name = vec![b'n'; 256],
            &["the name of tensor", "found 256 bytes"],
        ),
        tensor(
            |t| t.name = Vec::new(),
            &["the name of tensor", "found 0 bytes"],
        ),
        tensor(|t| t.name = vec![0xc0, 0x80], &["is not valid UTF-8"]),
        tensor(
            |t| t.name = b"blk.0.ffn_down.weight".into(),
            &["`blk.0.ffn_down.weight`: occurs twice"],
        ),
        tensor(
            |t| t.name = b"blk.0.ffn_gate_shexp.weight".into(),
            &["`blk.0.ffn_gate_shexp.weight`: a tensor that the architecture llama does not have"],
        ),
        tensor(
            |t| t.name = b"blk.00.ffn_up.weight".into(),
            &["`blk.00.ffn_up.weight`: a tensor"],
        ),
        tensor(
            |t| t.name = b"blk.4294967296.ffn_up.weight".into(),
            &["`blk.4294967296.ffn_up.weight`"],
        ),
        tensor(
            |t| t.name = b"blk.1.ffn_up.weight".into(),
            &["blk.0.ffn_up.weight (model.layers.0.mlp.up_proj.weight): missing"],
        ),
        tensor(
            |t| t.name = b"blk.0.ffn_up.scale".into(),
            &["`blk.0.ffn_up.scale`"],
        ),
        tensor(
            |t| t.offset = Some(7),
            &["offset: found 7, expected a multiple of general.alignment (32)"],
        ),
        tensor(
            |t| t.offset = Some(1 << 40),
            &["offset: found 1099511627776"],
        ),
        tensor(
            |t| t.offset = Some(u64::MAX - 31),
            &["offset: found 18446744073709551584"],
        ),
        tensor(|t| t.offset = Some(0), &["overlaps tensor"]),
        tensor(|t| t.offset = Some(32), &["overlaps tensor"]),
        broken(
            "llama",
            |g| g.tensors.clear(),
            &["`token_embd.weight`: missing"],
        ),
        broken(
            "llama",
            |g| g.tensor("token_embd.weight").dims = vec![320],
            &["`token_embd.weight`"],
        ),
        broken(
            "llama",
            |g| g.add("blk.1.attn_norm.weight", &[32], 0, vec![0; 128]),
            &["`blk.1.attn_norm.weight`: a tensor that family `llama` does not use"],
        ),
        broken(
            "llama",
            |g| g.add("blk.0.attn_q.bias", &[32], 0, vec![0; 128]),
            &["blk.0.attn_k.bias", "missing"],
        ),
        broken(
            "llama",
            |g| g.tensor("blk.0.attn_q.weight").dims = vec![32, 31],
            &["`blk.0.attn_q.weight`: shape: found 31 rows, expected pairs"],
        ),
        broken(
            "llama",
            |g| g.add("rope_freqs.weight", &[8], 0, vec![0; 32]),
            &["`rope_freqs.weight`: found the factor 0"],
        ),
        broken(
            "llama",
            |g| {
                let factors = (0..8)
                    .flat_map(|i| (1.0 + i as f32).to_le_bytes())
                    .collect();
                g.add("rope_freqs.weight", &[8], 0, factors);
            },
            &["`rope_freqs.weight`: factors that are not those of a llama3 scaling"],
        ),
        broken(
            "llama",
            |g| g.add("rope_freqs.weight", &[8, 2], 0, vec![0; 64]),
            &["`rope_freqs.weight`: shape"],
        ),
        broken(
            "gemma3",
            |g| {
                g.tensors
                    .retain(|t| t.name != b"blk.0.post_ffw_norm.weight");
            },
            &["blk.0.post_ffw_norm.weight"],
        ),
    ]);
}

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

/// Writes the last part of three anew, with some of the model's tensors.
fn last_part(folder: &Path, choose: impl Fn(&mut Vec<Tensor>)) {
    let mut part = Gguf::tiny("llama", F16);
    part.keys.clear();
    part.set("split.no", Value::U16(2));
    part.set("split.count", Value::U16(3));
    choose(&mut part.tensors);
    part.write(&folder.join("m-00003-of-00003.gguf"));
}

#[test]
fn parts() {
    let parts = |change: fn(&Path), expected: &[&str]| {
        let refusal = refusal("", expected).broken_by(move |folder| {
            Gguf::tiny("llama", F16).write_parts(folder, "m", 3);
            change(folder);
        });
        refusal.of("m-00002-of-00003.gguf")
    };
    let count = |count: Value, found: &'static str| key("split.count", count, found);
    check_all(vec![
        count(
            Value::U16(3),
            "expected a file name that ends in -00001-of-00003.gguf",
        ),
        count(Value::U16(u16::MAX), "found 65535"),
        count(Value::I32(-1), "found -1"),
        parts(
            |folder| std::fs::remove_file(folder.join("m-00003-of-00003.gguf")).unwrap(),
            &[
                "split.count",
                "parts of the model are missing",
                "m-00003-of-00003.gguf",
            ],
        ),
        parts(
            |folder| {
                let from = folder.join("m-00002-of-00003.gguf");
                std::fs::copy(from, folder.join("m-00003-of-00003.gguf")).unwrap();
            },
            &["m-00003-of-00003.gguf", "split.no", "found 1, expected 2"],
        ),
        parts(
            |folder| Gguf::tiny("llama", F16).write(&folder.join("m-00003-of-00003.gguf")),
            &["m-00003-of-00003.gguf", "split.no", "missing, expected 2"],
        ),
        parts(
            |folder| last_part(folder, |tensors| tensors.truncate(1)),
            &[
                "m-00001-of-00003.gguf",
                "split.tensors.count",
                "found 11, expected",
            ],
        ),
        parts(
            |folder| last_part(folder, |tensors| drop(tensors.drain(5..))),
            &[
                "m-00003-of-00003.gguf",
                "`token_embd.weight`: is in",
                "m-00002-of-00003.gguf too",
            ],
        ),
        parts(
            |folder| std::fs::write(folder.join("m-00001-of-00003.gguf"), b"GGUF").unwrap(),
            &["m-00001-of-00003.gguf", "version: found 0 bytes"],
        ),
    ]);
}
