//! `config.json`, read field by field with precise complaints.
//!
//! In: a JSON object. Out: typed fields within bounds. Both spellings of transformers are understood where they
//! differ in name only (`dtype` and `torch_dtype`); rope's two layouts are `rope`'s business.
//!
//! Invariants: no accessor panics or returns a value outside the range asked for; `null` means absent; an
//! integer has to be written as one (`4.0` is refused); every error names the file, the field, what was found
//! and what was expected.
//!
//! Not here: which fields a family has and what their defaults are (`models/<family>.rs`).

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::error::{Excerpt, FrontendError, Problem, Result};
use crate::json::{Json, Limits, Object};
use crate::limits;

/// An object of a configuration file: the whole file, or a section of it.
#[derive(Clone, Debug)]
pub struct Config {
    file: Arc<Path>,
    /// Where the section stands: empty, or `rope_scaling.`.
    at: String,
    members: Arc<Object>,
    /// Fields that stand in the file under another name: field → the file's name for it.
    names: Arc<IndexMap<String, String>>,
}

/// The type in which a checkpoint says its weights are to be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl Config {
    /// Reads a file that holds one object.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(path, Json::read(path, Limits::CONFIG)?)
    }

    /// Takes a value that was read already; `path` is named in errors.
    pub fn from_json(path: &Path, value: Json) -> Result<Self> {
        match value {
            Json::Object(members) => Ok(Self {
                file: path.into(),
                at: String::new(),
                members,
                names: Arc::default(),
            }),
            other => Err(Problem::of(
                path,
                format!("found {}, expected an object", other.describe()),
            )
            .input()),
        }
    }

    /// A configuration out of a file of another format: its fields, and the names that messages give them.
    pub fn from_parts(path: &Path, members: Object, names: Arc<IndexMap<String, String>>) -> Self {
        Self {
            file: path.into(),
            at: String::new(),
            members: Arc::new(members),
            names,
        }
    }

    /// The same, where fields stand under names of the family's own: (the usual name, the file's).
    pub fn with_names(&self, fields: &[(&str, &str)]) -> Self {
        let mut members = Object::clone(&self.members);
        let mut names = IndexMap::clone(&self.names);
        for (usual, own) in fields {
            if let Some(value) = self.members.get(*own) {
                members.insert((*usual).to_owned(), value.clone());
            }
            names.insert(format!("{}{usual}", self.at), self.called(own));
        }
        Self {
            members: Arc::new(members),
            names: Arc::new(names),
            ..self.clone()
        }
    }

    /// The file, for messages.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file without its folder, for messages.
    pub fn file_name(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The members, for callers that walk them.
    pub fn members(&self) -> &Object {
        &self.members
    }

    /// The raw value of a field; `null` is absent.
    pub fn get(&self, field: &str) -> Option<&Json> {
        self.members
            .get(field)
            .filter(|value| **value != Json::Null)
    }

    /// Whether the field is there, and not `null`.
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// An error about the value of a field.
    pub fn wrong(&self, field: &str, expected: impl fmt::Display) -> FrontendError {
        self.problem(field, format!("{}, expected {expected}", self.found(field)))
            .input()
    }

    /// A refusal of a value that is valid, but that this compiler cannot honour.
    pub fn refuse(&self, field: &str, expected: impl fmt::Display) -> FrontendError {
        self.problem(
            field,
            format!("{}, supported is {expected}", self.found(field)),
        )
        .unsupported()
    }

    /// The beginning of an error about a field.
    pub fn problem(&self, field: &str, what: impl Into<String>) -> Problem {
        Problem::of(&self.file, what).field(self.called(field))
    }

    /// What a message calls a field: where it stands in the file.
    fn called(&self, field: &str) -> String {
        let path = format!("{}{field}", self.at);
        self.names.get(&path).cloned().unwrap_or(path)
    }

    fn found(&self, field: &str) -> String {
        match self.members.get(field) {
            Some(value) => format!("found {}", value.describe()),
            None => "missing".into(),
        }
    }

    /// An integer, if the field is there.
    pub fn optional_count(&self, field: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let count = value.as_u64().and_then(|value| u32::try_from(value).ok());
        match count.filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(self.wrong(
                field,
                format_args!("an integer from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// An integer that has to be there.
    pub fn count(&self, field: &str, range: RangeInclusive<u32>) -> Result<u32> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.optional_count(field, range)?
            .ok_or_else(|| self.wrong(field, expected))
    }

    /// An integer, or the family's default.
    pub fn count_or(&self, field: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32> {
        Ok(self.optional_count(field, range)?.unwrap_or(default))
    }

    /// A finite number, if the field is there.
    pub fn optional_real(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        match value.as_f64().filter(|value| range.contains(value)) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(
                field,
                format_args!("a number from {} to {}", range.start(), range.end()),
            )),
        }
    }

    /// A finite number that has to be there.
    pub fn real(&self, field: &str, range: RangeInclusive<f64>) -> Result<f64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.optional_real(field, range)?
            .ok_or_else(|| self.wrong(field, expected))
    }

    /// A finite number, or the family's default.
    pub fn real_or(&self, field: &str, range: RangeInclusive<f64>, default: f64) -> Result<f64> {
        Ok(self.optional_real(field, range)?.unwrap_or(default))
    }

    /// The epsilon of a norm.
    pub fn epsilon(&self, field: &str, default: f64) -> Result<f64> {
        self.real_or(field, 0.0..=1.0, default)
    }

    /// A boolean, or the family's default.
    pub fn flag_or(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.wrong(field, "true or false")),
        }
    }

    /// A string, if the field is there.
    pub fn optional_text(&self, field: &str) -> Result<Option<&str>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .ok_or_else(|| self.wrong(field, "a string")),
        }
    }

    /// A string that has to be there.
    pub fn text(&self, field: &str) -> Result<&str> {
        self.optional_text(field)?
            .ok_or_else(|| self.wrong(field, "a string"))
    }

    /// A list of strings, if the field is there.
    pub fn optional_texts(&self, field: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .and_then(|values| values.iter().map(Json::as_str).collect());
        texts
            .map(Some)
            .ok_or_else(|| self.wrong(field, "an array of strings"))
    }

    /// A list of integers; empty if the field is not there.
    pub fn counts(&self, field: &str, range: RangeInclusive<u32>) -> Result<Vec<u32>> {
        let Some(value) = self.get(field) else {
            return Ok(Vec::new());
        };
        let count = |value: &Json| {
            let count = value.as_u64().and_then(|value| u32::try_from(value).ok());
            count.filter(|count| range.contains(count))
        };
        let counts = value
            .as_array()
            .and_then(|values| values.iter().map(count).collect());
        counts.ok_or_else(|| {
            let (start, end) = (range.start(), range.end());
            self.wrong(
                field,
                format_args!("an array of integers from {start} to {end}"),
            )
        })
    }

    /// A list of finite numbers that has to be there.
    pub fn reals(&self, field: &str, range: RangeInclusive<f64>) -> Result<Vec<f64>> {
        let (start, end) = (range.start(), range.end());
        let expected = format!("an array of numbers from {start} to {end}");
        let real = |value: &Json| value.as_f64().filter(|value| range.contains(value));
        let values = self.get(field).and_then(Json::as_array);
        let reals = values.and_then(|values| values.iter().map(real).collect());
        reals.ok_or_else(|| self.wrong(field, expected))
    }

    /// A section, if the field is there.
    pub fn section(&self, field: &str) -> Result<Option<Config>> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Object(members)) => Ok(Some(Config {
                file: self.file.clone(),
                at: format!("{}{field}.", self.at),
                members: members.clone(),
                names: self.names.clone(),
            })),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    /// A section, which may be missing; fields that are missing in it have these values.
    pub fn section_or(&self, field: &str, defaults: &[(&str, u32)]) -> Result<Config> {
        let section = match self.section(field)? {
            Some(section) => section,
            None => Config {
                at: format!("{}{field}.", self.at),
                members: Arc::default(),
                ..self.clone()
            },
        };
        let mut members = Object::clone(&section.members);
        for (field, value) in defaults.iter().filter(|(field, _)| !section.has(field)) {
            members.insert((*field).to_owned(), Json::Number((*value).into()));
        }
        Ok(Config {
            members: Arc::new(members),
            ..section
        })
    }

    /// One id, a list of ids, or nothing; each below `vocabulary`.
    pub fn token_ids(&self, field: &str, vocabulary: u32) -> Result<Vec<u32>> {
        let expected = format!("a token id below {vocabulary}, or an array of them");
        let id = |value: &Json| {
            let id = value.as_u64().filter(|id| *id < u64::from(vocabulary));
            id.and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.wrong(field, &expected))
        };
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(Json::Array(values)) if values.len() <= 1024 => values.iter().map(id).collect(),
            Some(value) => Ok(vec![id(value)?]),
        }
    }

    /// The names of the classes that the checkpoint was saved from; may be empty.
    pub fn architectures(&self) -> Result<Vec<&str>> {
        Ok(self.optional_texts("architectures")?.unwrap_or_default())
    }

    /// `dtype` or `torch_dtype`.
    pub fn model_type(&self) -> Result<Option<ModelType>> {
        let field = if self.has("dtype") {
            "dtype"
        } else {
            "torch_dtype"
        };
        let Some(text) = self.optional_text(field)? else {
            return Ok(None);
        };
        match text.strip_prefix("torch.").unwrap_or(text) {
            "float32" | "float" => Ok(Some(ModelType::F32)),
            "float16" | "half" => Ok(Some(ModelType::F16)),
            "bfloat16" => Ok(Some(ModelType::BF16)),
            "auto" => Ok(None),
            _ => Err(self.refuse(field, "\"float32\", \"float16\" or \"bfloat16\"")),
        }
    }

    /// `hidden_size`.
    pub fn hidden_size(&self) -> Result<u32> {
        self.count("hidden_size", 1..=limits::WIDTH)
    }

    /// The width of the residual stream under either name: `hidden_size`, or T5's `d_model`.
    pub fn width(&self) -> Result<u32> {
        match self.has("hidden_size") {
            true => self.hidden_size(),
            false if self.has("d_model") => self.count("d_model", 1..=limits::WIDTH),
            false => self.hidden_size(),
        }
    }

    /// `num_hidden_layers`.
    pub fn layers(&self) -> Result<u32> {
        self.count("num_hidden_layers", 1..=limits::LAYERS)
    }

    /// `intermediate_size`.
    pub fn intermediate_size(&self) -> Result<u32> {
        self.count("intermediate_size", 1..=limits::WIDTH)
    }

    /// `vocab_size`.
    pub fn vocab_size(&self) -> Result<u32> {
        self.count("vocab_size", 1..=limits::VOCABULARY)
    }

    /// `max_position_embeddings`.
    pub fn positions(&self) -> Result<u32> {
        self.count("max_position_embeddings", 1..=limits::POSITIONS)
    }

    /// Multi-head attention: `num_attention_heads`, each with an equal share of the hidden size.
    pub fn heads(&self) -> Result<Heads> {
        let query = self.count("num_attention_heads", 1..=limits::HEADS)?;
        let dim = self.equal_share(query)?;
        Ok(Heads {
            query,
            key_value: query,
            dim,
        })
    }

    /// Grouped-query attention: `num_attention_heads`, `num_key_value_heads` (if the field is absent the family's
    /// default, if that is `None` or the field is `null` as many) and `head_dim` (by default an equal share of
    /// the hidden size).
    pub fn grouped_heads(&self, default: Option<u32>) -> Result<Heads> {
        self.grouped_heads_of(default, None)
    }

    /// The same, with the family's default for `head_dim`.
    pub fn grouped_heads_of(&self, default: Option<u32>, head_dim: Option<u32>) -> Result<Heads> {
        const FIELD: &str = "num_key_value_heads";
        let query = self.count("num_attention_heads", 1..=limits::HEADS)?;
        let default = default.filter(|_| !self.members.contains_key(FIELD));
        let key_value = self.count_or(FIELD, 1..=limits::HEADS, default.unwrap_or(query))?;
        if !query.is_multiple_of(key_value) {
            let heads = self.called("num_attention_heads");
            let what = format!("found {key_value}, expected a divisor of {heads} ({query})");
            return Err(self.problem(FIELD, what).input());
        }
        let dim = match self.optional_count("head_dim", 1..=limits::HEAD_DIM)? {
            Some(dim) => dim,
            None => match head_dim {
                Some(dim) => dim,
                None => self.equal_share(query)?,
            },
        };
        if u64::from(query) * u64::from(dim) > u64::from(limits::WIDTH) {
            let what = format!(
                "{query} heads × head_dim {dim}, expected a product of at most {}",
                limits::WIDTH
            );
            return Err(self.problem("num_attention_heads", what).input());
        }
        Ok(Heads {
            query,
            key_value,
            dim,
        })
    }

    fn equal_share(&self, heads: u32) -> Result<u32> {
        let hidden = self.hidden_size()?;
        if hidden.is_multiple_of(heads) {
            return Ok(hidden / heads);
        }
        let width = self.called("hidden_size");
        let what = format!("found {heads}, expected a divisor of {width} ({hidden})");
        Err(self.problem("num_attention_heads", what).input())
    }

    /// Names what the file says it is, for errors about the whole file.
    pub fn what_it_is(&self) -> String {
        let text = |value: &Json| value.as_str().map(|text| Excerpt(text).to_string());
        let class = self
            .get("architectures")
            .and_then(Json::as_array)
            .and_then(|names| names.first())
            .and_then(text);
        class
            .or_else(|| self.get("model_type").and_then(text))
            .unwrap_or_else(|| "unknown".into())
    }
}

/// How attention splits its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: u32,
    /// Key and value heads; divides `query`.
    pub key_value: u32,
    /// Dimension of each.
    pub dim: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let path = Path::new("config.json");
        Config::from_json(
            path,
            Json::parse(path, text.as_bytes(), Limits::CONFIG).unwrap(),
        )
        .unwrap()
    }

    #[track_caller]
    fn check<T: fmt::Debug>(text: &str, read: impl Fn(&Config) -> Result<T>, expected: &str) {
        let found = match read(&config(text)) {
            Ok(value) => format!("{value:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn integers_have_bounds_and_are_integers() {
        let read = |c: &Config| c.count("n", 1..=8);
        check("{\"n\": 8}", read, "8");
        let complain =
            |found| format!("config.json: `n`: {found}, expected an integer from 1 to 8");
        check("{}", read, &complain("missing"));
        check("{\"n\": null}", read, &complain("found null"));
        check("{\"n\": 0}", read, &complain("found 0"));
        check("{\"n\": -1}", read, &complain("found -1"));
        check("{\"n\": 4.0}", read, &complain("found 4.0"));
        check("{\"n\": \"4\"}", read, &complain("found \"4\""));
        check("{\"n\": 1e30}", read, &complain("found 1e+30"));
        check("{\"n\": [4]}", read, &complain("found an array of 1"));
    }

    #[test]
    fn heads_divide() {
        let read = |c: &Config| c.grouped_heads(None);
        check(
            "{\"hidden_size\": 24, \"num_attention_heads\": 4, \"num_key_value_heads\": 2}",
            read,
            "Heads { query: 4, key_value: 2, dim: 6 }",
        );
        check(
            "{\"hidden_size\": 24, \"num_attention_heads\": 5}",
            read,
            "config.json: `num_attention_heads`: found 5, expected a divisor of hidden_size (24)",
        );
        check(
            "{\"hidden_size\": 24, \"num_attention_heads\": 4, \"num_key_value_heads\": 3}",
            read,
            "config.json: `num_key_value_heads`: found 3, expected a divisor of num_attention_heads (4)",
        );
    }

    #[test]
    fn the_type_has_two_spellings() {
        let read = |c: &Config| c.model_type();
        check("{\"torch_dtype\": \"bfloat16\"}", read, "Some(BF16)");
        check("{\"dtype\": \"torch.float16\"}", read, "Some(F16)");
        check("{}", read, "None");
        check(
            "{\"dtype\": \"float8_e4m3fn\"}",
            read,
            "not supported yet: config.json: `dtype`: found \"float8_e4m3fn\", supported is \"float32\", \
             \"float16\" or \"bfloat16\"",
        );
    }

    #[test]
    fn ids_are_one_or_many() {
        let read = |c: &Config| c.token_ids("eos_token_id", 10);
        check("{\"eos_token_id\": 2}", read, "[2]");
        check("{\"eos_token_id\": [2, 9]}", read, "[2, 9]");
        check("{}", read, "[]");
        check(
            "{\"eos_token_id\": [2, 10]}",
            read,
            "config.json: `eos_token_id`: found an array of 2, expected a token id below 10, or an array of them",
        );
    }
}
