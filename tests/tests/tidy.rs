//! The house's rules about the source itself: which crate may use what, where libraries of one purpose
//! stay, what the core never does, and how long a file is.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Packages of the workspace, and which of them each may use; None: any.
const MAY_USE: [(&str, Option<&[&str]>); 9] = [
    ("llmc", None),
    ("llmc-abi", Some(&[])),
    ("llmc-bench", Some(&["llmc", "llmc-abi"])),
    ("llmc-codegen", Some(&["llmc-abi", "llmc-ir"])),
    ("llmc-frontend", Some(&["llmc-ir"])),
    ("llmc-ir", Some(&[])),
    ("llmc-passes", Some(&["llmc-ir"])),
    ("llmc-runtime", Some(&["llmc-abi"])),
    ("llmc-tests", None),
];

/// Libraries that one folder alone may name.
const HOMES: [(&[&str], &[&str]); 2] = [
    (&["melior", "mlir_sys"], &["codegen/src/mlir/"]),
    (&["inkwell", "llvm_sys"], &["codegen/src/llvm/"]),
];

/// What the core never does: read, write, print, look at the environment.
const NOT_IN_THE_CORE: [&str; 9] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "println!",
    "eprintln!",
    "print!(",
    "dbg!",
];

/// The most lines of a source file; lists of test cases may be longer.
const MAX_LINES: usize = 1000;

/// Every Rust file below `folder`: its path from the workspace's root, and its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let root = root();
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_string();
            if path.is_dir() && !matches!(name.as_str(), "target" | ".git" | "golden") {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let short = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .to_string();
                files.push((short, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no sources in {folder}");
    files
}

/// Lines of code: without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .map(|(i, l)| (i + 1, l))
        .filter(|(_, l)| !l.trim_start().starts_with("//"))
}

/// Whether `line` names the crate: the word, followed by a path.
fn names_crate(line: &str, name: &str) -> bool {
    let mut rest = line;
    while let Some(at) = rest.find(name) {
        let before = rest[..at].chars().next_back();
        rest = &rest[at + name.len()..];
        let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if starts && (rest.starts_with("::") || rest.starts_with(';')) {
            return true;
        }
    }
    false
}

fn none(what: &str, list: Vec<String>) {
    assert!(list.is_empty(), "{what}:\n{}", list.join("\n"));
}

#[test]
fn crates_use_only_what_they_may() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.push(name);
        let Some((_, may)) = MAY_USE.iter().find(|(n, _)| *n == name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let ours = MAY_USE.iter().any(|(n, _)| *n == used);
            if ours && may.is_some_and(|m| !m.contains(&used)) && dependency["kind"] != "dev" {
                wrong.push(format!("{name} uses {used}"));
            }
            let foreign = ["inkwell", "llvm-sys", "melior", "mlir-sys"].contains(&used);
            if foreign && name != "llmc-codegen" {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, MAY_USE.map(|(name, _)| name));
    none("dependencies that the design forbids", wrong);
}

#[test]
fn libraries_stay_in_their_folder() {
    let mut wrong = Vec::new();
    for (path, text) in sources("") {
        for (names, homes) in HOMES {
            let home = homes.iter().any(|h| path.starts_with(h));
            for (i, line) in code(&text).filter(|_| !home) {
                if names.iter().any(|n| names_crate(line, n)) {
                    wrong.push(format!("{path}:{i}: {}", line.trim()));
                }
            }
        }
    }
    none("melior and inkwell have one folder each", wrong);
}

#[test]
fn the_core_does_no_io() {
    let mut wrong = Vec::new();
    for (path, text) in ["ir/src", "passes/src"].into_iter().flat_map(sources) {
        for (i, line) in code(&text) {
            if NOT_IN_THE_CORE.iter().any(|n| line.contains(n)) {
                wrong.push(format!("{path}:{i}: {}", line.trim()));
            }
        }
    }
    none("ir and passes neither read, write nor print", wrong);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for (path, text) in sources("") {
        let lines = text.lines().count();
        let tests = path.contains("/tests/");
        if lines > MAX_LINES && !tests {
            wrong.push(format!("{path}: {lines} lines, at most {MAX_LINES}"));
        }
        if !text.starts_with("//!") && !tests {
            wrong.push(format!("{path} does not say what it is for"));
        }
        if path.ends_with("/utils.rs") || path.ends_with("/helpers.rs") {
            wrong.push(format!("{path}: name its subject"));
        }
    }
    none("files", wrong);
}

#[test]
fn every_op_is_evaluated_by_a_filetest() {
    let folder = root().join("tests/filetests/run");
    let missing = llmc_ir::Op::NAMES
        .iter()
        .filter(|op| !folder.join(format!("{op}.tir")).exists());
    none(
        "ops without tests/filetests/run/<op>.tir",
        missing.map(|op| op.to_string()).collect(),
    );
}

#[test]
fn every_pass_has_filetests() {
    let folder = root().join("tests/filetests/passes");
    let count = |pass: &&str| {
        let files = fs::read_dir(folder.join(pass))
            .into_iter()
            .flatten()
            .flatten();
        files
            .filter(|f| f.path().extension().is_some_and(|e| e == "tir"))
            .count()
    };
    let names = llmc_passes::pipeline::names();
    let missing = names
        .iter()
        .filter(|pass| count(pass) == 0)
        .map(|p| p.to_string());
    none(
        "passes without tests/filetests/passes/<verb-noun>/",
        missing.collect(),
    );
}
