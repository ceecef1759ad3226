//! What compiling takes: memory that does not grow with the model, code that does not grow with its
//! depth, executables that are little more than their weights, and the same bytes every time.
//!
//! Weights are made up and written to `/dev/null` or a temporary file. Anonymous memory is what the
//! compiler allocates; mapped files (the code generator's libraries, a checkpoint) are left out, as
//! the system takes their pages back when it needs them. Times are not asserted on: `-v` prints them.

use std::path::{Path, PathBuf};

use llmc_tests::{
    binaries::{self, llmc, ok},
    golden,
    measured::{self, Bounds, Measured},
    model_copy,
};
use serde_json::json;

const MB: u64 = 1 << 20;

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/configs")
        .join(name)
}

/// A copy of a configuration with other fields.
fn configured(name: &str, change: serde_json::Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, std::fs::read(config(name)).unwrap()).unwrap();
    model_copy::edit(&path, change);
    (folder, path)
}

/// Compiles with made-up weights.
fn compiled(config: &Path, output: &str, flags: &[&str]) -> Measured {
    let mut args = vec![
        "compile",
        config.to_str().unwrap(),
        "--random-weights",
        "1",
        "-o",
        output,
        "-v",
    ];
    args.extend(flags);
    let found = measured::run(
        &llmc(),
        &args,
        Path::new("/"),
        Bounds {
            address_space: None,
            seconds: 600.0,
        },
    );
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    eprintln!(
        "{}: {:.1} s, {} MB anonymous, {} MB resident\n{}",
        config.display(),
        found.seconds,
        found.peak_anonymous / MB,
        found.peak_resident / MB,
        found.stderr
    );
    found
}

/// Llama 2 7B in its own widths, four layers of its thirty-two: the other 24 GB would add time only.
#[test]
fn memory_stays_bounded() {
    let (_folder, path) = configured("llama2-7b.json", json!({"num_hidden_layers": 4}));
    let found = compiled(&path, "/dev/null", &[]);
    assert!(
        found.peak_anonymous < 500 * MB,
        "{} MB",
        found.peak_anonymous / MB
    );
}

/// The whole of it: minutes.
#[test]
#[ignore = "writes 13 GB of random numbers"]
fn memory_stays_bounded_at_full_depth() {
    let found = compiled(&config("llama2-7b.json"), "/dev/null", &[]);
    assert!(
        found.peak_anonymous < 500 * MB,
        "{} MB",
        found.peak_anonymous / MB
    );
}

/// Layers are rolled: more of them are longer tables, not more code.
#[test]
fn code_does_not_grow_with_depth() {
    let sizes = [2, 32].map(|layers| {
        let (folder, path) = configured("llama2-7b.json", json!({"num_hidden_layers": layers}));
        let object = folder.path().join("model.o");
        compiled(&path, object.to_str().unwrap(), &["--emit=obj"]);
        std::fs::metadata(&object).unwrap().len()
    });
    eprintln!(
        "2 layers: {} bytes, 32 layers: {} bytes",
        sizes[0], sizes[1]
    );
    assert!(sizes[1].abs_diff(sizes[0]) < 16 << 10, "{sizes:?}");
}

#[test]
fn an_executable_is_little_more_than_its_weights() {
    let source = golden::root().join("models/llama2_gqa");
    let model = binaries::compile(&source, &[]);
    let size = std::fs::metadata(&model.exe).unwrap().len();
    let tokenizer = std::fs::metadata(source.join("tokenizer.json"))
        .unwrap()
        .len();
    let info: serde_json::Value =
        serde_json::from_str(&ok(&model.exe, &["info", "--json"])).unwrap();
    let weights = info["memory"]["weights"].as_u64().unwrap();
    eprintln!("{size} bytes: weights {weights}, tokenizer {tokenizer}");
    assert!(size <= weights + tokenizer + 25 * MB, "{size}");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for case in ["llama2_gqa", "gemma3_text", "bert_base"] {
        let source = golden::root().join("models").join(case);
        let read = || std::fs::read(binaries::compile(&source, &[]).exe).unwrap();
        assert!(read() == read(), "{case}");
    }
    // The name is the directory's, nothing else of its path is kept.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = model_copy::of("llama2_gqa");
    let renamed = elsewhere.path().join("llama2_gqa");
    std::fs::rename(copy.keep(), &renamed).unwrap();
    let source = golden::root().join("models/llama2_gqa");
    let [a, b] =
        [&source, &renamed].map(|dir| std::fs::read(binaries::compile(dir, &[]).exe).unwrap());
    assert!(a == b, "the path of the source is in the executable");
}
