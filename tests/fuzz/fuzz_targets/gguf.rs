//! Any bytes as a GGUF file: they are a model whose module verifies and whose weights can be read, or they are
//! refused.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use llmc_frontend::{BuildOptions, Input, Model, ModelDir, Overrides};
use llmc_ir::TensorSource;

/// One file that every run overwrites.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = match std::path::Path::new("/dev/shm").is_dir() {
        true => PathBuf::from("/dev/shm"),
        false => std::env::temp_dir(),
    };
    folder.join(format!("llmc-fuzz-{}.gguf", std::process::id()))
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).unwrap();
    let input = Input::Gguf(FILE.clone());
    let Ok(dir) = ModelDir::open(&input, &Overrides::default()) else {
        return;
    };
    let Ok(model) = Model::build(&dir, &BuildOptions::default()) else {
        return;
    };
    let violations = llmc_ir::verify(&model.module);
    assert!(violations.is_empty(), "{}", violations[0]);
    for name in model.weights.names() {
        let info = model.weights.info(name).unwrap();
        let (columns, rows) = info.dims.split_last().unwrap();
        let rows: u64 = rows.iter().map(|dim| u64::from(*dim)).product();
        let bytes = rows * info.dtype.row_bytes((*columns).into());
        let middle = bytes / 2;
        for range in [0..middle, middle..bytes] {
            let length = range.end - range.start;
            let read = model.weights.read(name, range.clone()).unwrap();
            assert_eq!(read.len() as u64, length, "{name}");
            drop(read);
            model.weights.release(name, range);
        }
    }
});
