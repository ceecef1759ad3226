//! Real models out of Python packages (`examples/get_models.sh`), where they are on this machine.

use std::path::PathBuf;

/// The folder of a model; None, said loudly, where it was not fetched.
pub fn folder(name: &str) -> Option<PathBuf> {
    let models = match std::env::var_os("LLMC_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/llmc/models"),
    };
    let dir = models.join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!(
        "SKIPPED: {} is not there; examples/get_models.sh {name} fetches it",
        dir.display()
    );
    None
}

/// The GGUF file of a model that is one.
pub fn gguf(name: &str) -> Option<PathBuf> {
    let dir = folder(name)?;
    let files = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
    let found = files
        .filter(|f| f.extension().is_some_and(|e| e == "gguf"))
        .min();
    Some(found.unwrap_or_else(|| panic!("{}: no GGUF file", dir.display())))
}
