//! Pooling: what makes a GGUF encoder a sentence encoder.
//!
//! In: `ARCHITECTURE.pooling_type`. Out: what `modules.json` says of a sentence-transformers directory.
//!
//! Vectors are divided by their L2 norm, as llama.cpp does unless told otherwise: the file does not say.

use super::Gguf;
use crate::error::Result;
use crate::sentence::{Pooling, Sentence};

/// The key, without the architecture.
pub const POOLING: &str = "pooling_type";

impl Gguf {
    /// How tokens are pooled, if they are.
    pub fn sentence(&self) -> Result<Option<Sentence>> {
        let key = format!("{}.{POOLING}", self.architecture()?.name);
        let pooling = match self.metadata().optional_count(&key, 0..=u32::MAX)? {
            None | Some(0) => return Ok(None),
            Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(3) => Pooling::LastToken,
            Some(_) => {
                let supported = "0 (none), 1 (mean), 2 (cls) or 3 (last)";
                return Err(self.metadata().refuse(&key, supported));
            }
        };
        Ok(Some(Sentence {
            transformer: self.path().to_path_buf(),
            pooling,
            width: None,
            normalize: true,
            max_tokens: None,
            lower_case: false,
            default_prompt: None,
        }))
    }
}
