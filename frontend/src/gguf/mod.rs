//! GGUF files: a whole model (configuration, tokenizer, weights) in one file, or in numbered parts.
//!
//! In: a path. Out: [`Gguf`], from which come the configuration with Hugging Face's keys ([`Gguf::config`]), the
//! weights under Hugging Face's names ([`GgufWeights`]), the tokenizer as a `tokenizer.json`, generation defaults
//! and pooling. What follows this folder knows nothing of GGUF.
//!
//! Reading order: [`file`] checks one file over [`cursor`] and [`value`]; [`metadata`] reads keys by type; [`parts`]
//! finds the files of a split model; [`architectures`] says what keys and names mean; [`source`] is the weights.
//!
//! Invariants: whatever a key or a tensor would change is understood or refused by its name; nothing is allocated
//! by a number that the file gives.
//!
//! Source: the GGUF specification, and what llama.cpp's converters write and its loader reads.
//!
//! Not here: dequantisation (`llmc_ir::quant`), writing GGUF.

pub mod architectures;
mod cursor;
pub mod file;
mod generation;
pub mod ggml_type;
pub mod metadata;
mod parts;
mod rope;
mod sentence;
mod source;
pub mod tokenizer;
mod value;

use std::path::Path;

use indexmap::IndexMap;

pub use ggml_type::GgmlType;
pub use source::GgufWeights;

use crate::error::{Problem, Result};
use file::{GgufFile, Tensor};
use metadata::Metadata;

const VERSION: &str = "general.quantization_version";

/// An opened model.
#[derive(Debug)]
pub struct Gguf {
    files: Vec<GgufFile>,
    /// Name → index into `files`.
    tensors: IndexMap<String, usize>,
}

impl Gguf {
    /// Opens a file, and the other parts where it is one of several.
    pub fn open(path: &Path) -> Result<Self> {
        let files = parts::open(path)?;
        let mut tensors = IndexMap::new();
        for (index, file) in files.iter().enumerate() {
            for name in file.tensors.keys() {
                if let Some(other) = tensors.insert(name.clone(), index) {
                    let other: &GgufFile = &files[other];
                    let what = format!("is in {} too", other.metadata.path().display());
                    return Err(Problem::of(file.metadata.path(), what).field(name).input());
                }
            }
        }
        let gguf = Self { files, tensors };
        let metadata = gguf.metadata();
        if metadata
            .optional_text("general.type")?
            .is_some_and(|kind| kind != "model")
        {
            return Err(metadata.refuse("general.type", "\"model\""));
        }
        // The layout of blocks.
        let version = metadata.optional_count(VERSION, 0..=u32::MAX)?;
        if version.is_some_and(|version| version != 2) {
            return Err(metadata.refuse(VERSION, "2"));
        }
        Ok(gguf)
    }

    /// What a model is called after its file, or after the first of its files.
    pub fn model_name(path: &Path) -> Option<String> {
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        Some(parts::stem_of_any(&stem).map_or(stem.clone(), str::to_owned))
    }

    /// Whether a file begins as GGUF does.
    pub fn recognises(path: &Path) -> bool {
        use std::io::Read;
        let mut magic = [0; 4];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
        read.is_ok() && &magic == b"GGUF"
    }

    /// The file that was named; of a model in parts the first.
    pub fn path(&self) -> &Path {
        self.metadata().path()
    }

    /// Keys and values; of a model in parts those of the first.
    pub fn metadata(&self) -> &Metadata {
        &self.files[0].metadata
    }

    /// All tensors, in the order of the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor and its file.
    pub fn tensor(&self, name: &str) -> Option<(&Tensor, &GgufFile)> {
        let file = &self.files[*self.tensors.get(name)?];
        Some((file.tensors.get(name)?, file))
    }
}
