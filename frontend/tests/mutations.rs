//! Random damage: no input panics, hangs, or is accepted with a module that does not verify.
//!
//! Seeded and bounded; a failure names the file and the seed.

mod common;
#[allow(dead_code, unused_imports)]
#[path = "../../tests/src/gguf/mod.rs"]
mod gguf;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{add_sentence_modules, copy_of};
use llmc_frontend::tokenizer::Tokenizer;
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};

/// A small generator (xorshift), so that a seed means the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Texts that parsers stumble over.
const TOKENS: [&str; 24] = [
    "0",
    "-1",
    "1e308",
    "4294967295",
    "18446744073709551616",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"../x\"",
    "0.5",
    "1",
    "2",
    "3",
    "65536",
    "16777216",
    "[[[[",
    "}}",
    ",",
    ":",
    "\\u0000",
    "\u{feff}",
    "9007199254740993",
];

/// Damages at most the first `limit` bytes.
fn mutate(bytes: &mut Vec<u8>, limit: usize, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let limit = limit.min(bytes.len());
        let at = random.below(limit);
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let end = (at + random.below(16)).min(limit);
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + random.below(64)).min(limit);
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            // A number, or a string, becomes another value.
            _ => {
                let is_digit = |b: &u8| b.is_ascii_digit();
                let Some(start) = bytes[at..limit].iter().position(is_digit).map(|i| at + i) else {
                    continue;
                };
                let length = bytes[start..].iter().take_while(|b| is_digit(b)).count();
                let token = TOKENS[random.below(TOKENS.len())];
                bytes.splice(start..start + length, token.bytes());
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

fn open(folder: &Path) -> Option<Model> {
    let dir = ModelDir::open(&Input::Directory(folder.into()), &Overrides::default()).ok()?;
    Model::build(&dir, &BuildOptions::default()).ok()
}

fn run(case: &str, file: &str, header_only: bool, rounds: u64) {
    let folder = copy_of(case);
    if case == "bert_base" {
        add_sentence_modules(folder.path(), 24);
    }
    let path = folder.path().join(file);
    let original = std::fs::read(&path).unwrap();
    let limit = match header_only {
        true => 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize,
        false => original.len(),
    };
    assert!(open(folder.path()).is_some(), "{case}");
    for seed in 1..=rounds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = original.clone();
        mutate(&mut bytes, limit, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| open(folder.path())));
        let what = format!("{case}/{file}, seed {seed}");
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{what}: {:?}",
            start.elapsed()
        );
        let model = result.unwrap_or_else(|_| panic!("{what}: panicked"));
        if let Some(model) = model {
            let violations = llmc_ir::verify(&model.module);
            assert!(violations.is_empty(), "{what}: {}", violations[0]);
        }
    }
}

#[test]
fn configurations() {
    for case in [
        "gemma3_text",
        "llama_yarn_rope",
        "qwen2",
        "mpnet_base",
        "bert_base",
        "blip2_opt",
        "blip2_t5",
    ] {
        run(case, "config.json", false, 300);
    }
}

#[test]
fn safetensors_headers() {
    run("qwen2", "model.safetensors", true, 400);
    run(
        "llama2_bf16_sharded",
        "model.safetensors.index.json",
        false,
        200,
    );
    run(
        "llama2_bf16_sharded",
        "model-00002-of-00002.safetensors",
        true,
        200,
    );
}

#[test]
fn tokenizers() {
    for case in ["llama2_mha", "qwen2", "bert_base"] {
        run(case, "tokenizer.json", false, 400);
        run(case, "tokenizer_config.json", false, 100);
    }
}

#[test]
fn tokenizers_of_every_kind() {
    for name in ["albert", "gpt1", "llama3", "t5"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let original = std::fs::read(
            common::golden("tokenizers")
                .join(name)
                .join("tokenizer.json"),
        )
        .unwrap();
        for seed in 1..=200 {
            let mut bytes = original.clone();
            mutate(&mut bytes, original.len(), &mut Random(seed * 0x9e37_79b9));
            std::fs::write(&path, &bytes).unwrap();
            let start = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| Tokenizer::open(&path, None).is_ok()));
            assert!(result.is_ok(), "{name}, seed {seed}: panicked");
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{name}, seed {seed}"
            );
        }
    }
}

/// Numbers at which arithmetic goes wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    4,
    9,
    13,
    31,
    33,
    255,
    65_535,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 61,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Damages the first `limit` bytes of a binary header.
fn mutate_binary(bytes: &mut Vec<u8>, limit: usize, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let limit = limit.min(bytes.len());
        let at = random.below(limit);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + random.below(16)).min(limit))),
            3 => {
                let part = bytes[at..(at + random.below(64)).min(limit)].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let width = [1, 4, 8][random.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn gguf_headers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let open = || {
        let dir = ModelDir::open(&Input::Gguf(path.clone()), &Overrides::default()).ok()?;
        Model::build(&dir, &BuildOptions::default()).ok()
    };
    for arch in ["bert", "gemma3", "llama", "qwen2", "t5"] {
        for (round, ty) in [(1, 1, 2), (8, 32, 34)].into_iter().enumerate() {
            let (header, original) = gguf::Gguf::tiny(arch, ty).bytes();
            std::fs::write(&path, &original).unwrap();
            assert!(open().is_some(), "{arch}");
            for seed in 1..=1000u64 {
                let seed = (seed + 1000 * round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut bytes = original.clone();
                mutate_binary(&mut bytes, header, &mut Random(seed));
                std::fs::write(&path, &bytes).unwrap();
                let start = Instant::now();
                let result = catch_unwind(AssertUnwindSafe(open));
                let what = format!("{arch}, seed {seed:#x}");
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "{what}: {:?}",
                    start.elapsed()
                );
                if let Some(model) = result.unwrap_or_else(|_| panic!("{what}: panicked")) {
                    let violations = llmc_ir::verify(&model.module);
                    assert!(violations.is_empty(), "{what}: {}", violations[0]);
                }
            }
        }
    }
}

#[test]
fn modules() {
    for file in [
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
    ] {
        run("bert_base", file, false, 200);
    }
}
