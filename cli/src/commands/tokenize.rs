//! `llmc tokenize`: a tokenizer as the model's executable will use it.
//!
//! In: a directory, a GGUF file or a tokenizer.json, then what an executable's `tokenize` takes; out: what it
//! prints. The runtime's own module does the work.

use std::{
    io::{BufReader, BufWriter, Write, stdin, stdout},
    path::{Path, PathBuf},
};

use llmc::Result;
use llmc_frontend::{sentence::Sentence, tokenizer::Tokenizer};
use llmc_runtime::{Error as RuntimeError, text_tools::TextTools, tokenizer::compile};

use super::stdout::failed;
use crate::args::Tokenize;

/// Tokenizes a text, standard input, or JSON lines.
pub fn run(args: &Tokenize) -> Result<()> {
    let tokenizer = Tokenizer::open(&folder(&args.input)?, None)?;
    let special = tokenizer.special.iter();
    let special = special
        .map(|s| (format!("{}_token", s.role), s.text.clone()))
        .collect();
    let template = tokenizer
        .templates
        .first()
        .map(|template| template.source.as_str());
    let section = compile(&tokenizer.json)?;
    let tools = TextTools::new(&section, &special, template)?;
    let mut out = BufWriter::new(stdout().lock());
    let done = tools.tokenize(
        &args.tokenize,
        &mut BufReader::new(stdin().lock()),
        &mut out,
    );
    let flushed = out.flush();
    match done {
        Err(RuntimeError::Io { what, source }) if what == "standard output" => Err(failed(source)),
        Err(e) => Err(e.into()),
        Ok(()) => flushed.map_err(failed),
    }
}

/// Where the tokenizer's files are: older sentence-transformers models keep them in a folder.
fn folder(input: &Path) -> Result<PathBuf> {
    if input.is_dir()
        && !input.join("tokenizer.json").exists()
        && let Some(sentence) = Sentence::open(input)?
    {
        return Ok(sentence.transformer);
    }
    Ok(input.to_path_buf())
}
