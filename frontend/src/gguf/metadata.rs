//! Keys and values of a GGUF file, read by type.
//!
//! In: the values of a header. Out: integers, numbers, texts and lists of them, within bounds; or errors that name
//! file, key, what was found and what was expected.
//!
//! Invariants: nothing is copied but what is asked for; a list is at most [`LIST`] long.
//!
//! Not here: which keys there are and what they mean.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Number;

use super::value::{self, Array, Value, ValueType};
use crate::error::{Excerpt, FrontendError, Problem, Result};
use crate::json::Json;
use crate::weights::mapping::Mapping;

/// Elements of a list: tokens of a vocabulary, and merges.
const LIST: usize = 1 << 24;
/// Elements of a list that becomes JSON: something of every layer.
const SHORT_LIST: usize = 4096;

/// Keys and values.
#[derive(Debug)]
pub struct Metadata {
    map: Arc<Mapping>,
    values: IndexMap<String, Value>,
}

impl Metadata {
    /// The values of a mapped file, which holds the places that they name.
    pub fn new(map: Arc<Mapping>, values: IndexMap<String, Value>) -> Self {
        Self { map, values }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// The file's bytes.
    pub fn map(&self) -> &Mapping {
        &self.map
    }

    /// All keys, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// The beginning of an error about a key.
    pub fn problem(&self, key: &str, what: impl Into<String>) -> Problem {
        Problem::of(self.path(), what).field(key)
    }

    /// An error about the value of a key.
    pub fn wrong(&self, key: &str, expected: impl fmt::Display) -> FrontendError {
        self.problem(key, format!("{}, expected {expected}", self.found(key)))
            .input()
    }

    /// A refusal of a value that this compiler cannot honour.
    pub fn refuse(&self, key: &str, supported: impl fmt::Display) -> FrontendError {
        self.problem(
            key,
            format!("{}, supported is {supported}", self.found(key)),
        )
        .unsupported()
    }

    /// What stands there, for a message.
    fn found(&self, key: &str) -> String {
        match self.values.get(key) {
            None => "missing".into(),
            Some(value) => format!("found {}", self.describe(value)),
        }
    }

    fn describe(&self, value: &Value) -> String {
        match value {
            Value::Integer(n) => n.to_string(),
            Value::Real(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::String(place) => {
                let shown = &self.map.bytes()[place.start..place.end.min(place.start + 1000)];
                format!("\"{}\"", Excerpt(&String::from_utf8_lossy(shown)))
            }
            Value::Array(array) => format!("an array of {} {}", array.len, array.of),
        }
    }

    /// An integer, if the key is there.
    pub fn optional_count(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        let count = match value {
            Value::Integer(n) => u32::try_from(*n).ok().filter(|n| range.contains(n)),
            _ => None,
        };
        count.map(Some).ok_or_else(|| {
            let expected = format_args!("an integer from {} to {}", range.start(), range.end());
            self.wrong(key, expected)
        })
    }

    /// An integer, or what an absent key means.
    pub fn count_or(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32> {
        Ok(self.optional_count(key, range)?.unwrap_or(default))
    }

    /// A boolean, if the key is there.
    pub fn optional_flag(&self, key: &str) -> Result<Option<bool>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A text, if the key is there.
    pub fn optional_text(&self, key: &str) -> Result<Option<&str>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::String(place)) => std::str::from_utf8(&self.map.bytes()[place.clone()])
                .map(Some)
                .map_err(|_| self.problem(key, "a text that is not valid UTF-8").input()),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A text that has to be there.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.optional_text(key)?
            .ok_or_else(|| self.wrong(key, "a text"))
    }

    fn array(&self, key: &str, of: &[ValueType], expected: &str) -> Result<Option<&Array>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if of.contains(&array.of) && array.len <= LIST => {
                Ok(Some(array))
            }
            Some(_) => Err(self.wrong(key, format_args!("at most {LIST} {expected}"))),
        }
    }

    /// Texts, if the key is there.
    pub fn optional_texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(array) = self.array(key, &[ValueType::String], "texts")? else {
            return Ok(None);
        };
        let mut rest = &self.map.bytes()[array.place.clone()];
        let mut texts = Vec::with_capacity(array.len);
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            let Some((text, after)) = after.split_at_checked(length) else {
                return Err(self
                    .problem(key, "the file changed while it was read")
                    .input());
            };
            let text = std::str::from_utf8(text).map_err(|_| {
                let text = Excerpt(&String::from_utf8_lossy(text)).to_string();
                let what = format!("text {}: \"{text}\" is not valid UTF-8", texts.len());
                self.problem(key, what).input()
            })?;
            texts.push(text);
            rest = after;
        }
        Ok(Some(texts))
    }

    /// Numbers of type f32, none of them NaN, if the key is there.
    pub fn optional_reals(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let Some(array) = self.array(key, &[ValueType::F32], "numbers of type f32")? else {
            return Ok(None);
        };
        let bytes = self.map.bytes()[array.place.clone()].chunks_exact(4);
        let values: Vec<f32> = bytes
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        match values.iter().position(|value| value.is_nan()) {
            None => Ok(Some(values)),
            Some(at) => Err(self.problem(&format!("{key}[{at}]"), "found NaN").input()),
        }
    }

    /// Bytes, whatever their sign, if the key is there.
    pub fn optional_bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        let array = self.array(key, &[ValueType::I8, ValueType::U8], "bytes")?;
        Ok(array.map(|array| &self.map.bytes()[array.place.clone()]))
    }

    /// Integers of 32 bits from 0, if the key is there.
    pub fn optional_counts(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let of = [ValueType::I32, ValueType::U32];
        let Some(array) = self.array(key, &of, "integers of 32 bits")? else {
            return Ok(None);
        };
        let bytes = self.map.bytes()[array.place.clone()].chunks_exact(4);
        let values: Vec<u32> = bytes
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        match values.iter().position(|value| *value > i32::MAX as u32) {
            None => Ok(Some(values)),
            Some(at) => {
                let what = "expected an integer from 0 to 2147483647";
                Err(self.problem(&format!("{key}[{at}]"), what).input())
            }
        }
    }

    /// The value as JSON, for a configuration; what JSON has no word for becomes a string.
    pub fn json(&self, key: &str) -> Result<Option<Json>> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        Ok(Some(match value {
            Value::Array(array) if array.len > SHORT_LIST => {
                return Err(self.wrong(key, format_args!("at most {SHORT_LIST} elements")));
            }
            Value::Array(array) => match array.of.bytes() {
                None => {
                    let texts = self.optional_texts(key)?.unwrap_or_default();
                    Json::Array(texts.iter().map(|t| Json::String((*t).into())).collect())
                }
                Some(bytes) => {
                    let elements =
                        self.map.bytes()[array.place.clone()].chunks_exact(bytes as usize);
                    let elements = elements.map(|bytes| match value::scalar(array.of, bytes) {
                        Ok(value) => Ok(self.scalar(&value)),
                        Err(what) => Err(self.problem(key, what).input()),
                    });
                    Json::Array(elements.collect::<Result<_>>()?)
                }
            },
            Value::String(_) => Json::String(self.text(key)?.to_owned()),
            scalar => self.scalar(scalar),
        }))
    }

    fn scalar(&self, value: &Value) -> Json {
        let number = match value {
            Value::Bool(value) => return Json::Bool(*value),
            Value::Integer(n) => match u64::try_from(*n) {
                Ok(n) => Some(n.into()),
                Err(_) => i64::try_from(*n).ok().map(Number::from),
            },
            Value::Real(x) => Number::from_f64(*x),
            Value::String(_) | Value::Array(_) => None,
        };
        number.map_or_else(|| Json::String(self.describe(value)), Json::Number)
    }
}
