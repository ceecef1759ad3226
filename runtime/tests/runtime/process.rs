//! A real executable: the static library, an object with a step in C, a payload, a process.
//!
//! Needs the static library, which building the compiler leaves in `target/runtime-archive`; where
//! that is missing these tests say that they are skipped.

use crate::faces::append_payload;
use crate::fake;
use llmc_abi::{LevelInfo, Manifest};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The next token is the last one plus one; each step takes at least a millisecond.
const STEP: &str = r#"
#include <stdint.h>
#include <unistd.h>
struct batch { uint64_t n, b, r; const int32_t *ids, *pos, *types, *seq, *q_start, *kv_len, *source_len,
                                      *rows, *rope_length; };
struct ctx { uint64_t version; const uint8_t *weights; uint8_t *arena, *scratch; const void *kv;
             const struct batch *batch; float *taps; uint64_t tap_rows; void (*barrier)(void *); void *state; };
static void step(const struct ctx *c, uint64_t thread, uint64_t threads) {
    c->barrier(c->state);
    if (thread == 0) {
        usleep(1000);
        for (uint64_t r = 0; r < c->batch->r; r++) {
            float *row = (float *)c->arena + r * 64;
            int32_t next = c->batch->ids[c->batch->rows[r]] + 1;
            for (int v = 0; v < 50; v++) row[v] = v == (next < 50 ? next : 3) ? c->weights[0] : 0;
        }
    }
    c->barrier(c->state);
}
typedef void (*step_fn)(const struct ctx *, uint64_t, uint64_t);
static const step_fn steps[] = {step};
struct level { const char *name; const step_fn *steps; };
static const struct level levels[] = {{"any", steps}};
const struct { uint64_t version, count; const struct level *levels; uint64_t entries; }
    llmc_program = {ABI, 1, levels, 1};
"#;

fn manifest() -> Manifest {
    let mut m = fake::decoder();
    m.limits.max_context = 1 << 20;
    // Its step leaves the choice to the sampler.
    m.best = false;
    m.has_tokenizer = true;
    m.chat_template = Some("{% for m in messages %}{{ m.content }}{% endfor %}".into());
    m
}

/// The static library: the test runs in `target/<profile>/deps`.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    target.join("runtime-archive/release/libllmc_runtime.a")
}

/// A folder to link in; None where there is no static library.
fn folder() -> Option<tempfile::TempDir> {
    if !library().exists() {
        eprintln!("SKIPPED: {} is missing", library().display());
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

/// The linked executable without a payload.
fn link(dir: &Path) -> PathBuf {
    let (source, exe) = (dir.join("step.c"), dir.join("linked"));
    std::fs::write(&source, STEP).unwrap();
    let linked = Command::new("cc")
        .args(["-O1", &format!("-DABI={}", llmc_abi::ABI_VERSION), "-o"])
        .args([&exe, &source])
        .arg(library())
        .args(["-lm", "-lpthread", "-ldl"])
        .status()
        .unwrap();
    assert!(linked.success());
    exe
}

fn build(dir: &Path, name: &str, manifest: &Manifest) -> PathBuf {
    let linked = dir.join("linked");
    let linked = if linked.exists() { linked } else { link(dir) };
    let exe = dir.join(name);
    append_payload(&exe, std::fs::read(&linked).unwrap(), manifest);
    std::fs::set_permissions(&exe, std::fs::metadata(&linked).unwrap().permissions()).unwrap();
    exe
}

/// Starts a command; again where another test's fork still holds the file open for writing.
fn spawn(command: &mut Command) -> std::process::Child {
    loop {
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            started => return started.unwrap(),
        }
    }
}

fn run(exe: &Path, line: &str, input: &str) -> Output {
    let mut child = spawn(
        Command::new(exe)
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn check(exe: &Path, line: &str, input: &str, code: i32, expected: &str) {
    let out = run(exe, line, input);
    let text = String::from_utf8(out.stdout).unwrap();
    let errors = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        (out.status.code(), text.as_str()),
        (Some(code), expected),
        "{line}: {errors}"
    );
    // A failure is one line.
    assert!(
        code == 0 || errors.starts_with("error: ") && errors.lines().count() == 1,
        "{errors}"
    );
}

/// A line of `--timings`: what took how many milliseconds.
fn time(line: &str) -> (&str, f64) {
    let (name, rest) = line.trim().split_once("  ").unwrap();
    let (time, _) = rest.split_once(" ms").unwrap();
    (name, time.trim().parse().unwrap())
}

#[test]
fn process_runs_and_refuses() {
    let Some(dir) = folder() else { return };
    let exe = build(dir.path(), "m", &manifest());
    check(&exe, "--version", "", 0, "fake (llmc 0.0.0)\n");
    // The prompt ends with </s> (2), so the next letters are a, b, c…
    check(&exe, "generate hello -n 4", "", 0, "abcd\n");
    check(
        &exe,
        "generate - -n 4 --quiet -t 3 --stop c",
        "hello",
        0,
        "ab\n",
    );
    check(&exe, "generate -n 3 --ids", "hello", 0, "3 4 5\n");
    check(&exe, "chat -n 2", "a\n", 0, "bc\n");
    check(&exe, "tokenize --ids", "hi", 0, "1 10 11 2\n");
    check(&exe, "detokenize 10 11", "", 0, "hi\n");
    check(&exe, "verify", "", 0, "");
    check(&exe, "embed x", "", 2, "");
    check(&exe, "infer nowhere out", "", 2, "");
    for (line, first) in [
        ("generate hello -n 3 -v --quiet", true),
        ("chat -n 3 --timings --quiet", false),
    ] {
        let told = String::from_utf8(run(&exe, line, "a\n").stderr).unwrap();
        let times: BTreeMap<&str, f64> = told.lines().map(time).collect();
        let names: Vec<&str> = told.lines().map(|l| time(l).0).collect();
        let start = [
            "arguments",
            "map",
            "tokenizer",
            "engine",
            "prefill",
            "first step",
        ];
        let places = start.map(|name| names.iter().position(|n| *n == name));
        assert!(places.is_sorted() && places[0] == Some(0), "{line}: {told}");
        assert_eq!(times.contains_key("first token"), first, "{told}");
        if first {
            let parts = [
                "arguments",
                "map",
                "tokenizer",
                "prompt",
                "engine",
                "prefill",
            ];
            let sum: f64 = parts.map(|name| times[name]).iter().sum();
            assert!((times["first token"] - sum).abs() < 0.1, "{told}");
        }
    }
    let help = run(&exe, "", "");
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Usage: m"));

    let feature = |f: &str| {
        vec![LevelInfo {
            name: "any".into(),
            features: vec![f.into()],
        }]
    };
    let old = build(
        dir.path(),
        "old",
        &Manifest {
            levels: feature("avx1024"),
            ..manifest()
        },
    );
    let out = run(&old, "generate x", "");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("needs avx1024"));

    // Stripped, cut, altered.
    let stripped = dir.path().join("stripped");
    std::fs::copy(&exe, &stripped).unwrap();
    assert!(
        Command::new("strip")
            .arg(&stripped)
            .status()
            .unwrap()
            .success()
    );
    check(&stripped, "info", "", 1, "");
    let whole = std::fs::read(&exe).unwrap();
    for (len, flip) in [
        (whole.len() - 100, None),
        (whole.len(), Some(whole.len() - 400)),
    ] {
        let mut bytes = whole[..len].to_vec();
        if let Some(at) = flip {
            bytes[at] ^= 1;
        }
        std::fs::write(&stripped, bytes).unwrap();
        check(&stripped, "info", "", 1, "");
    }
}

#[test]
fn process_ends_cleanly_on_ctrl_c() {
    let Some(dir) = folder() else { return };
    let exe = build(dir.path(), "m", &manifest());
    let mut child = spawn(
        Command::new(&exe)
            .args(["generate", "x", "-n", "1000000", "--ignore-eos", "--ids"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut start = Vec::new();
    for _ in 0..20 {
        out.read_until(b' ', &mut start).unwrap();
    }
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupt.success());
    let pressed = Instant::now();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert!(child.wait().unwrap().success() && pressed.elapsed() < Duration::from_secs(2));
    assert!(
        rest.ends_with('\n') && errors.contains("ended by Ctrl-C"),
        "{errors}"
    );
}

/// Nobody reads any more: the process ends rather than computing on.
#[test]
fn process_ends_when_its_reader_does() {
    let Some(dir) = folder() else { return };
    let exe = build(dir.path(), "m", &manifest());
    let mut child = spawn(
        Command::new(&exe)
            .args(["generate", "x", "-n", "1000000", "--ignore-eos", "--quiet"])
            .stdout(Stdio::piped()),
    );
    let mut byte = [0];
    child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    let start = Instant::now();
    assert!(!child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A writer that waits for each answer gets it.
#[test]
fn process_answers_each_line_at_once() {
    let Some(dir) = folder() else { return };
    let manifest = Manifest {
        has_tokenizer: true,
        ..fake::encoder()
    };
    let exe = build(dir.path(), "m", &manifest);
    let mut child = spawn(
        Command::new(&exe)
            .args(["embed", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut input = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for text in ["a", "", "some letters"] {
        writeln!(input, "{text}").unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"embedding\": ["), "{line}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}
