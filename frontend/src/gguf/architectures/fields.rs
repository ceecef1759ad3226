//! A configuration under construction.
//!
//! In: keys of a GGUF file. Out: fields of a `config.json`, each with the key that it came from.
//!
//! Invariants: every key of the architecture is copied, checked or known to change nothing; the others are refused.

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::{uniform, uniform_count};
use crate::config::Config;
use crate::error::{FrontendError, Result};
use crate::gguf::Gguf;
use crate::gguf::metadata::Metadata;
use crate::json::{Json, Object};
use crate::limits;

/// Hugging Face's names for the width, the layers, the width between projections, the heads and the positions.
pub const LLAMA_NAMES: [&str; 5] = [
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "max_position_embeddings",
];
/// Of a head.
const DIMENSIONS: std::ops::RangeInclusive<u32> = 1..=limits::WIDTH;

/// Fields and where they came from.
pub struct Fields<'g> {
    /// The file.
    pub gguf: &'g Gguf,
    architecture: &'static str,
    object: Object,
    /// Field → GGUF's key.
    keys: IndexMap<String, String>,
    /// Keys that are understood.
    seen: IndexSet<String>,
    /// Whether the architecture may have experts.
    experts: bool,
}

impl<'g> Fields<'g> {
    /// No fields yet.
    pub fn new(gguf: &'g Gguf, architecture: &'static str) -> Self {
        Self {
            gguf,
            architecture,
            object: Object::new(),
            keys: IndexMap::new(),
            seen: IndexSet::new(),
            experts: false,
        }
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &'g Metadata {
        self.gguf.metadata()
    }

    /// The whole key, which is understood from now on.
    pub fn key(&mut self, key: &str) -> String {
        let key = format!("{}.{key}", self.architecture);
        self.seen.insert(key.clone());
        key
    }

    /// Sets a field that no single key stands for.
    pub fn set(&mut self, field: &str, value: impl Into<Json>) {
        self.object.insert(field.to_owned(), value.into());
    }

    /// Sets a member of a field that is an object, if it is there.
    pub fn amend(&mut self, field: &str, member: &str, value: impl Into<Json>) {
        if let Some(Json::Object(object)) = self.object.get_mut(field) {
            std::sync::Arc::make_mut(object).insert(member.to_owned(), value.into());
        }
    }

    /// The architecture reads the keys of experts itself.
    pub fn take_experts(&mut self) {
        self.experts = true;
    }

    /// Sets a field to what stands at a key, which errors about the field will name. A list with the same value
    /// for every layer is that value.
    pub fn copy(&mut self, field: &str, key: &str) -> Result<()> {
        let key = self.key(key);
        let value = uniform(self.metadata(), &key)?;
        self.name(field, key);
        if let Some(value) = value {
            self.object.insert(field.to_owned(), value);
        }
        Ok(())
    }

    /// Makes errors about a field name a key.
    pub fn name(&mut self, field: &str, key: String) {
        self.keys.insert(field.to_owned(), key);
    }

    /// Refuses a key unless it is absent or has one of these values.
    pub fn require(&mut self, key: &str, supported: &[Json]) -> Result<()> {
        let key = self.key(key);
        match self.metadata().json(&key)? {
            Some(value) if !supported.contains(&value) => {
                let supported: Vec<_> = supported.iter().map(Json::describe).collect();
                Err(self.metadata().refuse(&key, supported.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Keys that change nothing.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.key(key);
        }
    }

    /// The fields that all text models share.
    pub fn common(&mut self) -> Result<()> {
        self.common_named(LLAMA_NAMES)?;
        self.require("use_parallel_residual", &[Json::Bool(false)])
    }

    /// The same under a family's names for the width, the layers, the width between projections, the heads and the
    /// positions.
    pub fn common_named(
        &mut self,
        [width, layers, inner, heads, positions]: [&str; 5],
    ) -> Result<()> {
        self.copy(width, "embedding_length")?;
        self.copy(layers, "block_count")?;
        self.copy(inner, "feed_forward_length")?;
        self.copy(heads, "attention.head_count")?;
        self.copy(positions, "context_length")?;
        self.vocabulary()?;
        if !self.experts {
            self.require("expert_count", &[0u32.into()])?;
            self.require("expert_used_count", &[0u32.into()])?;
        }
        self.ignore(&["tensor_data_layout"]);
        Ok(())
    }

    /// The fields of decoders with layer norms, under a family's names ([`Fields::common`]) and its name for the
    /// epsilon of norms; part of a head may be rotated.
    pub fn layer_norm_decoder(&mut self, names: [&str; 5], epsilon_name: &str) -> Result<()> {
        self.common_named(names)?;
        let epsilon = "attention.layer_norm_epsilon";
        self.copy(epsilon_name, epsilon)?;
        self.demand(epsilon)?;
        self.head_dimensions(&["attention.value_length", "attention.key_length"])?;
        self.require("attention.causal", &[Json::Bool(true)])?;
        self.require("pooling_type", &[0u32.into()])?;
        self.set("tie_word_embeddings", self.is_tied());
        Ok(())
    }

    /// The fields of decoders after Llama: grouped queries, RMS norms, a head of their own or the token table.
    pub fn decoder(&mut self) -> Result<()> {
        self.grouped_decoder()?;
        self.head_dimensions(&["rope.dimension_count"])
    }

    /// The same, where part of a head may be rotated.
    pub fn grouped_decoder(&mut self) -> Result<()> {
        self.common()?;
        self.copy("num_key_value_heads", "attention.head_count_kv")?;
        let epsilon = "attention.layer_norm_rms_epsilon";
        self.copy("rms_norm_eps", epsilon)?;
        self.demand(epsilon)?;
        self.copy("head_dim", "attention.key_length")?;
        self.head_dimensions(&["attention.value_length"])?;
        self.require("attention.causal", &[Json::Bool(true)])?;
        self.require("pooling_type", &[0u32.into()])?;
        self.set("tie_word_embeddings", self.is_tied());
        Ok(())
    }

    /// An error if a key is absent that has no default.
    pub fn demand(&mut self, key: &str) -> Result<()> {
        let key = self.key(key);
        match self.metadata().has(&key) {
            true => Ok(()),
            false => Err(self.metadata().wrong(&key, "a number")),
        }
    }

    /// The dimension of a head; `None` where the file does not say, and the family says what is missing.
    pub fn head_dimension(&mut self) -> Result<Option<u32>> {
        let metadata = self.metadata();
        let [width, heads, key_length] = [
            "embedding_length",
            "attention.head_count",
            "attention.key_length",
        ]
        .map(|key| self.key(key));
        let width = uniform_count(metadata, &width)?;
        let heads = uniform_count(metadata, &heads)?;
        let share = width
            .zip(heads)
            .and_then(|(width, heads)| width.checked_div(heads));
        Ok(metadata.optional_count(&key_length, DIMENSIONS)?.or(share))
    }

    /// These keys, where they are there, are the dimension of a head.
    pub fn head_dimensions(&mut self, keys: &[&str]) -> Result<()> {
        let metadata = self.metadata();
        let Some(dim) = self.head_dimension()? else {
            return Ok(());
        };
        for key in keys {
            let key = self.key(key);
            if metadata
                .optional_count(&key, DIMENSIONS)?
                .is_some_and(|other| other != dim)
            {
                return Err(metadata.refuse(&key, format_args!("the dimension of a head ({dim})")));
            }
        }
        Ok(())
    }

    /// `vocab_size` is the token table's: the tokenizer may have fewer tokens.
    fn vocabulary(&mut self) -> Result<()> {
        const TABLE: &str = "token_embd.weight";
        let rows = self
            .gguf
            .tensor(TABLE)
            .and_then(|(tensor, _)| match tensor.shape[..] {
                [rows, _] => Some(rows),
                _ => None,
            });
        let Some(rows) = rows else {
            let problem = self.metadata().problem(TABLE, "missing, expected a matrix");
            return Err(problem.input());
        };
        let key = self.key("vocab_size");
        if let Some(said) = self.metadata().optional_count(&key, 0..=u32::MAX)?
            && u64::from(said) != rows
        {
            let expected = format!("{rows}, the rows of {TABLE}");
            return Err(self.metadata().wrong(&key, expected));
        }
        self.name("vocab_size", TABLE.into());
        self.set("vocab_size", rows);
        Ok(())
    }

    /// Whether the head may be the token table: it is not there, or of the same type and shape. (Whether it is the
    /// same, its bytes tell.)
    fn is_tied(&self) -> bool {
        let table = self.gguf.tensor("token_embd.weight");
        let head = self.gguf.tensor("output.weight");
        let (Some((table, _)), Some((head, _))) = (table, head) else {
            return true;
        };
        (table.ty, &table.shape) == (head.ty, &head.shape)
    }

    /// Whether the first layer has such a tensor.
    pub fn has_in_layers(&self, tensor: &str) -> bool {
        self.gguf.tensor(&format!("blk.0.{tensor}")).is_some()
    }

    /// A refusal of a key that nothing here understands.
    fn refuse_key(&self, key: &str) -> FrontendError {
        let what = format!(
            "a key that is not understood for the architecture {}",
            self.architecture
        );
        self.metadata().problem(key, what).unsupported()
    }

    /// The configuration.
    pub fn finish(self) -> Result<Config> {
        let prefix = format!("{}.", self.architecture);
        let unknown = self
            .metadata()
            .keys()
            .find(|key| key.starts_with(&prefix) && !self.seen.contains(*key));
        match unknown {
            Some(key) => Err(self.refuse_key(key)),
            None => Ok(Config::from_parts(
                self.gguf.path(),
                self.object,
                Arc::new(self.keys),
            )),
        }
    }
}
