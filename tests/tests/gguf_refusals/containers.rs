//! Counts, lengths, keys, and what is said of tensors.

use super::*;

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
