//! Hostile and broken GGUF files through `llmc compile`: each gives one error that names the file and what is wrong
//! in it, exit code 2, no file, within bounded time and memory.
//!
//! Among them is the shape of every published vulnerability of GGUF readers: counts and lengths that wrap when they
//! are multiplied or added to, arrays that nest, shapes whose product overflows, types out of range, an alignment of
//! zero, rows that are no whole blocks, offsets that point elsewhere.

mod containers;
mod hyperparameters;
mod parts;
#[path = "../refused/mod.rs"]
mod refused;
mod tokenizers;

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
