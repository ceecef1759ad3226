//! `llmc opt` as a process: what goes to standard output and what to standard error, errors with
//! their places, standard input, and a reader that leaves early.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use llmc_tests::binaries::{llmc, ok, run};

fn filetest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("filetests")
        .join(name)
}

fn llama() -> String {
    filetest("passes/whole-pipeline/llama.tir")
        .to_str()
        .unwrap()
        .to_string()
}

/// Feeds `llmc` with text on standard input.
fn piped(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(llmc())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// A wrong use: exit code 2, nothing on standard output, one error with all the words.
fn refused(args: &[&str], words: &[&str]) {
    check_refusal(&run(&llmc(), args), words);
}

fn check_refusal(out: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(out.stdout.is_empty());
    assert!(said.starts_with("error: "), "{said}");
    for word in words {
        assert!(said.contains(word), "expected {word:?} in: {said}");
    }
}

#[test]
fn without_passes_a_module_is_printed_as_it_is() {
    let first = ok(&llmc(), &["opt", &llama(), "--passes="]);
    assert!(
        first.contains("module \"") && first.contains("{stage = model}"),
        "{first}"
    );
    let second = piped(&["opt", "-", "--passes="], &first);
    assert!(second.status.success());
    assert_eq!(String::from_utf8(second.stdout).unwrap(), first);
    assert!(second.stderr.is_empty());
}

/// A dump is a valid input: stopping and going on is the same as going through.
#[test]
fn the_pipeline_goes_on_where_a_dump_ends() {
    let whole = ok(&llmc(), &["opt", &llama()]);
    assert!(
        whole.contains("{stage = planned}") && whole.contains("arena"),
        "{whole}"
    );
    assert_eq!(whole, ok(&llmc(), &["opt", &llama(), "--passes=all"]));

    let fused = ok(&llmc(), &["opt", &llama(), "--stop-after=enter-fused"]);
    assert!(fused.contains("{stage = fused}"), "{fused}");
    assert_eq!(fused, ok(&llmc(), &["opt", &llama(), "--passes", "fused"]));
    let planned = piped(&["opt", "-"], &fused);
    assert_eq!(String::from_utf8(planned.stdout).unwrap(), whole);
    let again = piped(&["opt", "-"], &whole);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), whole);
}

#[test]
fn what_was_asked_for_goes_to_standard_error() {
    let args = [
        "--print-after=fuse-qkv",
        "--print-after",
        "dce",
        "--time-passes",
        "--stats",
    ];
    let path = llama();
    let mut all = vec!["opt", path.as_str(), "--passes=fused"];
    all.extend(args);
    let out = run(&llmc(), &all);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{said}");
    // `dce` runs twice in the pipeline.
    assert_eq!(said.matches("// after dce\nmodule ").count(), 2, "{said}");
    assert_eq!(
        said.matches("// after fuse-qkv\nmodule ").count(),
        1,
        "{said}"
    );
    assert!(
        said.contains("fuse-qkv: 1 rewrites") && said.contains("all passes: "),
        "{said}"
    );
    let every = run(
        &llmc(),
        &["opt", &path, "--passes=cse,dce", "--print-after-all"],
    );
    let said = String::from_utf8(every.stderr).unwrap();
    assert_eq!(said.matches("// after ").count(), 2, "{said}");
}

#[test]
fn errors_say_where() {
    let syntax = filetest("errors/unknown_op.tir");
    refused(
        &["opt", syntax.to_str().unwrap()],
        &["unknown_op.tir:", "unknown op"],
    );
    let module =
        "module \"m\" {stage = model}\ndims N: 1..=4, R: 0..=4, B: 1..=1, T: 1..=4\nfunk\n";
    check_refusal(
        &piped(&["opt", "-"], module),
        &["<stdin>:3:1: expected `weight`, `state` or `func`"],
    );
    refused(
        &["opt", "gone.tir"],
        &["gone.tir: cannot read: No such file"],
    );
    refused(&["opt", "/dev/zero"], &["/dev/zero"]);
    refused(
        &["opt", &llama(), "--passes=cse,nonsense"],
        &["--passes: unknown pass `nonsense`", "fuse-qkv"],
    );
    refused(
        &["opt", &llama(), "--print-after=nonsense"],
        &["--print-after", "`nonsense`"],
    );
    refused(
        &["opt", &llama(), "--stop-after=dce", "--passes=cse"],
        &["--stop-after", "`dce`"],
    );
}

#[test]
fn every_violation_is_told() {
    let module = "module \"m\" {stage = model}
dims N: 1..=4, R: 0..=4, B: 1..=1, T: 1..=4
weight @a : f32[8] from \"a\"
weight @b : f32[8] from \"b\"
func @forward(%ids: i32[N], %pos: i32[N], %step: step) {
  %x = rms_norm %ids, @a {eps = 1e-5} : f32[N, 8]
  %y = rms_norm %pos, @b {eps = 1e-5} : f32[N, 8]
  return x = %x
}
";
    check_refusal(
        &piped(&["opt", "-"], module),
        &["2 violations:", "%ids, @a", "%pos, @b", "V4"],
    );
}

#[test]
fn a_reader_may_leave() {
    let mut child = Command::new(llmc())
        .args(["opt", &llama(), "--passes="])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(
        out.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
