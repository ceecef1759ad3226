//! The `llmc` command itself: help, version, wrong use, `targets`, outputs that cannot be written.

use std::process::{Command, Stdio};

use llmc_tests::{
    binaries::{llmc, ok, run},
    golden,
};

#[test]
fn help_and_version_are_no_failure() {
    for args in [
        &["--help"][..],
        &["help"],
        &["compile", "--help"],
        &["opt", "--help"],
    ] {
        assert!(ok(&llmc(), args).contains("Usage: llmc"), "{args:?}");
    }
    let help = ok(&llmc(), &["--help"]);
    for command in ["compile", "opt", "run", "inspect", "tokenize", "targets"] {
        assert!(help.contains(command), "{command} in {help}");
    }
    assert_eq!(
        ok(&llmc(), &["--version"]),
        format!("llmc {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn wrong_use_exits_with_2() {
    let lines: [&[&str]; 9] = [
        &[],
        &["nonsense"],
        &["compile"],
        &["compile", "a", "b"],
        &["opt"],
        &["run", "m.tir", "in.safetensors"],
        &["run", "m.tir", "in", "out", "--eos", "3"],
        &["inspect", "a", "--nonsense"],
        &["tokenize", "a", "--ids", "--jsonl"],
    ];
    for line in lines {
        let out = run(&llmc(), line);
        assert_eq!(out.status.code(), Some(2), "{line:?}");
        assert!(out.stdout.is_empty() && !out.stderr.is_empty(), "{line:?}");
    }
}

#[test]
fn targets_are_listed_with_what_they_need() {
    let text = ok(&llmc(), &["targets"]);
    assert!(text.starts_with("x86_64-unknown-linux-gnu\n"), "{text}");
    assert!(
        text.contains("  x86-64-v3 ") && text.contains(" avx2 ") && text.contains(" avx512f "),
        "{text}"
    );
}

#[test]
fn outputs_that_cannot_be_written() {
    let model = golden::root().join("models/llama2_gqa");
    let model = model.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for (output, why) in [
        ("/dev/full", "No space left"),
        ("/nowhere/model", "No such file"),
        (folder, "it is a directory"),
    ] {
        for emit in ["--emit=exe", "--emit=tir"] {
            let out = run(&llmc(), &["compile", model, "-o", output, emit]);
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert!(
                said.contains(&format!("`{output}`")) && said.contains(why),
                "{said}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn a_reader_may_leave() {
    let model = golden::root().join("models/llama2_gqa");
    let lines: [&[&str]; 3] = [
        &["targets"],
        &["inspect", model.to_str().unwrap()],
        &[
            "compile",
            model.to_str().unwrap(),
            "--stop-after=cse",
            "--quiet",
        ],
    ];
    for line in lines {
        let mut command = Command::new(llmc());
        command
            .args(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{line:?}: {said}");
        assert!(said.is_empty(), "{line:?}: {said}");
    }
}
