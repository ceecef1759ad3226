//! Attributes in their generic form: what the printer writes, the parser reads, and op structs
//! convert from and to. Keys keep their order; a default is left out by the op itself.

use crate::print::Name;
use std::fmt;

/// One attribute's value.
#[derive(Clone, PartialEq, Debug)]
pub enum AttrValue {
    Int(i64),
    /// Printed with enough digits to come back exactly.
    Float(f64),
    Bool(bool),
    /// A bare word: `silu`, `neox`.
    Word(String),
    /// `[1, 2, 3]`.
    List(Vec<AttrValue>),
    /// `name<key = value, …>`: a structured value, such as `flash<block_q = 64>`.
    Struct(String, Attrs),
    /// A mask expression.
    Mask(crate::Mask),
    /// `(@layer.full, 3)`: a layer class and its slot.
    Layer(String, u32),
}

impl fmt::Display for AttrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttrValue::Int(i) => write!(f, "{i}"),
            AttrValue::Float(x) => write!(f, "{x:?}"),
            AttrValue::Bool(b) => write!(f, "{b}"),
            AttrValue::Word(w) => f.write_str(w),
            AttrValue::List(l) => {
                f.write_str("[")?;
                for (i, v) in l.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{v}")?;
                }
                f.write_str("]")
            }
            AttrValue::Struct(name, attrs) => {
                write!(f, "{name}<")?;
                attrs.write_list(f)?;
                f.write_str(">")
            }
            AttrValue::Mask(m) => write!(f, "{m}"),
            AttrValue::Layer(class, slot) => write!(f, "({}, {slot})", Name('@', class)),
        }
    }
}

/// Attributes in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Attrs(pub Vec<(String, AttrValue)>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `key = value`.
    pub fn with(mut self, key: &str, value: AttrValue) -> Self {
        self.0.push((key.to_string(), value));
        self
    }

    /// Adds `key = value` where there is one.
    pub fn with_some(self, key: &str, value: Option<AttrValue>) -> Self {
        match value {
            Some(v) => self.with(key, v),
            None => self,
        }
    }

    /// Adds `key = true` where `on`.
    pub fn flag(self, key: &str, on: bool) -> Self {
        if on {
            self.with(key, AttrValue::Bool(true))
        } else {
            self
        }
    }

    /// Adds a number.
    pub fn int(self, key: &str, value: impl Into<i64>) -> Self {
        self.with(key, AttrValue::Int(value.into()))
    }

    /// Adds a float; f32 values keep their short decimal form.
    pub fn float(self, key: &str, value: f32) -> Self {
        self.with(key, AttrValue::Float(short(value)))
    }

    /// Adds a double.
    pub fn double(self, key: &str, value: f64) -> Self {
        self.with(key, AttrValue::Float(value))
    }

    /// Adds a bare word.
    pub fn word(self, key: &str, value: &str) -> Self {
        self.with(key, AttrValue::Word(value.to_string()))
    }

    /// `key = value, …`, as it stands between the braces.
    pub fn write_list(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (k, v)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{k} = {v}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_list(f)
    }
}

/// The f64 whose shortest decimal is that of `x`, so that 1e-5f32 prints as `1e-5`.
pub fn short(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(x as f64)
}

/// Takes attributes out of a list, one by one; what is left at the end is an error.
pub struct AttrReader {
    left: Vec<(String, AttrValue)>,
}

impl AttrReader {
    /// Reads `attrs`.
    pub fn new(attrs: Attrs) -> Self {
        AttrReader { left: attrs.0 }
    }

    /// Takes `key`, where it is there.
    pub fn take(&mut self, key: &str) -> Option<AttrValue> {
        let at = self.left.iter().position(|(k, _)| k == key)?;
        Some(self.left.remove(at).1)
    }

    /// Takes `key`, which must be there.
    pub fn need(&mut self, key: &str) -> Result<AttrValue, String> {
        self.take(key)
            .ok_or_else(|| format!("attribute `{key}` is missing"))
    }

    /// Takes a float (an integer will do).
    pub fn float(&mut self, key: &str) -> Result<f32, String> {
        Ok(self.double(key)? as f32)
    }

    /// Takes a float where it is there.
    pub fn opt_float(&mut self, key: &str) -> Result<Option<f32>, String> {
        self.take(key)
            .map(|v| as_double(key, v).map(|d| d as f32))
            .transpose()
    }

    /// Takes a double (an integer will do).
    pub fn double(&mut self, key: &str) -> Result<f64, String> {
        as_double(key, self.need(key)?)
    }

    /// Takes a number that fits u32.
    pub fn u32(&mut self, key: &str) -> Result<u32, String> {
        as_u32(key, self.need(key)?)
    }

    /// Takes a number where it is there.
    pub fn opt_u32(&mut self, key: &str) -> Result<Option<u32>, String> {
        self.take(key).map(|v| as_u32(key, v)).transpose()
    }

    /// Takes a flag; absent is false.
    pub fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(AttrValue::Bool(b)) => Ok(b),
            Some(v) => Err(format!("attribute `{key}` is {v}, expected true or false")),
        }
    }

    /// Takes a bare word.
    pub fn word(&mut self, key: &str) -> Result<String, String> {
        match self.need(key)? {
            AttrValue::Word(w) => Ok(w),
            v => Err(format!("attribute `{key}` is {v}, expected a word")),
        }
    }

    /// Takes a bare word where it is there.
    pub fn opt_word(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(AttrValue::Word(w)) => Ok(Some(w)),
            Some(v) => Err(format!("attribute `{key}` is {v}, expected a word")),
        }
    }

    /// Takes a list of numbers.
    pub fn u32_list(&mut self, key: &str) -> Result<Vec<u32>, String> {
        match self.need(key)? {
            AttrValue::List(l) => l.into_iter().map(|v| as_u32(key, v)).collect(),
            v => Err(format!("attribute `{key}` is {v}, expected a list")),
        }
    }

    /// Takes a list of floats (integers will do).
    pub fn float_list(&mut self, key: &str) -> Result<Vec<f32>, String> {
        match self.need(key)? {
            AttrValue::List(l) => {
                let floats = l.into_iter().map(|v| as_double(key, v).map(|d| d as f32));
                floats.collect()
            }
            v => Err(format!("attribute `{key}` is {v}, expected a list")),
        }
    }

    /// Takes a mask; a single word such as `causal` is one too.
    pub fn mask(&mut self, key: &str) -> Result<crate::Mask, String> {
        match self.need(key)? {
            AttrValue::Mask(m) => Ok(m),
            v => Err(format!("attribute `{key}` is {v}, expected a mask")),
        }
    }

    /// Takes a structured value where it is there: its name and a reader of its attributes.
    pub fn opt_struct(&mut self, key: &str) -> Result<Option<(String, AttrReader)>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(AttrValue::Struct(name, attrs)) => Ok(Some((name, AttrReader::new(attrs)))),
            Some(v) => Err(format!("attribute `{key}` is {v}, expected name<…>")),
        }
    }

    /// Ends reading: an attribute that nobody took is unknown.
    pub fn finish(self) -> Result<(), String> {
        match self.left.first() {
            None => Ok(()),
            Some((k, _)) => Err(format!("unknown attribute `{k}`")),
        }
    }
}

fn as_double(key: &str, v: AttrValue) -> Result<f64, String> {
    match v {
        AttrValue::Float(x) => Ok(x),
        AttrValue::Int(i) => Ok(i as f64),
        v => Err(format!("attribute `{key}` is {v}, expected a number")),
    }
}

fn as_u32(key: &str, v: AttrValue) -> Result<u32, String> {
    match v {
        AttrValue::Int(i) => {
            u32::try_from(i).map_err(|_| format!("attribute `{key}` is {i}, expected 0..2^32"))
        }
        v => Err(format!("attribute `{key}` is {v}, expected a whole number")),
    }
}
