//! What can go wrong while measuring.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Json(PathBuf, serde_json::Error),
    #[error("{0} has no `{1}`")]
    Missing(PathBuf, &'static str),
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        command: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
    #[error("{0} answered `{1}`, which is not understood")]
    Answer(&'static str, String),
    #[error(
        "{who}: lowest cosine with the reference is {cosine:.6}, below {least}; not measuring wrong answers"
    )]
    Wrong {
        who: String,
        cosine: f64,
        least: f64,
    },
    #[error("not measured: {0}")]
    Unmeasured(String),
}
