//! What can go wrong in a command, and its exit code.

use std::path::{Path, PathBuf};

use llmc_codegen::{link::LinkError, lower::LowerError, pack::PackError, step::CompileError};
use llmc_frontend::FrontendError;
use llmc_passes::{PassError, PipelineError};

/// Why a command failed. `Display` is the whole message after `error: `.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong use.
    #[error("{0}")]
    Usage(String),
    /// A module in text form that is wrong.
    #[error("{file}: {message}")]
    Text { file: String, message: String },
    #[error(transparent)]
    Frontend(#[from] FrontendError),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error(transparent)]
    Codegen(#[from] CompileError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The reference evaluator refused its inputs or the module.
    #[error("{0}")]
    Evaluate(String),
    /// The runtime's tokenizer, tensor reader or writer.
    #[error(transparent)]
    Runtime(#[from] llmc_runtime::Error),
    /// An executable is further from its model than it may be.
    #[error("{executable} differs from its model: {what} is above its limit{}", others(*count))]
    Differs {
        executable: String,
        /// The first output that differs.
        what: String,
        /// How many do.
        count: usize,
    },
    /// A bug of the compiler, with what is needed to find it.
    #[error("{0}")]
    Bug(String),
    /// Whoever read standard output wants no more: no failure, and nobody to tell.
    #[error("standard output was closed")]
    ReaderGone,
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        action: &'static str,
        path: String,
        source: std::io::Error,
    },
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Error>;

/// `, as are N others`.
fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        n => format!(", as are {} others", n - 1),
    }
}

impl Error {
    /// Wraps what the system said about `path`.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::Io {
            action,
            path: path.display().to_string(),
            source,
        }
    }

    /// A file of text that is wrong.
    pub fn text(file: &Path, message: impl ToString) -> Error {
        let file = PathBuf::from(file).display().to_string();
        Error::Text {
            file,
            message: message.to_string(),
        }
    }

    /// 2 for wrong use or input, 1 for failures at run time and bugs of the compiler.
    /// 0 where standard output was closed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Text { .. } | Error::Frontend(_) | Error::Evaluate(_) => 2,
            Error::Pipeline(PipelineError::Pass { error, .. }) => match error {
                PassError::Refused { .. } | PassError::Unsupported { .. } => 2,
                PassError::OutOfOrder { .. } => 1,
            },
            Error::Pack(PackError::Shape { .. }) => 2,
            Error::Runtime(e) => e.exit_code() as u8,
            Error::ReaderGone => 0,
            Error::Pipeline(PipelineError::Invalid { .. })
            | Error::Lower(_)
            | Error::Codegen(_)
            | Error::Pack(_)
            | Error::Link(_)
            | Error::Bug(_)
            | Error::Differs { .. }
            | Error::Io { .. } => 1,
        }
    }
}
