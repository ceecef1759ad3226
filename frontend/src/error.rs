//! What can be wrong with an input, told so that it can be put right.
//!
//! In: the file, the field in it, what was found and what was expected. Out: one [`FrontendError`] whose
//! `Display` is the whole message after `error: `.
//!
//! Invariants: every error that stems from a file names the file, and the field where there is one; the
//! kinds (input wrong, not supported yet, input/output, compiler bug) stay apart, because they ask different things of the
//! reader; all mismatches of one kind are one error.
//!
//! Not here: rendering with colour and the exit code (`cli`).

use std::fmt;
use std::path::{Path, PathBuf};

/// The result of everything that reads the user's files.
pub type Result<T, E = FrontendError> = std::result::Result<T, E>;

/// Why a model could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontendError {
    /// The input contradicts itself or its format: the user has to change it.
    #[error("{0}")]
    Input(Box<Problem>),
    /// The input may be fine, but this compiler has no answer to it.
    #[error("not supported yet: {0}")]
    Unsupported(Box<Problem>),
    /// A file could not be opened, read or mapped.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `read`, `map`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A family asked the IR for something impossible: a bug of the compiler, not of the input.
    #[error("compiler bug: {0}")]
    Bug(String),
}

impl FrontendError {
    /// Wraps what the system said about `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

impl From<llmc_ir::builder::BuildError> for FrontendError {
    fn from(error: llmc_ir::builder::BuildError) -> Self {
        Self::Bug(error.to_string())
    }
}

/// The body of an error: where, what, and what would help.
#[derive(Debug, Default)]
pub struct Problem {
    file: Option<PathBuf>,
    field: Option<String>,
    what: String,
    lines: Vec<String>,
    notes: Vec<String>,
    help: Option<String>,
}

impl Problem {
    /// A problem that no single file is to blame for.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ..Self::default()
        }
    }

    /// A problem of one file.
    pub fn of(file: &Path, what: impl Into<String>) -> Self {
        Self {
            file: Some(file.to_path_buf()),
            what: what.into(),
            ..Self::default()
        }
    }

    /// Names the field (a dotted path in a JSON file, a tensor, a token).
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Adds one line to the list below the first: one mismatch of many.
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// Adds a `note:`, for where an expectation comes from.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Sets the `help:`, for what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The file named, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Finishes it as *your input is wrong*.
    pub fn input(self) -> FrontendError {
        FrontendError::Input(Box::new(self))
    }

    /// Finishes it as *not supported yet*.
    pub fn unsupported(self) -> FrontendError {
        FrontendError::Unsupported(Box::new(self))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(field) = &self.field {
            write!(f, "`{}`: ", Excerpt(field))?;
        }
        f.write_str(&self.what)?;
        for line in &self.lines {
            write!(f, "\n  {line}")?;
        }
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Untrusted text inside a message: one line, bounded length, control characters escaped.
pub struct Excerpt<'a>(pub &'a str);

impl Excerpt<'_> {
    const LIMIT: usize = 120;
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, c) in self.0.chars().enumerate() {
            if count == Self::LIMIT {
                return f.write_str("…");
            }
            if c.is_control() {
                write!(f, "{}", c.escape_default())?
            } else {
                write!(f, "{c}")?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_from_where_to_help() {
        let error = Problem::of(Path::new("m/config.json"), "found 0, expected more")
            .field("num_attention_heads")
            .note("heads split the hidden size")
            .help("is the file complete?")
            .input();
        assert_eq!(
            error.to_string(),
            "m/config.json: `num_attention_heads`: found 0, expected more\n  \
             note: heads split the hidden size\n  help: is the file complete?"
        );
    }

    #[test]
    fn untrusted_text_stays_on_one_short_line() {
        let text = format!("{}\n", "x".repeat(1000));
        assert_eq!(
            Excerpt(&text).to_string().chars().count(),
            Excerpt::LIMIT + 1
        );
        assert_eq!(Excerpt("a\n\u{1b}[1m").to_string(), "a\\n\\u{1b}[1m");
    }
}
