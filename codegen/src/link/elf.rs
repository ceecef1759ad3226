//! Links the generated object with the runtime into a static, position-independent executable.

use std::{path::Path, process::Command};

use super::LinkError;

/// The runtime as a static library, built with this crate (see `build.rs`).
static RUNTIME: &[u8] = include_bytes!(env!("LLMC_RUNTIME_ARCHIVE"));

/// Links the objects of all feature levels with the runtime; the ELF's bytes.
pub fn link_elf(objects: &[&[u8]]) -> Result<Vec<u8>, LinkError> {
    let dir = tempfile::tempdir().map_err(|source| at(Path::new("a temporary folder"), source))?;
    let mut inputs = Vec::new();
    for (i, object) in objects.iter().enumerate() {
        inputs.push((dir.path().join(format!("model{i}.o")), *object));
    }
    inputs.push((dir.path().join("runtime.a"), RUNTIME));
    for (path, bytes) in &inputs {
        std::fs::write(path, bytes).map_err(|e| at(path, e))?;
    }
    let out = dir.path().join("model");
    let linker = "cc";
    let mut command = Command::new(linker);
    command
        .args([
            "-static-pie",
            "-Wl,--gc-sections",
            "-Wl,-s",
            "-Wl,--build-id=none",
            "-o",
        ])
        .arg(&out)
        .args(inputs.iter().map(|(path, _)| path))
        .args(["-lpthread", "-ldl", "-lm", "-lgcc_eh"]);
    let done = command.output().map_err(|source| LinkError::NoLinker {
        linker: linker.to_string(),
        source,
    })?;
    if !done.status.success() {
        let words = String::from_utf8_lossy(&done.stderr).trim().to_string();
        return Err(LinkError::Linker(words));
    }
    std::fs::read(&out).map_err(|e| at(&out, e))
}

fn at(path: &Path, source: std::io::Error) -> LinkError {
    LinkError::Write {
        path: path.display().to_string(),
        source,
    }
}
