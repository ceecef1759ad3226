//! `generation_config.json`: when to stop, and how to sample unless told otherwise.
//!
//! In: the file, if there is one, and `config.json`, which older models use for the same fields. Out:
//! [`Generation`], plain values for the executable's metadata.
//!
//! Invariants: ids are below the vocabulary (a pad token beyond it is none); numbers are inside the ranges that samplers accept.
//!
//! Not here: the samplers.

use std::path::Path;

use crate::config::Config;
use crate::error::Result;
use crate::json::Json;
use crate::limits;

/// Tasks that are looked at.
const TASKS: usize = 256;

/// Defaults of text generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end one.
    pub eos: Vec<u32>,
    /// The token that fills rows that ended.
    pub pad: Option<u32>,
    /// The token that a decoder with an encoder starts with.
    pub decoder_start: Option<u32>,
    /// Whether to sample rather than take the likeliest token.
    pub sample: bool,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Keeps so many of the likeliest tokens.
    pub top_k: Option<u32>,
    /// Keeps the likeliest tokens up to this mass.
    pub top_p: Option<f64>,
    /// Drops tokens less likely than this share of the likeliest.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that occurred.
    pub repetition_penalty: Option<f64>,
    /// Bound on new tokens.
    pub max_new_tokens: Option<u32>,
    /// Bound on prompt and new tokens.
    pub max_length: Option<u32>,
    /// Beams.
    pub beams: Option<u32>,
    /// What texts begin with, by the tasks of `task_specific_params`.
    pub prefixes: Vec<(String, String)>,
}

impl Generation {
    /// Reads `generation_config.json` beside `config.json`; what it leaves open comes from `config`. Where another
    /// configuration holds that of the language model, `text`, the ids are first of all those in there: transformers
    /// lets the language model generate by itself.
    pub fn open(
        folder: &Path,
        config: &Config,
        text: Option<&Config>,
        vocabulary: u32,
    ) -> Result<Self> {
        let path = folder.join("generation_config.json");
        let own = if path.exists() {
            Some(Config::read(&path)?)
        } else {
            None
        };
        let first = own.as_ref().unwrap_or(config);
        let all = [text, Some(first), Some(config)];
        let with = |field: &str| all.into_iter().flatten().find(|c| c.has(field));
        let ids = |field: &str| with(field).unwrap_or(config).token_ids(field, vocabulary);
        let id = |field: &str| -> Result<Option<u32>> { Ok(ids(field)?.first().copied()) };
        // Old configurations say −1, or one past the vocabulary, for a model without padding.
        let pad = with("pad_token_id").and_then(|c| c.get("pad_token_id"));
        let pad = pad
            .and_then(Json::as_u64)
            .and_then(|id| u32::try_from(id).ok())
            .filter(|id| *id < vocabulary);
        Ok(Self {
            bos: id("bos_token_id")?,
            eos: ids("eos_token_id")?,
            pad,
            decoder_start: id("decoder_start_token_id")?,
            sample: first.flag_or("do_sample", false)?,
            temperature: first.optional_real("temperature", 0.0..=1e6)?,
            top_k: first.optional_count("top_k", 0..=limits::VOCABULARY)?,
            top_p: first.optional_real("top_p", 0.0..=1.0)?,
            min_p: first.optional_real("min_p", 0.0..=1.0)?,
            repetition_penalty: first.optional_real("repetition_penalty", 1e-6..=1e6)?,
            max_new_tokens: first.optional_count("max_new_tokens", 1..=limits::POSITIONS)?,
            max_length: first.optional_count("max_length", 0..=limits::POSITIONS)?,
            beams: first.optional_count("num_beams", 1..=1024)?,
            prefixes: prefixes(config)?,
        })
    }
}

/// The prefixes of a configuration's tasks.
fn prefixes(config: &Config) -> Result<Vec<(String, String)>> {
    let Some(tasks) = config.section("task_specific_params")? else {
        return Ok(Vec::new());
    };
    let mut prefixes = Vec::new();
    for name in tasks.members().keys().take(TASKS) {
        if let Some(Json::Object(_)) = tasks.get(name)
            && let Some(task) = tasks.section(name)?
            && let Some(prefix) = task.optional_text("prefix")?
        {
            prefixes.push((name.clone(), prefix.to_owned()));
        }
    }
    Ok(prefixes)
}
