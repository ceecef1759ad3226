//! The `llmc` command and the executables that it makes, run as processes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::golden::{self, Tensors};

/// The `llmc` command that cargo built beside this test.
pub fn llmc() -> PathBuf {
    let mut dir = std::env::current_exe().unwrap();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join("llmc");
    assert!(
        path.exists(),
        "{} is missing: `cargo build` makes it",
        path.display()
    );
    path
}

/// Runs a command; the output whatever its exit code. Tries again where another test's fork still
/// holds the program open for writing.
pub fn run(program: &Path, args: &[&str]) -> Output {
    loop {
        match Command::new(program).args(args).output() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            done => return done.unwrap_or_else(|e| panic!("{}: {e}", program.display())),
        }
    }
}

/// Runs a command that must succeed; its standard output.
pub fn ok(program: &Path, args: &[&str]) -> String {
    let out = run(program, args);
    assert!(
        out.status.success(),
        "{} {args:?}: {}\n{}",
        program.display(),
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// A compiled model in a temporary folder.
pub struct Compiled {
    pub dir: TempDir,
    pub exe: PathBuf,
}

impl Compiled {
    /// Writes tensors beside the executable.
    pub fn write(&self, inputs: &Tensors) -> PathBuf {
        let path = self.dir.path().join("in.st");
        golden::write(&path, inputs);
        path
    }

    /// Runs `infer` on a file; what it wrote.
    pub fn infer(&self, input: &Path, args: &[&str]) -> Tensors {
        let output = self.dir.path().join("out.st");
        let files = [input.to_str().unwrap(), output.to_str().unwrap()];
        ok(&self.exe, &[&["infer"], &files[..], args].concat());
        golden::read(&output)
    }
}

/// Compiles `input` with further arguments.
pub fn compile(input: &Path, args: &[&str]) -> Compiled {
    let dir = tempfile::tempdir().unwrap();
    let exe = dir.path().join("model");
    let mut all = vec![
        "compile",
        input.to_str().unwrap(),
        "-o",
        exe.to_str().unwrap(),
        "--quiet",
    ];
    all.extend(args);
    ok(&llmc(), &all);
    Compiled { dir, exe }
}
