//! Text to token ids and back, by the tokenizer.json that the payload carries.
//!
//! Input: the bytes of a tokenizer.json. Output: ids, type ids, text. Truncation and padding that
//! the file may ask for are ignored: the faces truncate at the model's limit, keeping the special
//! tokens. Not here: chat templates (`chat_template`), decoding token by token (`text_stream`).

use crate::{Error, Result};
use tokenizers::tokenizer::{PostProcessor, TruncationDirection};

/// Token ids of a text, and the segment each belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
}

/// A loaded tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

fn encoded(encoding: &tokenizers::Encoding) -> Encoded {
    Encoded {
        ids: encoding.get_ids().to_vec(),
        type_ids: encoding.get_type_ids().to_vec(),
    }
}

fn failed(e: tokenizers::Error) -> Error {
    Error::Input(format!("the tokenizer cannot encode this text: {e}"))
}

impl Tokenizer {
    /// Loads a tokenizer.json.
    pub fn from_bytes(bytes: &[u8]) -> Result<Tokenizer> {
        let wrong = |e| Error::Input(format!("the tokenizer.json cannot be read: {e}"));
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(wrong)?;
        inner.with_truncation(None).map_err(wrong)?;
        inner.with_padding(None);
        Ok(Tokenizer { inner })
    }

    /// Encodes a text; `special` adds the tokens that the model expects around it.
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded> {
        Ok(encoded(&self.inner.encode(text, special).map_err(failed)?))
    }

    /// Encodes two texts as one input.
    pub fn encode_pair(&self, text: &str, pair: &str, special: bool) -> Result<Encoded> {
        Ok(encoded(
            &self.inner.encode((text, pair), special).map_err(failed)?,
        ))
    }

    /// Encodes with special tokens into at most `limit` tokens, cutting the end of the text; true
    /// if it was cut.
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<(Encoded, bool)> {
        let whole = self.inner.encode(text, true).map_err(failed)?;
        if whole.len() <= limit {
            return Ok((encoded(&whole), false));
        }
        let added = self
            .inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(false));
        let mut bare = self.inner.encode(text, false).map_err(failed)?;
        bare.truncate(limit.saturating_sub(added), 0, TruncationDirection::Right);
        let cut = self.inner.post_process(bare, None, true).map_err(failed)?;
        let mut cut = encoded(&cut);
        cut.ids.truncate(limit);
        cut.type_ids.truncate(limit);
        Ok((cut, true))
    }

    /// The text of some ids; ids that are no tokens give nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let special = |token: &str| self.inner.get_added_vocabulary().is_special_token(token);
        let shown = |&id: &u32| {
            self.token(id)
                .is_some_and(|t| !skip_special || !special(&t))
        };
        if !ids.iter().any(shown) {
            // Some decoders count on at least one token.
            return Ok(String::new());
        }
        let wrong = |e| Error::Input(format!("the tokenizer cannot decode these ids: {e}"));
        self.inner.decode(ids, skip_special).map_err(wrong)
    }

    /// A token's own text, as in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}
