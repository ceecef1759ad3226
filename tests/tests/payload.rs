//! What a compiled executable carries, and what it says when that is damaged or the CPU too old.
//!
//! A cut, stripped or altered file refuses to start; altered weights are found by `verify`. It needs
//! nothing but itself. Old CPUs are emulated with `qemu-x86_64-static`; without the program these
//! tests say that they are skipped.

use std::{
    ffi::OsStr,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::Duration,
};

use llmc_tests::{
    binaries::{self, Compiled, ok},
    golden, model_copy,
};

/// A compiled Llama, shared by the tests; its source is deleted.
fn model() -> &'static Compiled {
    static MODEL: OnceLock<Compiled> = OnceLock::new();
    MODEL.get_or_init(|| {
        let source = model_copy::of("llama2_gqa");
        binaries::compile(source.path(), &[])
    })
}

/// The executable with other bytes, in a folder of its own.
fn altered(change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let mut bytes = std::fs::read(&model().exe).unwrap();
    change(&mut bytes);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write_executable(&path, &bytes);
    (folder, path)
}

fn write_executable(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt;
    // In a scope: a file open for writing cannot be run.
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

/// Starts an executable.
fn start(path: &Path, args: &[&str]) -> Output {
    finish(Command::new(path).args(args))
}

/// Runs a command. A process that another test forks meanwhile may hold the executable open for
/// writing for a moment.
fn finish(command: &mut Command) -> Output {
    for _ in 0..100 {
        match command.stdin(Stdio::null()).output() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy => sleep(Duration::from_millis(20)),
            other => return other.unwrap_or_else(|e| panic!("{command:?}: {e}")),
        }
    }
    panic!("{command:?} stays busy");
}

/// Refuses to start: exit code 1, nothing on standard output, one clear error.
fn refuses(path: &Path, args: &[&str], words: &[&str]) {
    let out = start(path, args);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{:?}: {said}", out.status);
    assert!(out.stdout.is_empty());
    assert!(
        said.starts_with("error: ") && said.lines().count() == 1,
        "{said}"
    );
    for word in words {
        assert!(said.contains(word), "expected {word:?} in: {said}");
    }
}

/// Where `needle` stands last.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    let mut windows = bytes.windows(needle.len()).rev();
    bytes.len() - needle.len() - windows.position(|window| window == needle).unwrap()
}

/// Where the weights begin: the ELF is padded to two megabytes.
fn weights_start(bytes: &[u8]) -> usize {
    const MEGABYTES: usize = 2 << 20;
    let footer = &bytes[bytes.len() - 256..];
    let start = u64::from_le_bytes(footer[32..40].try_into().unwrap()) as usize;
    assert!(start > 0 && start.is_multiple_of(MEGABYTES), "{start}");
    start
}

#[test]
fn a_cut_file_refuses_to_start() {
    let whole = std::fs::metadata(&model().exe).unwrap().len() as usize;
    let weights = weights_start(&std::fs::read(&model().exe).unwrap());
    for length in [
        whole - 1,
        whole - 128,
        whole - 256,
        whole - 257,
        weights + 1000,
        weights,
    ] {
        let (_folder, path) = altered(|bytes| bytes.truncate(length));
        refuses(
            &path,
            &["info"],
            &["damaged", "copy it again or compile it anew"],
        );
    }
    let (_folder, path) = altered(|bytes| bytes.push(0));
    refuses(&path, &["info"], &["damaged"]);
}

#[test]
fn a_stripped_file_refuses_to_start() {
    if Command::new("strip").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no `strip`");
        return;
    }
    let (_folder, path) = altered(|_| ());
    ok(Path::new("strip"), &[path.to_str().unwrap()]);
    refuses(&path, &["info"], &["damaged", "strip"]);
}

#[test]
fn altered_metadata_refuse_to_start() {
    type Place = fn(&[u8]) -> usize;
    let places: [(&str, Place); 4] = [
        ("manifest", |bytes| find(bytes, b"LlamaForCausalLM")),
        ("tokenizer", |bytes| find(bytes, b"{\"model\":{\"Bpe\"")),
        ("footer", |bytes| bytes.len() - 200),
        ("footer", |bytes| bytes.len() - 1),
    ];
    for (part, place) in places {
        let (_folder, path) = altered(|bytes| {
            let at = place(bytes);
            bytes[at] ^= 0x01;
        });
        refuses(&path, &["info"], &["damaged", part, "does not match"]);
    }
}

#[test]
fn altered_weights_are_found_by_verify() {
    let good = start(&model().exe, &["verify"]);
    assert!(good.status.success(), "{good:?}");
    let (_folder, path) = altered(|bytes| {
        let at = weights_start(bytes) + 5000;
        bytes[at] ^= 0x80;
    });
    refuses(
        &path,
        &["verify"],
        &["damaged", "the weights do not match their digest"],
    );
    refuses(
        &path,
        &["tokenize", "--ids", "Hello", "--verify"],
        &["the weights do not match"],
    );
    // Not looked at otherwise: they may be many gigabytes.
    assert!(
        start(&path, &["tokenize", "--ids", "Hello"])
            .status
            .success()
    );
}

#[test]
fn an_executable_needs_nothing_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moved");
    std::fs::copy(&model().exe, &path).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let args = ["generate", "Hello", "-n", "4", "--ids", "--ignore-eos"];
    let out = finish(
        Command::new(&path)
            .args(args)
            .current_dir(empty.path())
            .env_clear(),
    );
    assert!(out.status.success(), "{out:?}");
    assert_eq!(
        String::from_utf8(out.stdout)
            .unwrap()
            .split_whitespace()
            .count(),
        4
    );
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn the_elf_is_static() {
    let bytes = std::fs::read(&model().exe).unwrap();
    let number = |at: usize, bytes_wide: usize| {
        bytes[at..at + bytes_wide]
            .iter()
            .rev()
            .fold(0usize, |n, &byte| n << 8 | usize::from(byte))
    };
    assert_eq!(&bytes[..5], b"\x7fELF\x02");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    const INTERP: usize = 3;
    const STACK: usize = 0x6474_e551;
    for header in (0..count).map(|i| table + i * size) {
        assert_ne!(number(header, 4), INTERP, "an interpreter");
        let executable = number(header + 4, 4) & 1;
        assert!(
            number(header, 4) != STACK || executable == 0,
            "the stack is executable"
        );
    }
    let dynamic = Command::new("ldd").arg(&model().exe).output();
    if let Ok(out) = dynamic {
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains("statically linked") || said.contains("not a dynamic executable"),
            "{said}"
        );
    }
}

const EMULATOR: &str = "qemu-x86_64-static";

/// The emulator's output for a CPU; None where there is no emulator.
fn emulated(cpu: &str, args: &[impl AsRef<OsStr>]) -> Option<Output> {
    let mut command = Command::new(EMULATOR);
    command
        .args(["-cpu", cpu])
        .arg(&model().exe)
        .args(args)
        .stdin(Stdio::null());
    let out = command.output();
    if out.is_err() {
        eprintln!("SKIPPED: there is no `{EMULATOR}` (package qemu-user-static)");
    }
    out.ok()
}

#[test]
fn an_old_cpu_is_refused_by_what_it_lacks() {
    for cpu in ["Nehalem", "qemu64"] {
        let Some(out) = emulated(cpu, &["generate", "Hello", "-n", "2"]) else {
            return;
        };
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{:?}: {said}", out.status);
        assert!(out.stdout.is_empty());
        for word in ["error: this CPU cannot run", "x86-64-v3", "avx2", "fma"] {
            assert!(said.contains(word), "expected {word:?} in: {said}");
        }
    }
    // The version is told without running any of the model's code.
    let out = emulated("Nehalem", &["--version"]);
    assert!(out.is_some_and(|out| out.status.success()));
}

#[test]
fn a_cpu_of_the_lower_level_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [input, native, old] = ["in", "native", "old"].map(|name| folder.path().join(name));
    golden::write(&input, &golden::cases(&["llama2_gqa"])[0].inputs("batch"));
    let line = |output: &Path| {
        let files = [&input, output].map(|path| path.to_str().unwrap().to_string());
        let flags = ["--hidden-states", "--generate", "4", "--eos", "none"].map(String::from);
        [vec!["infer".to_string()], files.to_vec(), flags.to_vec()].concat()
    };
    let Some(out) = emulated("Haswell", &line(&old)) else {
        return;
    };
    let said = String::from_utf8_lossy(&out.stderr);
    if said.contains("this CPU cannot run") {
        eprintln!("SKIPPED: this `{EMULATOR}` does not emulate AVX2: {said}");
        return;
    }
    assert!(out.status.success(), "{said}");
    let out = finish(Command::new(&model().exe).args(line(&native)));
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let (native, old) = (golden::read(&native), golden::read(&old));
    assert_eq!(
        native.keys().collect::<Vec<_>>(),
        old.keys().collect::<Vec<_>>()
    );
    for (name, tensor) in &native {
        assert!(*tensor == old[name], "{name} differs");
    }
}
