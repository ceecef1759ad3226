//! Reads untrusted JSON files.
//!
//! In: a path. Out: a [`Json`] tree that keeps the order of the file.
//!
//! Invariants: only regular files are opened (a pipe would block); the size of the file, the number of values
//! and the depth are bounded before anything is allocated for them; a key that occurs twice in an object is an
//! error, since readers disagree on which one counts; `NaN` and `Infinity` are not JSON.
//!
//! Not here: what the fields mean (`config`, `tokenizer`, `sentence`).

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::error::{Excerpt, FrontendError, Problem, Result};

/// The members of an object, in the order of the file.
pub type Object = IndexMap<String, Json>;

/// A JSON value; objects are shared, so that a part of a file can be kept without copying it.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer of 64 bits, or a double.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Arc<Object>),
}

/// How large a file may be, and how many values may stand in it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub bytes: u64,
    /// Values, members of arrays and objects included.
    pub values: usize,
}

impl Limits {
    /// Configurations and indices.
    pub const CONFIG: Self = Self {
        bytes: 64 << 20,
        values: 4 << 20,
    };
    /// Tokenizers: a vocabulary of 2^18 with its merges is 33 MB and two million values.
    pub const TOKENIZER: Self = Self {
        bytes: 256 << 20,
        values: 8 << 20,
    };
}

impl Json {
    /// Reads and parses a file.
    pub fn read(path: &Path, limits: Limits) -> Result<Self> {
        Self::parse(path, &read_bounded(path, limits.bytes)?, limits)
    }

    /// Parses bytes; `path` is only named in errors.
    pub fn parse(path: &Path, bytes: &[u8], limits: Limits) -> Result<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let left = Cell::new(limits.values);
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Seed { left: &left }.deserialize(&mut reader);
        value
            .and_then(|value| reader.end().map(|()| value))
            .map_err(|error| {
                let problem = Problem::of(
                    path,
                    format!("not valid JSON: {}", Excerpt(&error.to_string())),
                );
                match error.classify() {
                    serde_json::error::Category::Eof => problem.help("is the download complete?"),
                    _ => problem,
                }
                .input()
            })
    }

    /// The kind and, where it is short, the value, for `found …` in an error.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::String(value) => format!("\"{}\"", Excerpt(value)),
            Self::Array(values) => format!("an array of {}", values.len()),
            Self::Object(members) => format!("an object of {}", members.len()),
        }
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub fn as_object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Json]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The value as a non-negative integer; `4.0` is not one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(value) => value.as_u64(),
            _ => None,
        }
    }

    /// The value as a finite double, integers included.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(value) => value.as_f64().filter(|value| value.is_finite()),
            _ => None,
        }
    }

    /// The value, if it is a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

macro_rules! json_from {
    ($($from:ty, $value:ident => $json:expr;)*) => {
        $(impl From<$from> for Json {
            fn from($value: $from) -> Self {
                $json
            }
        })*
    };
}

json_from! {
    bool, value => Self::Bool(value);
    u32, value => Self::Number(value.into());
    u64, value => Self::Number(value.into());
    // JSON has no word for what is not finite.
    f64, value => Number::from_f64(value).map_or(Self::Null, Self::Number);
    &str, value => Self::String(value.to_owned());
    String, value => Self::String(value);
    Vec<Json>, value => Self::Array(value);
    Object, value => Self::Object(Arc::new(value));
}

/// Reads a whole regular file of at most `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = open_regular(path)?;
    let too_large = |found: &str| {
        Problem::of(
            path,
            format!("the file has {found} bytes, expected at most {limit}"),
        )
        .input()
    };
    if length > limit {
        return Err(too_large(&length.to_string()));
    }
    let mut bytes = Vec::new();
    // The length may change while we read: the limit holds all the same.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| FrontendError::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(too_large("more"));
    }
    Ok(bytes)
}

/// Opens a regular file (or a link to one) and tells its length.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let metadata = std::fs::metadata(path).map_err(|e| FrontendError::io("open", path, e))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() {
            "a directory"
        } else {
            "neither a file nor a directory"
        };
        return Err(Problem::of(path, format!("found {found}, expected a regular file")).input());
    }
    let file = File::open(path).map_err(|e| FrontendError::io("open", path, e))?;
    let length = file
        .metadata()
        .map_err(|e| FrontendError::io("open", path, e))?
        .len();
    Ok((file, length))
}

/// Builds a [`Json`] and counts its values down.
#[derive(Clone, Copy)]
struct Seed<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value)
            .map(Json::Number)
            .ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Object::new();
        while let Some(key) = map.next_key::<String>()? {
            match members.entry(key) {
                Entry::Vacant(entry) => entry.insert(map.next_value_seed(self)?),
                Entry::Occupied(entry) => {
                    return Err(A::Error::custom(format_args!(
                        "key `{}` occurs twice",
                        Excerpt(entry.key())
                    )));
                }
            };
        }
        Ok(Json::Object(Arc::new(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match Json::parse(
            Path::new("x.json"),
            text.as_bytes(),
            Limits {
                bytes: 1 << 20,
                values: 8,
            },
        ) {
            Ok(value) => value.describe(),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{text}: {found}");
    }

    #[test]
    fn values_are_read_or_refused() {
        check("{\"a\": 1, \"b\": [true]}", "an object of 2");
        check("{\"a\": 1, \"a\": 2}", "key `a` occurs twice");
        check("{\"a\": NaN}", "x.json: not valid JSON");
        check("{\"a\": 1e999}", "number out of range");
        check("{\"a\": 1} 2", "trailing characters");
        check("{\"a\": ", "is the download complete?");
        check("[1,2,3,4,5,6,7,8]", "too many values");
        check(&"[".repeat(5000), "");
        check(
            &format!("{}{}", "[".repeat(7), "]".repeat(7)),
            "an array of 1",
        );
    }

    #[test]
    fn depth_is_bounded() {
        let text = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let error = Json::parse(Path::new("x.json"), text.as_bytes(), Limits::CONFIG).unwrap_err();
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
}
