//! Copies of golden models, to be broken or moved.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::golden;

/// A copy of a golden model without its golden outputs.
pub fn of(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden::root().join("models").join(case)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "golden.safetensors" {
            // Reading and writing, because a copy of a read-only file is one too.
            let bytes = std::fs::read(entry.path()).unwrap();
            std::fs::write(folder.path().join(entry.file_name()), bytes).unwrap();
        }
    }
    folder
}

/// Changes fields of a JSON file; `null` removes one.
pub fn edit(file: &Path, change: Value) {
    let mut value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    merge(&mut value, change);
    std::fs::write(file, serde_json::to_vec(&value).unwrap()).unwrap();
}

fn merge(value: &mut Value, change: Value) {
    match (value, change) {
        (Value::Object(members), Value::Object(changes)) => {
            for (key, change) in changes {
                match change {
                    Value::Null => drop(members.shift_remove(&key)),
                    change => merge(members.entry(key).or_insert(Value::Null), change),
                }
            }
        }
        (value, change) => *value = change,
    }
}

/// Changes the header of a safetensors file, whose data stays.
pub fn edit_header(file: &Path, change: Value) {
    let bytes = std::fs::read(file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    merge(&mut header, change);
    write_header(
        file,
        &serde_json::to_vec(&header).unwrap(),
        &bytes[8 + length..],
    );
}

/// Writes a safetensors file of any header.
pub fn write_header(file: &Path, header: &[u8], data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    std::fs::write(file, bytes).unwrap();
}

/// Makes a directory a sentence-transformers model: mean pooling, normalised.
pub fn add_sentence_modules(folder: &Path, width: usize) {
    let module = |idx: usize, path: &str, kind: &str| {
        let class = format!("sentence_transformers.models.{kind}");
        serde_json::json!({"idx": idx, "name": idx.to_string(), "path": path, "type": class})
    };
    let modules = serde_json::json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ]);
    let write = |name: &str, value: Value| {
        std::fs::write(folder.join(name), serde_json::to_vec(&value).unwrap()).unwrap();
    };
    std::fs::create_dir(folder.join("1_Pooling")).unwrap();
    write("modules.json", modules);
    let pooling = serde_json::json!({
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": false,
        "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    write("1_Pooling/config.json", pooling);
    write(
        "sentence_bert_config.json",
        serde_json::json!({"max_seq_length": 64}),
    );
}
