//! When generation stops.
//!
//! In: the ids of special tokens, and tokens by their text. Out: [`Generation`].
//!
//! A text ends at the token that ends a text, at the one that ends a turn, and at every control token that a known
//! model ends a turn with: what llama.cpp calls the end of generation.

use super::Gguf;
use super::tokenizer::Vocabulary;
use crate::error::Result;
use crate::generation::Generation;

const PREFIX: &str = "tokenizer.ggml.";
/// Tokens that end a text or a turn in the vocabularies that have them.
const ENDS: [&str; 21] = [
    "< EOT >",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<|call|>",
    "<|calls|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|file_sep|>",
    "<|fim_pad|>",
    "<|flush|>",
    "<|im_end|>",
    "<|repo_name|>",
    "<|return|>",
    "[EOS]",
    "[EOT]",
    "_<EOT>",
];

impl Gguf {
    /// Generation defaults; ids are below `vocabulary`.
    pub fn generation(&self, vocabulary: u32) -> Result<Generation> {
        let metadata = self.metadata();
        let last = vocabulary.saturating_sub(1);
        let id = |key: &str| metadata.optional_count(&format!("{PREFIX}{key}_token_id"), 0..=last);
        let mut eos: Vec<u32> = Vec::new();
        for key in ["eos", "eot", "eom"] {
            eos.extend(id(key)?.filter(|id| !eos.contains(id)));
        }
        if let Some(tokens) = Vocabulary::read(metadata)? {
            for (at, text) in tokens.added() {
                if ENDS.contains(&text) && at < vocabulary && !eos.contains(&at) {
                    eos.push(at);
                }
            }
        }
        let start = format!("{}.decoder_start_token_id", self.architecture()?.name);
        let pad = metadata.optional_count(&format!("{PREFIX}padding_token_id"), 0..=u32::MAX)?;
        Ok(Generation {
            bos: id("bos")?,
            eos,
            decoder_start: metadata.optional_count(&start, 0..=last)?,
            // One past the vocabulary means that there is none.
            pad: pad.filter(|id| *id < vocabulary),
            ..Generation::default()
        })
    }
}
