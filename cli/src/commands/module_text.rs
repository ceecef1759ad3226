//! Modules in text form as a command's input: a file, or `-` for standard input → a legal module.
//!
//! The first syntax error is told with file, line and column; of what the verifier finds, all.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use llmc::{Error, Result};
use llmc_ir::{Module, parse::MAX_TEXT};

/// Reads, parses and verifies a module.
pub fn read(path: &Path) -> Result<Module> {
    let file = name(path);
    let wrong = |message: String| Error::text(&file, message);
    let text = text(path).map_err(|e| wrong(format!("cannot read: {e}")))?;
    let text = String::from_utf8(text).map_err(|_| wrong("not valid UTF-8".into()))?;
    let module = llmc_ir::parse(&text).map_err(|e| {
        let place = format!("{}:{}:{}", file.display(), e.line, e.column);
        Error::Text {
            file: place,
            message: e.message,
        }
    })?;
    let violations = llmc::compile::verify(&module);
    match violations.len() {
        0 => Ok(module),
        1 => Err(wrong(format!("the module is not legal: {}", violations[0]))),
        n => Err(wrong(format!(
            "the module is not legal, {n} violations:\n{}",
            indented(&violations)
        ))),
    }
}

/// How errors call the input.
pub fn name(path: &Path) -> PathBuf {
    if is_stdin(path) {
        "<stdin>".into()
    } else {
        path.to_path_buf()
    }
}

/// Whether the input is standard input.
pub fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// A list under an error's first line.
pub fn indented(list: &[String]) -> String {
    let lines = list
        .iter()
        .flat_map(|item| item.lines())
        .map(|line| format!("  {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// At most one byte more than the parser takes, so that endless inputs end.
fn text(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = MAX_TEXT as u64 + 1;
    if is_stdin(path) {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?
            .take(most)
            .read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
