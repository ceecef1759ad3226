//! What the user named as INPUT.
//!
//! In: a string from the command line. Out: [`Input`], one of the forms that a model comes in.
//!
//! Invariants: the form is decided by what is on the disk, then by the name; a form that is not supported yet is
//! refused by name rather than as a missing file.
//!
//! Not here: reading it (`model_dir`).

use std::path::{Path, PathBuf};

use crate::error::{FrontendError, Problem, Result};
use crate::gguf::Gguf;

/// A model's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A Hugging Face directory.
    Directory(PathBuf),
    /// A configuration under any name; weights and tokenizer are looked up beside it.
    Config(PathBuf),
    /// A GGUF file, or a part of one.
    Gguf(PathBuf),
}

impl Input {
    /// Decides what `input` is.
    pub fn resolve(input: &str) -> Result<Self> {
        let path = Path::new(input);
        if let Some(name) = input.strip_prefix("hf:") {
            return Err(Problem::new(format!(
                "hf:{}: downloading from the Hugging Face Hub",
                crate::error::Excerpt(name)
            ))
            .help("download the model's files into a directory and give that")
            .unsupported());
        }
        if path.is_dir() {
            return Ok(Self::Directory(path.to_path_buf()));
        }
        let metadata = std::fs::metadata(path).map_err(|e| FrontendError::io("open", path, e))?;
        if !metadata.is_file() {
            return Err(Problem::of(path, "neither a directory nor a file").input());
        }
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "json" if input.ends_with(".index.json") => Err(Problem::of(
                path,
                "an index of weights, expected a configuration",
            )
            .help("give the directory, or a config.json and --weights")
            .input()),
            "json" => Ok(Self::Config(path.to_path_buf())),
            "gguf" => Ok(Self::Gguf(path.to_path_buf())),
            "safetensors" => Err(Problem::of(path, "weights without a configuration")
                .help("give the directory that holds config.json, or a config.json and --weights")
                .input()),
            "bin" | "pt" | "pth" | "ckpt" => Err(Problem::of(
                path,
                "a pickle checkpoint, which can run code when it is read",
            )
            .help("convert it to safetensors and give the directory")
            .unsupported()),
            // Some tools keep GGUF files under their digests.
            _ if Gguf::recognises(path) => Ok(Self::Gguf(path.to_path_buf())),
            _ => Err(Problem::of(
                path,
                "expected a Hugging Face directory, a .gguf file or a .json configuration",
            )
            .input()),
        }
    }
}
