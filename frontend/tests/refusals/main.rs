//! Broken inputs: each gives one error of the right kind that names the file and the field, at once.
//!
//! A case takes a small valid directory, breaks one thing, and says what the error has to contain.

#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod inputs;
mod sentences;
mod tokenizers;
mod weights;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{add_sentence_modules, copy_of, read_json, write_json};
use llmc_frontend::{BuildOptions, FrontendError, Input, Model, ModelDir, Overrides};
use serde_json::{Value, json};

/// Which kind of error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Wrong,
    Unsupported,
    Io,
}
use Kind::{Io, Unsupported, Wrong};

const WEIGHTS: &str = "model.safetensors";

fn open(folder: &Path) -> Result<Model, FrontendError> {
    let dir = ModelDir::open(
        &Input::resolve(folder.to_str().unwrap())?,
        &Overrides::default(),
    )?;
    Model::build(&dir, &BuildOptions::default())
}

/// Breaks a copy of `case` and expects the error to contain every one of `expected`.
#[track_caller]
fn check(case: &str, kind: Kind, expected: &[&str], break_it: impl FnOnce(&Path)) {
    let folder = copy_of(case);
    break_it(folder.path());
    let start = Instant::now();
    let error = match open(folder.path()) {
        Ok(_) => panic!("accepted, expected an error with {expected:?}"),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}: {text}",
        start.elapsed()
    );
    let found = match error {
        FrontendError::Input(_) => Wrong,
        FrontendError::Unsupported(_) => Unsupported,
        FrontendError::Io { .. } => Io,
        _ => panic!("{text}"),
    };
    assert_eq!(found, kind, "{text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in: {text}");
    }
    assert!(text.len() < 8000, "{} bytes: {text}", text.len());
}

/// A change of a JSON file; `null` deletes the field.
fn edit(folder: &Path, file: &str, change: Value) {
    let path = folder.join(file);
    let mut value = read_json(&path);
    merge(&mut value, change);
    write_json(&path, &value);
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

fn write(folder: &Path, file: &str, bytes: &[u8]) {
    std::fs::write(folder.join(file), bytes).unwrap();
}

/// Changes the header of a safetensors file, whose data stays.
fn edit_header(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    write_header(
        &path,
        &serde_json::to_vec(&header).unwrap(),
        &bytes[8 + length..],
    );
}

fn write_header(path: &Path, header: &[u8], data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}
