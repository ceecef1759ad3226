//! The files of one model, found and read together.
//!
//! In: an [`Input`] and the flags that override where things are. Out: [`ModelDir`]: configuration, generation
//! defaults, tokenizer, sentence-transformers modules; the weights are opened on demand.
//!
//! Invariants: everything small is read and checked here, nothing large is; a directory with `modules.json` is a
//! sentence-transformers model whatever its configuration says.
//!
//! Not here: what the configuration means for a family (`models`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Problem, Result};
use crate::generation::Generation;
use crate::gguf::{Gguf, GgufWeights};
use crate::preprocessor::Preprocessor;
use crate::sentence::Sentence;
use crate::source::Input;
use crate::tokenizer::Tokenizer;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::{self, WeightSource};

/// Where to look instead of beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// A directory, a `.safetensors` file, an index, or a GGUF file.
    pub weights: Option<PathBuf>,
    /// A directory, a `tokenizer.json`, or a GGUF file.
    pub tokenizer: Option<PathBuf>,
}

/// A model's files.
#[derive(Debug)]
pub struct ModelDir {
    /// The stem of the directory or file.
    pub name: String,
    /// `config.json`, or what a GGUF file says in its stead.
    pub config: Config,
    /// Its `llmc` object, if it has one: options of the compiler.
    pub options: Option<Config>,
    /// Generation defaults.
    pub generation: Generation,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<Tokenizer>,
    /// How pictures become what the model reads.
    pub preprocessor: Option<Preprocessor>,
    /// What makes it a sentence-transformers model.
    pub sentence: Option<Sentence>,
    weights: Weights,
}

/// Where a model's weights are looked for.
#[derive(Debug)]
enum Weights {
    /// A directory or a file.
    Path(PathBuf),
    /// The file that the configuration came from.
    Gguf(Arc<Gguf>),
}

impl ModelDir {
    /// Finds and reads the files of `input`.
    pub fn open(input: &Input, overrides: &Overrides) -> Result<Self> {
        let (folder, sentence, config) = match input {
            Input::Gguf(file) => return Self::open_gguf(file, input, overrides),
            Input::Directory(folder) => {
                let sentence = Sentence::open(folder)?;
                let folder = sentence
                    .as_ref()
                    .map_or(folder, |sentence| &sentence.transformer);
                (folder.clone(), sentence.clone(), folder.join("config.json"))
            }
            Input::Config(file) => (
                file.parent().unwrap_or(Path::new("")).to_path_buf(),
                None,
                file.clone(),
            ),
        };
        if matches!(input, Input::Directory(_)) && !config.exists() {
            return Err(Problem::of(&folder, "no config.json")
                .help("expected a Hugging Face model directory, or a configuration file")
                .input());
        }
        let config = Config::read(&config)?;
        let options = config.section("llmc")?;
        let vocabulary = vocabulary(&config)?;
        let generation = Generation::open(
            &folder,
            &config,
            crate::models::text_config(&config)?.as_ref(),
            vocabulary.unwrap_or(crate::limits::VOCABULARY),
        )?;
        let tokenizer = open_tokenizer(&folder, overrides.tokenizer.as_deref(), vocabulary)?;
        let preprocessor = match config.optional_text("model_type")? {
            Some(kind @ ("blip-2" | "clip" | "vit")) => Preprocessor::open(&folder, Some(kind))?,
            _ => None,
        };
        let weights = Weights::Path(overrides.weights.clone().unwrap_or(folder));
        Ok(Self {
            name: name(input),
            config,
            options,
            generation,
            tokenizer,
            preprocessor,
            sentence,
            weights,
        })
    }

    /// A GGUF file holds everything.
    fn open_gguf(file: &Path, input: &Input, overrides: &Overrides) -> Result<Self> {
        let gguf = Arc::new(Gguf::open(file)?);
        let config = gguf.config()?;
        let vocabulary = config.vocab_size()?;
        let tokenizer = match overrides.tokenizer.as_deref() {
            Some(path) => Some(Tokenizer::open(path, Some(vocabulary))?),
            None => Tokenizer::of_gguf(&gguf, Some(vocabulary))?,
        };
        let weights = match &overrides.weights {
            Some(path) => Weights::Path(path.clone()),
            None => Weights::Gguf(gguf.clone()),
        };
        Ok(Self {
            name: name(input),
            generation: gguf.generation(vocabulary)?,
            sentence: gguf.sentence()?,
            preprocessor: None,
            config,
            options: None,
            tokenizer,
            weights,
        })
    }

    /// Maps the weights.
    pub fn weights(&self) -> Result<Box<dyn WeightSource>> {
        match &self.weights {
            Weights::Gguf(gguf) => Ok(Box::new(GgufWeights::new(gguf.clone())?)),
            Weights::Path(path) if path.as_os_str().is_empty() => weights::open(Path::new(".")),
            Weights::Path(path) => weights::open(path),
        }
    }

    /// Whether there are weights, as far as names tell.
    pub fn has_weights(&self) -> bool {
        match &self.weights {
            Weights::Gguf(_) => true,
            Weights::Path(path) => path.is_file() || Checkpoint::is_in(path),
        }
    }
}

fn name(input: &Input) -> String {
    let stem = match input {
        Input::Directory(folder) => folder
            .canonicalize()
            .ok()
            .and_then(|f| f.file_name().map(|n| n.to_owned())),
        Input::Config(file) => file.file_stem().map(|stem| stem.to_owned()),
        Input::Gguf(file) => Gguf::model_name(file).map(Into::into),
    };
    stem.map_or_else(
        || "model".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// The vocabulary of the text model: vision-language configurations nest it.
fn vocabulary(config: &Config) -> Result<Option<u32>> {
    let field = "vocab_size";
    if config.has(field) {
        return config.vocab_size().map(Some);
    }
    match config.section("text_config")? {
        Some(text) => text.optional_count(field, 1..=crate::limits::VOCABULARY),
        None => Ok(None),
    }
}

fn open_tokenizer(
    folder: &Path,
    given: Option<&Path>,
    vocabulary: Option<u32>,
) -> Result<Option<Tokenizer>> {
    let found = given
        .map(Path::to_path_buf)
        .or_else(|| Tokenizer::find(folder));
    let opened = found.map(|path| Tokenizer::open(&path, vocabulary));
    opened.transpose()
}
