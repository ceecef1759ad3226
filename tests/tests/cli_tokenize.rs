//! `llmc tokenize` as a process: every case of every golden tokenizer.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use llmc_tests::{
    binaries::{llmc, ok, run},
    golden,
    tokenizer_cases::{self, tokenize},
};

#[test]
fn texts_pairs_and_chats() {
    for folder in tokenizer_cases::folders() {
        tokenizer_cases::check(&folder, &tokenizer_cases::read(&folder));
    }
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
