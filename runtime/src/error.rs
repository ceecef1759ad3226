//! What can go wrong in a compiled model, and the exit code that tells it.
//!
//! Two kinds, kept apart: *wrong use or wrong input* ([`Error::Usage`], [`Error::Input`],
//! [`Error::Unsupported`]; exit 2) and *failed at run time* (the rest; exit 1). Every text is one
//! message a user can act on. Only `entry` prints errors.

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// What was read (a text, a tensor file, a chat) is wrong.
    #[error("{0}")]
    Input(String),
    /// The model or this version cannot do what is asked.
    #[error("{0}")]
    Unsupported(String),
    /// The executable's payload is missing, cut or altered.
    #[error("{0}")]
    Payload(String),
    /// This machine lacks something.
    #[error("{0}")]
    Machine(String),
    /// No page of the KV cache is free.
    #[error("the KV cache is full: all {pages} pages of class `{class}` are in use")]
    KvFull { class: String, pages: usize },
    /// Ctrl-C while a prompt was read.
    #[error("interrupted")]
    Interrupted,
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
    /// Anything else that happened while running.
    #[error("{0}")]
    Run(String),
}

/// Results of the runtime.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The process's exit code: 2 for wrong use or input, 1 for a failure at run time.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Usage(_) | Error::Input(_) | Error::Unsupported(_) => 2,
            Error::Payload(_)
            | Error::Machine(_)
            | Error::KvFull { .. }
            | Error::Interrupted
            | Error::Io { .. }
            | Error::Run(_) => 1,
        }
    }

    /// An I/O error while doing `what` (a path, "standard input"…).
    pub fn io(what: impl std::fmt::Display, source: std::io::Error) -> Error {
        Error::Io {
            what: what.to_string(),
            source,
        }
    }
}
