//! Golden directories, and copies of them to break.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

/// A folder of the golden data.
pub fn golden(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(part)
}

/// A copy of a golden model without its golden outputs.
pub fn copy_of(case: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("models").join(case)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "golden.safetensors" {
            // Reading and writing, because a copy of a read-only file is one too.
            let bytes = std::fs::read(entry.path()).unwrap();
            std::fs::write(folder.path().join(entry.file_name()), bytes).unwrap();
        }
    }
    folder
}

/// What makes a directory a sentence-transformers model: mean pooling, normalised.
pub fn add_sentence_modules(folder: &Path, width: usize) {
    let module = |idx: usize, path: &str, kind: &str| {
        let class = format!("sentence_transformers.models.{kind}");
        serde_json::json!({"idx": idx, "name": idx.to_string(), "path": path, "type": class})
    };
    let modules = [
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ];
    write_json(&folder.join("modules.json"), &serde_json::json!(modules));
    std::fs::create_dir(folder.join("1_Pooling")).unwrap();
    let pooling = serde_json::json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    write_json(&folder.join("1_Pooling/config.json"), &pooling);
    let transformer = serde_json::json!({"max_seq_length": 64, "do_lower_case": false});
    write_json(&folder.join("sentence_bert_config.json"), &transformer);
}

/// Writes a JSON file.
pub fn write_json(path: &Path, value: &serde_json::Value) {
    std::fs::write(path, serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Reads a JSON file.
pub fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
