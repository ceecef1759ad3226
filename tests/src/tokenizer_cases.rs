//! Golden tokenizers' cases through `llmc tokenize`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{binaries::llmc, golden};

/// The folders of `tests/golden/tokenizers`, in order.
pub fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden::root().join("tokenizers")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 30);
    folders
}

/// What a folder's `tokenizer_cases.json` holds.
pub fn read(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokenizer_cases.json")).unwrap()).unwrap()
}

/// A list of cases; empty where there are none of the kind.
pub fn list<'a>(cases: &'a Value, key: &str) -> &'a [Value] {
    cases[key].as_array().map_or(&[], Vec::as_slice)
}

/// Runs `llmc tokenize` with text on standard input.
pub fn tokenize(input: &Path, flags: &[&str], text: &str) -> Output {
    let mut child = Command::new(llmc())
        .args(["tokenize", input.to_str().unwrap()])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_string();
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().unwrap();
    let _ = feed.join().unwrap();
    out
}

/// A line in, and what the line out must hold.
pub type Line<'a> = (Value, Vec<(&'a str, &'a Value)>);

/// Lines in, lines out; compares field by field.
pub fn check_lines(folder: &Path, flags: &[&str], lines: &[Line<'_>]) {
    let input: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let mut all = vec!["--jsonl"];
    all.extend(flags);
    let out = tokenize(folder, &all, &input);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {said}", folder.display());
    let text = String::from_utf8(out.stdout).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), lines.len(), "{}", folder.display());
    for (found, (line, expected)) in found.iter().zip(lines) {
        for (key, value) in expected {
            assert_eq!(&&found[*key], value, "{} {key} of {line}", folder.display());
        }
    }
}

/// A chat as a line of input.
pub fn chat(case: &Value) -> Value {
    let mut line = json!({
        "messages": case["messages"],
        "add_generation_prompt": case["add_generation_prompt"],
    });
    if !case["tools"].is_null() {
        line["tools"] = case["tools"].clone();
    }
    line
}

/// All texts, pairs and chats of `cases` by the tokenizer of a folder.
pub fn check(folder: &Path, cases: &Value) {
    let mut lines = Vec::new();
    for case in list(cases, "cases") {
        let expected = vec![("ids", &case["ids"]), ("type_ids", &case["type_ids"])];
        lines.push((json!({"text": case["text"]}), expected));
    }
    for case in list(cases, "pairs") {
        let line = json!({"text": case["text"], "pair": case["pair"]});
        let expected = vec![("ids", &case["ids"]), ("type_ids", &case["type_ids"])];
        lines.push((line, expected));
    }
    let chats = list(cases, "chat_cases");
    for case in chats.iter().filter(|case| case["error"].is_null()) {
        let expected = vec![("ids", &case["ids"]), ("rendered", &case["rendered"])];
        lines.push((chat(case), expected));
    }
    check_lines(folder, &[], &lines);

    let plain = list(cases, "cases").iter();
    let plain = plain.map(|case| {
        let expected = vec![("ids", &case["ids_no_special"])];
        (json!({"text": case["text"]}), expected)
    });
    check_lines(folder, &["--no-special"], &plain.collect::<Vec<_>>());

    // What a template refuses is an error of its line.
    for case in chats.iter().filter(|case| case["error"].is_string()) {
        let out = tokenize(folder, &["--jsonl"], &format!("\n{}\n", chat(case)));
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        let words = ["line 2", case["error"].as_str().unwrap()];
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{words:?} in: {said}"
        );
    }
}
