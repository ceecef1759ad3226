//! Tokenizers: checked when the model is compiled, so that the executable can trust what it carries.
//!
//! In: `tokenizer.json`, or the files of before (`older`); `tokenizer_config.json`, `chat_template.jinja`. Out:
//! [`Tokenizer`]: the file's bytes as they go into the executable, the special tokens, the chat templates.
//!
//! Invariants: the `tokenizers` crate accepts the file and encodes a sample with it; every id that it can give is
//! below the model's vocabulary, save added tokens that are listed in [`Tokenizer::beyond`]; an added token has
//! the id that the file says.
//!
//! Not here: rendering chat templates and encoding texts (runtime).

pub(crate) mod charsmap;
mod chat;
mod older;
pub(crate) mod piece_merges;
mod structure;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use chat::ChatTemplate;

use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::gguf::Gguf;
use crate::json::{Json, Limits, read_bounded};
use crate::limits;

/// The algorithm behind a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BPE over bytes spelled as letters: GPT-2, Llama 3, Qwen.
    ByteLevelBpe,
    /// BPE over characters with `<0x…>` tokens for the rest: Llama 2, Mistral, Gemma.
    SentencePieceBpe,
    /// BPE over characters, unknown ones lost: GPT-1.
    CharacterBpe,
    /// Longest match with `##` continuations: BERT.
    WordPiece,
    /// The likeliest segmentation: T5, ALBERT.
    Unigram,
}

/// A token with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// The role: `bos`, `eos`, `unk`, `pad`, `cls`, `sep`, `mask`.
    pub role: &'static str,
    /// Its text.
    pub text: String,
    /// Its id; `None` if the vocabulary lacks it.
    pub id: Option<u32>,
}

/// A tokenizer that was checked.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    /// Where `tokenizer.json` is.
    pub file: PathBuf,
    /// The bytes of `tokenizer.json`.
    pub json: Vec<u8>,
    /// The algorithm.
    pub kind: Kind,
    /// Ids in use: one more than the largest.
    pub size: usize,
    /// Added tokens whose ids the model has no rows for (Gemma's text models have one for images): texts that
    /// contain them have to be refused, or the tokens split.
    pub beyond: Vec<(u32, String)>,
    /// Tokens with a role, in a fixed order.
    pub special: Vec<Special>,
    /// Chat templates by name; the one called `default` comes first.
    pub templates: Vec<ChatTemplate>,
    /// The longest input that the tokenizer was made for.
    pub max_tokens: Option<u32>,
    /// Whether decoded English text is cleaned up (` .` → `.`).
    pub clean_up_spaces: bool,
}

const ROLES: [&str; 7] = ["bos", "eos", "unk", "pad", "cls", "sep", "mask"];

impl Tokenizer {
    /// Reads `tokenizer.json` or a file of before (or the directory that holds one, or a GGUF file) and the files
    /// beside it. `vocabulary` is the model's, where there is a model.
    pub fn open(path: &Path, vocabulary: Option<u32>) -> Result<Self> {
        if path.is_file() && Gguf::recognises(path) {
            let missing = || Problem::of(path, "a GGUF file without a tokenizer").input();
            return Self::of_gguf(&Gguf::open(path)?, vocabulary)?.ok_or_else(missing);
        }
        let file = match path.is_dir() {
            true => Self::find(path).unwrap_or_else(|| path.join("tokenizer.json")),
            false => path.to_path_buf(),
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let settings = folder.join("tokenizer_config.json");
        let settings = if settings.exists() {
            Some(Config::read(&settings)?)
        } else {
            None
        };
        let json = match older::is_vocabulary(&file) {
            true => older::write(&file, settings.as_ref(), vocabulary)?,
            false => read_bounded(&file, Limits::TOKENIZER.bytes)?,
        };
        let (tokenizer, mut checked) = check(&file, json, vocabulary)?;
        let map = folder.join("special_tokens_map.json");
        let map = (older::is_vocabulary(&file) && map.exists()).then(|| Config::read(&map));
        let map = map.transpose()?;
        let files: Vec<&Config> = [&settings, &map].into_iter().flatten().collect();
        checked.special = specials(&files, &tokenizer)?;
        if let Some(settings) = &settings {
            // Models without a limit say 10^30.
            checked.max_tokens = settings
                .optional_real("model_max_length", 0.0..=f64::MAX)?
                .filter(|length| (1.0..=f64::from(limits::POSITIONS)).contains(length))
                .map(|length| length as u32);
            checked.clean_up_spaces = settings.flag_or("clean_up_tokenization_spaces", false)?;
        }
        checked.templates = chat::read(folder, settings.as_ref())?;
        Ok(checked)
    }

    /// The file of a folder that holds its tokenizer, `tokenizer.json` before others.
    pub fn find(folder: &Path) -> Option<PathBuf> {
        let json = folder.join("tokenizer.json");
        match json.exists() {
            true => Some(json),
            false => older::vocabulary_file(folder),
        }
    }

    /// Takes the bytes of a `tokenizer.json` that was made out of `file`; roles and templates are left open.
    pub fn of_json(file: &Path, json: Vec<u8>, vocabulary: Option<u32>) -> Result<Self> {
        check(file, json, vocabulary).map(|(_, checked)| checked)
    }

    /// The token of a role.
    pub fn special(&self, role: &str) -> Option<&Special> {
        self.special.iter().find(|special| special.role == role)
    }
}

/// Checks the bytes of a `tokenizer.json`.
fn check(
    file: &Path,
    json: Vec<u8>,
    vocabulary: Option<u32>,
) -> Result<(tokenizers::Tokenizer, Tokenizer)> {
    let structure = structure::check(file, &json, vocabulary)?;
    let tokenizer = load(file, &json)?;
    for (id, token) in &structure.added {
        if tokenizer.token_to_id(token) != Some(*id) {
            let what = match tokenizer.token_to_id(token) {
                Some(found) => format!("`{}` gets id {found}, expected {id}", Excerpt(token)),
                None => format!("`{}` gets no id, expected {id}", Excerpt(token)),
            };
            let problem = Problem::of(file, what).field("added_tokens");
            return Err(problem
                .note("ids of added tokens follow the vocabulary without gaps")
                .input());
        }
    }
    let checked = Tokenizer {
        file: file.to_path_buf(),
        json,
        kind: structure.kind,
        size: structure.size,
        beyond: structure.beyond,
        special: Vec::new(),
        templates: Vec::new(),
        max_tokens: None,
        clean_up_spaces: false,
    };
    Ok((tokenizer, checked))
}

/// Hands the file to the crate that will read it at run time, and encodes a sample.
fn load(file: &Path, json: &[u8]) -> Result<tokenizers::Tokenizer> {
    const SAMPLE: &str = "Hello, wörld! 1234 東京 \u{1f600}\n\tdef f(x):  return x";
    let refuse = |what: &str| {
        Problem::of(file, format!("not a usable tokenizer: {}", Excerpt(what))).input()
    };
    // The crate indexes tables of the file without checking them.
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None)?;
        let encoding = tokenizer.encode(SAMPLE, true)?;
        tokenizer.decode(encoding.get_ids(), false)?;
        Ok::<_, tokenizers::Error>(tokenizer)
    }));
    match attempt {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(refuse(&error.to_string())),
        Err(_) => Err(refuse("its tables contradict each other")),
    }
}

/// The tokens of the roles, by the first file that names them.
fn specials(files: &[&Config], tokenizer: &tokenizers::Tokenizer) -> Result<Vec<Special>> {
    let mut special = Vec::new();
    for role in ROLES {
        let field = format!("{role}_token");
        let Some(settings) = files.iter().find(|file| file.has(&field)) else {
            continue;
        };
        let text = match settings.get(&field) {
            None => continue,
            Some(Json::String(text)) => text.clone(),
            Some(Json::Object(members)) => match members.get("content").and_then(Json::as_str) {
                Some(text) => text.to_owned(),
                None => return Err(settings.wrong(&field, "an object with a string `content`")),
            },
            Some(_) => return Err(settings.wrong(&field, "a string, or an object with `content`")),
        };
        let id = tokenizer.token_to_id(&text);
        special.push(Special { role, text, id });
    }
    Ok(special)
}
