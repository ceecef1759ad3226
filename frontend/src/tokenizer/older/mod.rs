//! Tokenizers without a `tokenizer.json`: the files of before, written as one.
//!
//! In: `vocab.txt`, `vocab.json` with `merges.txt`, a SentencePiece model, or a `.tiktoken` file; beside them
//! `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, and `config.json`, which say what kind it
//! is and which tokens have roles. Out: the bytes of a `tokenizer.json`, checked later as one from a file is.
//!
//! Invariants: a kind that is not known is refused by name, because the files alone do not say how a text is cut
//! into words; sizes are bounded before anything is allocated by them; ids are those of the files.
//!
//! Reading order: [`kind`] says which kind it is and what its tokens are called; [`word_piece`], [`byte_level`],
//! [`sentence_piece`] and [`tiktoken`] read a file and write model and parts; [`added`] gathers the tokens that are
//! looked for before anything else; [`draft`] is the file to be.
//!
//! Not here: chat templates and roles, which are read as for any tokenizer.

mod added;
mod byte_level;
mod draft;
mod kind;
mod protobuf;
mod sentence_piece;
mod tiktoken;
mod word_piece;

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::Result;
use kind::Kind;

/// What a folder says of its tokenizer besides the vocabulary.
pub struct Settings<'a> {
    /// `tokenizer_config.json`.
    pub config: Option<&'a Config>,
    /// `special_tokens_map.json`: older checkpoints have the roles there.
    pub map: Option<Config>,
    /// `added_tokens.json`: texts and ids.
    pub added: Option<Config>,
    /// `config.json`.
    pub model: Option<Config>,
}

impl<'a> Settings<'a> {
    /// Reads the small files of a folder.
    pub fn read(folder: &Path, config: Option<&'a Config>) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            path.is_file().then(|| Config::read(&path)).transpose()
        };
        Ok(Self {
            config,
            map: read("special_tokens_map.json")?,
            added: read("added_tokens.json")?,
            model: read("config.json")?,
        })
    }

    /// A flag of `tokenizer_config.json`.
    fn flag(&self, field: &str, default: bool) -> Result<bool> {
        self.config
            .map_or(Ok(default), |c| c.flag_or(field, default))
    }
}

/// SentencePiece models by the names that checkpoints give them.
const SENTENCE_PIECE: [&str; 4] = [
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
];

/// The file of a folder that holds a vocabulary, if there is one.
pub fn vocabulary_file(folder: &Path) -> Option<PathBuf> {
    let named = SENTENCE_PIECE.iter().chain(&["vocab.json", "vocab.txt"]);
    let mut named = named.map(|name| folder.join(name));
    named.find(|path| path.is_file()).or_else(|| {
        // The first by name, whatever the order of the folder.
        let entries = std::fs::read_dir(folder).ok()?.flatten().take(10_000);
        let ranks = entries.map(|entry| entry.path());
        ranks
            .filter(|path| path.extension().is_some_and(|e| e == "tiktoken") && path.is_file())
            .min()
    })
}

/// Whether a file is one of those that are read here, by its name.
pub fn is_vocabulary(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let endings = [".model", ".tiktoken"];
    name == "vocab.txt" || name == "vocab.json" || endings.iter().any(|end| name.ends_with(end))
}

/// Writes the tokenizer of a vocabulary file as a `tokenizer.json`. `rows` is the model's vocabulary, where there is
/// a model.
pub fn write(file: &Path, config: Option<&Config>, rows: Option<u32>) -> Result<Vec<u8>> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let settings = Settings::read(folder, config)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let draft = match &*name {
        "vocab.txt" => word_piece::write(file, &settings, Kind::of_words(file, &settings)?)?,
        "vocab.json" => byte_level::write(file, &settings, Kind::of_merges(file, &settings)?)?,
        // Llama 3's own release calls its table of ranks `tokenizer.model`.
        _ if name.ends_with(".tiktoken") || tiktoken::recognises(file)? => {
            tiktoken::write(file, &settings)?
        }
        _ => sentence_piece::write(file, &settings, rows)?,
    };
    Ok(draft.finish(file, &settings)?.to_string().into_bytes())
}
