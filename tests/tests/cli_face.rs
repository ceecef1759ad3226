//! The `llmc` command itself: help, version, wrong use, `targets`.

use llmc_tests::binaries::{llmc, ok, run};

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
