//! Chat templates: where Hugging Face keeps them.
//!
//! In: `chat_template.jinja`, `additional_chat_templates/*.jinja`, or `chat_template` in
//! `tokenizer_config.json`, a string or a list of named ones. Out: [`ChatTemplate`]s, `default` first.
//!
//! Invariants: a file wins over the field; names are unique; sizes are bounded.
//!
//! Not here: Jinja.

use std::path::Path;

use crate::config::Config;
use crate::error::{FrontendError, Problem, Result};
use crate::json::{Json, read_bounded};

const SIZE: u64 = 1 << 20;
const COUNT: usize = 64;

/// A Jinja template that renders messages to a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTemplate {
    /// `default`, or what it is for: `tool_use`, `rag`.
    pub name: String,
    /// The source.
    pub source: String,
}

impl ChatTemplate {
    /// A template of bounded size; else what is wrong with it.
    pub fn new(name: &str, source: &str) -> Result<Self, String> {
        match source.len() as u64 <= SIZE {
            true => Ok(Self {
                name: name.into(),
                source: source.into(),
            }),
            false => Err(format!(
                "a template of {} bytes, expected at most {SIZE}",
                source.len()
            )),
        }
    }
}

/// Reads all templates of a directory.
pub fn read(folder: &Path, settings: Option<&Config>) -> Result<Vec<ChatTemplate>> {
    let mut templates = from_files(folder)?;
    if templates.is_empty() {
        templates = settings.map(from_settings).transpose()?.unwrap_or_default();
    }
    templates.sort_by_key(|template| template.name != "default");
    Ok(templates)
}

fn from_files(folder: &Path) -> Result<Vec<ChatTemplate>> {
    let mut templates = Vec::new();
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        templates.push(ChatTemplate {
            name: "default".into(),
            source: read_source(&path)?,
        });
    }
    let more = folder.join("additional_chat_templates");
    if more.is_dir() {
        let entries = std::fs::read_dir(&more).map_err(|e| FrontendError::io("read", &more, e))?;
        let mut names: Vec<_> = entries
            .flatten()
            .take(1000)
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names
            .iter()
            .filter_map(|name| name.strip_suffix(".jinja"))
            .take(COUNT)
        {
            let source = read_source(&more.join(format!("{name}.jinja")))?;
            templates.push(ChatTemplate {
                name: name.into(),
                source,
            });
        }
    }
    Ok(templates)
}

fn read_source(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, SIZE)?;
    String::from_utf8(bytes).map_err(|_| Problem::of(path, "not valid UTF-8").input())
}

fn from_settings(settings: &Config) -> Result<Vec<ChatTemplate>> {
    const FIELD: &str = "chat_template";
    let wrong = || {
        settings.wrong(
            FIELD,
            "a template, or a list of objects with `name` and `template`",
        )
    };
    let template = |name: &str, source: &str| {
        let template = ChatTemplate::new(name, source);
        template.map_err(|what| settings.problem(FIELD, what).input())
    };
    match settings.get(FIELD) {
        None => Ok(Vec::new()),
        Some(Json::String(source)) => Ok(vec![template("default", source)?]),
        Some(Json::Array(list)) if list.len() <= COUNT => {
            let mut templates: Vec<ChatTemplate> = Vec::new();
            for entry in list {
                let text = |key: &str| {
                    entry
                        .as_object()
                        .and_then(|e| e.get(key))
                        .and_then(Json::as_str)
                        .ok_or_else(wrong)
                };
                let template = template(text("name")?, text("template")?)?;
                if templates.iter().any(|other| other.name == template.name) {
                    return Err(settings
                        .problem(FIELD, "two templates have the same name")
                        .input());
                }
                templates.push(template);
            }
            Ok(templates)
        }
        Some(_) => Err(wrong()),
    }
}
