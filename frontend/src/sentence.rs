//! Directories of sentence-transformers: `modules.json` and what it lists.
//!
//! In: a directory. Out: [`Sentence`], how a sentence's tokens become one vector, or nothing if there is no
//! `modules.json`.
//!
//! Invariants: the list is a Transformer, a Pooling, and perhaps a Normalize, in this order; paths stay inside
//! the directory; exactly one pooling mode is on.
//!
//! Not here: other modules (Dense, …) and modes, which are refused by name; the arithmetic of pooling.

use std::path::{Component, Path, PathBuf};

use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::json::{Json, Limits};
use crate::limits;

/// How token vectors become one vector of the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the tokens that the attention mask keeps.
    Mean,
    /// The first token.
    Cls,
    /// The maximum, dimension by dimension.
    Max,
    /// The last token that the attention mask keeps.
    LastToken,
}

/// A sentence-transformers model.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// Where the Transformer's files are: the directory, or `0_Transformer` in older ones.
    pub transformer: PathBuf,
    /// How tokens are pooled.
    pub pooling: Pooling,
    /// The width that the Pooling module expects, and the field that says so.
    pub width: Option<(Config, &'static str, u32)>,
    /// Whether the result is divided by its L2 norm.
    pub normalize: bool,
    /// The longest input in tokens, if it is bounded.
    pub max_tokens: Option<u32>,
    /// Whether texts are lower-cased before the tokenizer sees them.
    pub lower_case: bool,
    /// What every text begins with, if the model says so.
    pub default_prompt: Option<String>,
}

const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

impl Sentence {
    /// Reads `modules.json` of a directory, if there is one.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("modules.json");
        if !path.exists() {
            return Ok(None);
        }
        let modules = read_modules(&path)?;
        let kinds: Vec<&str> = modules.iter().map(|module| module.kind.as_str()).collect();
        let normalize = match kinds.as_slice() {
            ["Transformer", "Pooling"] => false,
            ["Transformer", "Pooling", "Normalize"] => true,
            _ => {
                let what = format!(
                    "found the modules {}, expected Transformer, Pooling and perhaps Normalize",
                    kinds.join(", ")
                );
                return Err(Problem::of(&path, what).input());
            }
        };
        let transformer = folder.join(&modules[0].path);
        let (pooling, width) = read_pooling(&folder.join(&modules[1].path).join("config.json"))?;
        let (max_tokens, lower_case) = read_transformer(&transformer)?;
        let default_prompt = read_prompt(folder)?;
        Ok(Some(Self {
            transformer,
            pooling,
            width,
            normalize,
            max_tokens,
            lower_case,
            default_prompt,
        }))
    }

    /// Checks that the Pooling module was made for this hidden size.
    pub fn check_width(&self, hidden: u32) -> Result<()> {
        match &self.width {
            Some((config, field, width)) if *width != hidden => {
                let what = format!("found {width}, expected the model's hidden size ({hidden})");
                Err(config.problem(field, what).input())
            }
            _ => Ok(()),
        }
    }
}

struct Module {
    kind: String,
    path: PathBuf,
}

fn read_modules(path: &Path) -> Result<Vec<Module>> {
    let list = Json::read(path, Limits::CONFIG)?;
    let Some(list) = list.as_array() else {
        return Err(Problem::of(
            path,
            format!("found {}, expected an array of modules", list.describe()),
        )
        .input());
    };
    let mut modules = Vec::new();
    for (i, entry) in list.iter().take(17).enumerate() {
        let at = |field: &str| format!("[{i}].{field}");
        let member = |field: &str| entry.as_object().and_then(|members| members.get(field));
        let text = |field: &str| {
            member(field).and_then(Json::as_str).ok_or_else(|| {
                let found = member(field).map_or("missing".into(), |value| {
                    format!("found {}", value.describe())
                });
                Problem::of(path, format!("{found}, expected a string"))
                    .field(at(field))
                    .input()
            })
        };
        let class = text("type")?;
        let kind = class.rsplit('.').next().unwrap_or(class);
        if !matches!(kind, "Transformer" | "Pooling" | "Normalize") {
            let what = format!(
                "found \"{}\", supported are Transformer, Pooling and Normalize",
                Excerpt(class)
            );
            return Err(Problem::of(path, what).field(at("type")).unsupported());
        }
        let relative = Path::new(text("path")?);
        if !relative
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            let what = format!(
                "found \"{}\", expected a folder inside the model's",
                Excerpt(&relative.to_string_lossy())
            );
            return Err(Problem::of(path, what).field(at("path")).input());
        }
        modules.push(Module {
            kind: kind.to_owned(),
            path: relative.to_path_buf(),
        });
    }
    Ok(modules)
}

type Width = Option<(Config, &'static str, u32)>;

fn read_pooling(path: &Path) -> Result<(Pooling, Width)> {
    let c = Config::read(path)?;
    let name = if c.has("embedding_dimension") {
        "embedding_dimension"
    } else {
        "word_embedding_dimension"
    };
    let width = c
        .optional_count(name, 1..=limits::WIDTH)?
        .map(|width| (c.clone(), name, width));
    if let Some(mode) = c.optional_text("pooling_mode")? {
        let pooling = match mode {
            "mean" => Pooling::Mean,
            "cls" => Pooling::Cls,
            "max" => Pooling::Max,
            "lasttoken" => Pooling::LastToken,
            _ => {
                return Err(c.refuse(
                    "pooling_mode",
                    "\"mean\", \"cls\", \"max\" or \"lasttoken\"",
                ));
            }
        };
        return Ok((pooling, width));
    }
    let mut on = Vec::new();
    for field in c.members().keys() {
        if field.starts_with("pooling_mode_") && c.flag_or(field, false)? {
            on.push(field.as_str());
        }
    }
    let pooling = match on.as_slice() {
        ["pooling_mode_mean_tokens"] => Pooling::Mean,
        ["pooling_mode_cls_token"] => Pooling::Cls,
        ["pooling_mode_max_tokens"] => Pooling::Max,
        ["pooling_mode_lasttoken"] => Pooling::LastToken,
        [] => {
            let what =
                "no mode is on, expected one of mean_tokens, cls_token, max_tokens and lasttoken";
            return Err(c.problem("pooling_mode_*", what).input());
        }
        [mode] => return Err(c.refuse(mode, "mean_tokens, cls_token, max_tokens or lasttoken")),
        [_, second, ..] => {
            let what = format!("{} modes are on, supported is one", on.len());
            return Err(c.problem(second, what).unsupported());
        }
    };
    Ok((pooling, width))
}

fn read_transformer(folder: &Path) -> Result<(Option<u32>, bool)> {
    for name in TRANSFORMER_CONFIGS {
        let path = folder.join(name);
        if path.exists() {
            let c = Config::read(&path)?;
            return Ok((
                c.optional_count("max_seq_length", 1..=limits::POSITIONS)?,
                c.flag_or("do_lower_case", false)?,
            ));
        }
    }
    Ok((None, false))
}

fn read_prompt(folder: &Path) -> Result<Option<String>> {
    let path = folder.join("config_sentence_transformers.json");
    if !path.exists() {
        return Ok(None);
    }
    let c = Config::read(&path)?;
    let Some(name) = c.optional_text("default_prompt_name")? else {
        return Ok(None);
    };
    let prompts = c.section("prompts")?;
    let prompt = prompts
        .as_ref()
        .map(|prompts| prompts.optional_text(name))
        .transpose()?
        .flatten();
    match prompt {
        Some(prompt) => Ok(Some(prompt.to_owned())),
        None => Err(c.wrong("default_prompt_name", "a name in `prompts`")),
    }
}
