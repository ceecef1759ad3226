//! Text to token ids and back, by the compiled tokenizer that the payload carries.
//!
//! [`compile`] turns a tokenizer.json into a section of bytes, which [`Tokenizer::open`] uses where
//! it lies: no table is parsed or copied, so opening takes the same time for any vocabulary. The
//! vocabulary, the model and the added tokens are ours; normalizers, pre-tokenizers,
//! post-processors and decoders are the `tokenizers` crate's, read from a few lines of JSON. The
//! crate as a whole is what the results are tested against.
//!
//! Truncation and padding that a tokenizer.json may ask for are ignored: the faces truncate at the
//! model's limit, keeping the special tokens. Not here: chat templates (`chat_template`), decoding
//! token by token (`text_stream`).

mod added;
mod bpe;
mod compile;
mod model;
mod section;
mod trie;
mod unigram;
mod windows;
mod word_level;
mod word_piece;

use crate::{Error, Result};
use added::AddedTokens;
use model::{Model, ModelSettings, Vocabulary};
use section::{Part, Section, Words, damaged};
use serde::{Deserialize, Serialize};
use tokenizers::{
    Decoder, DecoderWrapper, Encoding, Normalizer, NormalizerWrapper, OffsetType, PostProcessor,
    PostProcessorWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
    TruncationDirection,
};

pub use compile::compile;
pub use windows::{Overlong, Window};

/// Token ids of a text, the segment each belongs to, and the bytes of the text that it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Start and end within the text (of the segment); `(0, 0)` for tokens that were added.
    pub offsets: Vec<(usize, usize)>,
}

impl Encoded {
    fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        self.type_ids.truncate(len);
        self.offsets.truncate(len);
    }
}

impl From<&Encoding> for Encoded {
    fn from(encoding: &Encoding) -> Encoded {
        Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
        }
    }
}

/// What a section holds as JSON. The parts are as in tokenizer.json.
#[derive(Debug, Serialize, Deserialize)]
struct Settings<N, T, P, D> {
    model: ModelSettings,
    normalizer: Option<N>,
    pre_tokenizer: Option<T>,
    post_processor: Option<P>,
    decoder: Option<D>,
}

/// A compiled tokenizer, in place.
#[derive(Debug)]
pub struct Tokenizer<'a> {
    vocabulary: Vocabulary<'a>,
    added: AddedTokens<'a>,
    model: Model<'a>,
    /// Ids that `skip_special` leaves out, ascending.
    special: Words<'a>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
}

fn failed(e: tokenizers::Error) -> Error {
    Error::Input(format!("the tokenizer cannot encode this text: {e}"))
}

impl<'a> Tokenizer<'a> {
    /// Opens what [`compile`] made.
    pub fn open(section: &'a [u8]) -> Result<Tokenizer<'a>> {
        let section = Section::open(section)?;
        let settings: Settings<_, _, _, _> = serde_json::from_slice(section.bytes(Part::Settings))
            .map_err(|e| damaged(&format!("its settings cannot be read: {e}")))?;
        let vocabulary = Vocabulary::new(&section);
        Ok(Tokenizer {
            vocabulary,
            added: AddedTokens::new(&section),
            model: Model::new(settings.model, vocabulary, &section),
            special: section.words(Part::Special),
            normalizer: settings.normalizer,
            pre_tokenizer: settings.pre_tokenizer,
            post_processor: settings.post_processor,
            decoder: settings.decoder,
        })
    }

    /// Encodes a text; `special` adds the tokens that the model expects around it.
    pub fn encode(&self, text: &str, special: bool) -> Result<Encoded> {
        let whole = self.segment(text, 0)?;
        Ok((&self.post_process(whole, None, special)?).into())
    }

    /// Encodes two texts as one input.
    pub fn encode_pair(&self, text: &str, pair: &str, special: bool) -> Result<Encoded> {
        let (text, pair) = (self.segment(text, 0)?, self.segment(pair, 1)?);
        Ok((&self.post_process(text, Some(pair), special)?).into())
    }

    /// Encodes with special tokens into at most `limit` tokens, cutting the end of the text; true
    /// if it was cut.
    pub fn encode_within(&self, text: &str, limit: usize) -> Result<(Encoded, bool)> {
        let mut bare = self.segment(text, 0)?;
        let whole = self.post_process(bare.clone(), None, true)?;
        if whole.len() <= limit {
            return Ok(((&whole).into(), false));
        }
        let added = self.post_processor.as_ref();
        let added = added.map_or(0, |p| p.added_tokens(false));
        bare.truncate(limit.saturating_sub(added), 0, TruncationDirection::Right);
        let mut cut = Encoded::from(&self.post_process(bare, None, true)?);
        cut.truncate(limit);
        Ok((cut, true))
    }

    /// The tokens of a text, without any around it.
    fn segment(&self, text: &str, type_id: u32) -> Result<Encoding> {
        let encode = || {
            let mut pieces = PreTokenizedString::from(text);
            pieces.split(|_, piece| self.added.split_raw(piece))?;
            pieces.split(|_, mut piece| {
                if let Some(normalizer) = &self.normalizer {
                    normalizer.normalize(&mut piece)?;
                }
                self.added.split_normalized(piece)
            })?;
            if let Some(pre_tokenizer) = &self.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.model.tokenize(piece.get()))?;
            pieces.into_encoding(None, type_id, OffsetType::Byte)
        };
        encode().map_err(failed)
    }

    /// Puts segments together, with special tokens around them if asked to.
    fn post_process(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        special: bool,
    ) -> Result<Encoding> {
        if let Some(processor) = &self.post_processor {
            return processor.process(first, second, special).map_err(failed);
        }
        let segments = std::iter::once(first).chain(second);
        let segments = segments.enumerate().map(|(i, mut segment)| {
            segment.set_sequence_id(i);
            segment
        });
        Ok(Encoding::merge(segments, false))
    }

    /// The text of some ids; ids that are no tokens give nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let shown = ids
            .iter()
            .filter(|id| !(skip_special && self.is_special(**id)));
        let tokens: Vec<String> = shown
            .filter_map(|&id| Some(self.token(id)?.to_owned()))
            .collect();
        match &self.decoder {
            // Some decoders count on at least one token.
            Some(decoder) if !tokens.is_empty() => decoder
                .decode(tokens)
                .map_err(|e| Error::Input(format!("the tokenizer cannot decode these ids: {e}"))),
            _ => Ok(tokens.join(" ")),
        }
    }

    fn is_special(&self, id: u32) -> bool {
        let at = self.special.lower_bound(0..self.special.len(), id);
        self.special.get(at) == Some(id)
    }

    /// A token's own text, as decoders see it.
    pub fn token(&self, id: u32) -> Option<&'a str> {
        self.added.form(id).or_else(|| self.vocabulary.text(id))
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token).or_else(|| self.added.id(token))
    }
}
