//! Standard output, whose reader may leave early.

use std::io::{ErrorKind, Write, stdout};

use llmc::{Error, Result};

/// Writes `text` as it is.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(failed)
}

/// What a failed write to standard output means.
pub fn failed(source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::BrokenPipe => Error::ReaderGone,
        _ => Error::io("write", "standard output".as_ref(), source),
    }
}
