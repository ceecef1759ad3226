//! `llmc tokenize` as a process: every case of every golden tokenizer.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use llmc_tests::{
    binaries::{llmc, ok, run},
    golden,
};
use serde_json::{Value, json};

fn tokenizers() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden::root().join("tokenizers")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 30);
    folders
}

fn cases(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokenizer_cases.json")).unwrap()).unwrap()
}

fn list<'a>(cases: &'a Value, key: &str) -> &'a [Value] {
    cases[key].as_array().map_or(&[], Vec::as_slice)
}

/// Runs `llmc tokenize` with text on standard input.
fn tokenize(folder: &Path, flags: &[&str], input: &str) -> Output {
    let mut child = Command::new(llmc())
        .args(["tokenize", folder.to_str().unwrap()])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    let feed = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().unwrap();
    let _ = feed.join().unwrap();
    out
}

/// Lines in, lines out; compares field by field.
fn check_lines(folder: &Path, flags: &[&str], lines: &[(Value, Vec<(&str, &Value)>)]) {
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

#[test]
fn texts_pairs_and_chats() {
    for folder in tokenizers() {
        let cases = cases(&folder);
        let mut lines = Vec::new();
        for case in list(&cases, "cases") {
            let expected = vec![("ids", &case["ids"]), ("type_ids", &case["type_ids"])];
            lines.push((json!({"text": case["text"]}), expected));
        }
        for case in list(&cases, "pairs") {
            let line = json!({"text": case["text"], "pair": case["pair"]});
            lines.push((
                line,
                vec![("ids", &case["ids"]), ("type_ids", &case["type_ids"])],
            ));
        }
        let chats = list(&cases, "chat_cases");
        for case in chats.iter().filter(|case| case["error"].is_null()) {
            lines.push((
                chat(case),
                vec![("ids", &case["ids"]), ("rendered", &case["rendered"])],
            ));
        }
        check_lines(&folder, &[], &lines);

        let plain = list(&cases, "cases").iter();
        let plain = plain.map(|case| {
            (
                json!({"text": case["text"]}),
                vec![("ids", &case["ids_no_special"])],
            )
        });
        check_lines(&folder, &["--no-special"], &plain.collect::<Vec<_>>());

        // What a template refuses is an error of its line.
        for case in chats.iter().filter(|case| case["error"].is_string()) {
            let out = tokenize(&folder, &["--jsonl"], &format!("\n{}\n", chat(case)));
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(2), "{said}");
            let words = ["line 2", case["error"].as_str().unwrap()];
            assert!(
                words.iter().all(|word| said.contains(word)),
                "{words:?} in: {said}"
            );
        }
    }
}

fn chat(case: &Value) -> Value {
    let mut line = json!({
        "messages": case["messages"],
        "add_generation_prompt": case["add_generation_prompt"],
    });
    if !case["tools"].is_null() {
        line["tools"] = case["tools"].clone();
    }
    line
}

#[test]
fn one_text() {
    let folder = golden::root().join("tokenizers/llama");
    let path = folder.to_str().unwrap();
    let ids = "1 311 347 305 322 316 326 264 286 297 354\n";
    assert_eq!(
        ok(&llmc(), &["tokenize", path, "--ids", "Hello, world!"]),
        ids
    );
    assert_eq!(
        tokenize(&folder, &["--ids", "-"], "Hello, world!").stdout,
        ids.as_bytes()
    );
    assert_eq!(
        tokenize(&folder, &["--ids"], "Hello, world!").stdout,
        ids.as_bytes()
    );
    let file = folder.join("tokenizer.json");
    assert_eq!(
        ok(
            &llmc(),
            &["tokenize", file.to_str().unwrap(), "--ids", "Hello, world!"]
        ),
        ids
    );
    let table = ok(&llmc(), &["tokenize", path, "Hello"]);
    assert!(table.starts_with("      1  <s>\n"), "{table}");
}

#[test]
fn wrong_inputs_are_refused() {
    let llama = golden::root().join("tokenizers/llama");
    let lines: [(&Path, &[&str], &[u8], &str); 6] = [
        (&llama, &["--jsonl"], b"{\"text\": 1}\n", "line 1"),
        (
            &llama,
            &["--jsonl"],
            b"{\"text\": \"a\"}\n{\"txt\": \"a\"}\n",
            "line 2",
        ),
        (&llama, &["--jsonl"], b"{\"text\": \"a\"", "line 1"),
        (
            &llama,
            &["--jsonl"],
            b"{\"text\": \"a\", \"messages\": []}\n",
            "give {",
        ),
        (Path::new("/nowhere"), &["a"], b"", "/nowhere"),
        (Path::new("/dev/null"), &["a"], b"", "/dev/null"),
    ];
    for (folder, flags, input, words) in lines {
        let out = tokenize(folder, flags, std::str::from_utf8(input).unwrap());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{words}: {said}");
        assert!(
            said.starts_with("error: ") && said.contains(words),
            "expected {words:?} in: {said}"
        );
    }
    let empty = tempfile::tempdir().unwrap();
    let out = run(&llmc(), &["tokenize", empty.path().to_str().unwrap(), "a"]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn a_reader_may_leave() {
    let folder = golden::root().join("tokenizers/llama");
    let mut child = Command::new(llmc())
        .args(["tokenize", folder.to_str().unwrap(), "--ids", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"Hello").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(
        out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
