//! What the keys and tensors of a GGUF file mean, one architecture a file.
//!
//! In: metadata. Out: a [`Config`] with Hugging Face's keys, whose errors name GGUF's; the tensors' names in both
//! worlds.
//!
//! Invariants: a key of the architecture that is not listed is refused by name, and so is a value that would
//! change the result and cannot be honoured; a tensor that is not listed is refused by name.
//!
//! Not here: the families themselves (`models`), reading the tensors (`source`).

mod fields;

pub use fields::Fields;

use super::Gguf;
use super::metadata::Metadata;
use crate::config::Config;
use crate::error::{Excerpt, Problem, Result};
use crate::json::Json;

/// An architecture of GGUF.
#[derive(Debug)]
pub struct Architecture {
    /// Its name, which is the prefix of its keys.
    pub name: &'static str,
    /// Tensors of the whole model, or with `{layer}` for a layer's number: GGUF's name and Hugging Face's, both without
    /// `.weight` and `.bias`. A name that stands twice is the second where there are gates; what has no name of Hugging
    /// Face's is read by nobody.
    pub tensors: &'static [(&'static str, &'static str)],
    /// Tensors of a layer, without `blk.N.` there and `model.layers.N.` or alike here. A name that ends in
    /// `.weight` is whole, and so is the other.
    pub layer_tensors: &'static [(&'static str, &'static str)],
    /// What stands before a layer's number in Hugging Face's names.
    pub layers: &'static str,
    /// Tensors of a layer whose rows are stored in pairs of rotated dimensions, and the key of their heads.
    pub paired: &'static [(&'static str, &'static str)],
    /// Whether the weights of norms hold what the family adds to them.
    pub norms_include_offset: bool,
    /// Fills in the configuration.
    pub configure: fn(&mut Fields) -> Result<()>,
}

macro_rules! architectures {
    ($($module:ident)*) => {
        $(mod $module;)*

        /// All architectures, alphabetical.
        pub const ARCHITECTURES: &[Architecture] = &[$($module::ARCHITECTURE),*];
    };
}

architectures! {
    bert
    bloom
    falcon
    gemma2
    gemma3
    gpt2
    gpt_oss
    llama
    phi3
    qwen2
    qwen3
    qwen3moe
    stablelm
    starcoder
    t5
    t5encoder
}

const KEY: &str = "general.architecture";

/// The value at a key; a list with the same value for every layer is that value.
fn uniform(metadata: &Metadata, key: &str) -> Result<Option<Json>> {
    match metadata.json(key)? {
        Some(Json::Array(values)) => match values.split_first() {
            Some((first, rest)) if rest.iter().all(|value| value == first) => {
                Ok(Some(first.clone()))
            }
            _ => Err(metadata.refuse(key, "the same value for every layer")),
        },
        value => Ok(value),
    }
}

/// An integer that is the same for every layer, however it is stored.
pub fn uniform_count(metadata: &Metadata, key: &str) -> Result<Option<u32>> {
    let count = |value: Json| value.as_u64().and_then(|count| u32::try_from(count).ok());
    let value = uniform(metadata, key)?;
    value
        .map(|value| count(value).ok_or_else(|| metadata.wrong(key, "an integer")))
        .transpose()
}

impl Gguf {
    /// The architecture that the file names.
    pub fn architecture(&self) -> Result<&'static Architecture> {
        let name = self.metadata().text(KEY)?;
        let known = ARCHITECTURES.iter().find(|a| a.name == name);
        known.ok_or_else(|| {
            let names: Vec<_> = ARCHITECTURES.iter().map(|a| a.name).collect();
            let what = format!(
                "found \"{}\", supported are {}",
                Excerpt(name),
                names.join(", ")
            );
            Problem::of(self.path(), what).field(KEY).unsupported()
        })
    }

    /// The configuration, with the keys of Hugging Face's `config.json`.
    pub fn config(&self) -> Result<Config> {
        let architecture = self.architecture()?;
        let mut fields = Fields::new(self, architecture.name);
        (architecture.configure)(&mut fields)?;
        fields.finish()
    }
}
