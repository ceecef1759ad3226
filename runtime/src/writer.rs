//! Texts behind prompts, one prompt after another: by a search, or token by token.
//!
//! Input: prompts in ids, perhaps with pictures. Output: the texts of each. An encoder-decoder reads the prompt as a
//! source. Not here: a text that is told as it comes (`generate`, `chat`), printing.

use crate::Result;
use crate::beam_text::search_text;
use crate::decode_loop::{Finish, Request, continue_text};
use crate::engine::Engine;
use crate::generation_flags::Generation;
use crate::sampling_params::SamplingParams;
use crate::session::{Session, check_ids};
use crate::source_text::read_source;
use crate::tokenizer::Tokenizer;
use crate::told::Given;
use llmc_abi::Kind;
use serde::Serialize;

/// Writes texts.
pub struct Writer<'s> {
    session: &'s Session<'s>,
    pub engine: Engine<'s>,
    pub generation: Generation,
    /// New tokens of each text at most.
    pub new: usize,
}

/// A text, as it stands in JSON lines.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    /// Without white space around it.
    pub text: String,
    /// New tokens, the one that ended the text included.
    pub tokens: usize,
    pub finish_reason: Finish,
    /// Of a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

impl Said {
    /// The text in one line.
    pub fn line(&self) -> String {
        self.text.replace(['\n', '\r'], " ")
    }
}

impl<'s> Writer<'s> {
    /// Plans an engine for texts of up to `new` tokens behind prompts of up to `prompt`.
    pub fn new(
        session: &'s Session<'s>,
        generation: Generation,
        (prompt, new): (usize, usize),
    ) -> Result<Writer<'s>> {
        let beams = generation.beams.map_or(1, |b| b.beams);
        let engine = session.engine(beams, prompt.saturating_add(new), false)?;
        Ok(Writer {
            session,
            engine,
            generation,
            new,
        })
    }

    /// The texts behind a prompt, the best first.
    pub fn write(
        &mut self,
        tokenizer: &Tokenizer<'_>,
        ids: &[u32],
        given: Given<'_>,
    ) -> Result<Vec<Said>> {
        let m = self.session.manifest;
        check_ids(m, ids)?;
        let seq = self.engine.open()?;
        let start = [m.start_token()];
        let (prompt, given, continues) = match m.kind {
            Kind::EncoderDecoder => {
                read_source(&mut self.engine, seq, ids, given)?;
                (&start[..], Given::default(), false)
            }
            Kind::Decoder | Kind::Encoder => (ids, given, true),
        };
        let request = Request {
            prompt,
            given,
            max_new: Some(self.new),
            sampling: self.generation.sampling,
            bias: &self.generation.bias,
            lookup: self.generation.lookup,
            stops: &[],
            eos: &m.tokens.eos,
            continues,
        };
        if let Some(params) = self.generation.beams {
            // The search closes the sequence.
            let search = search_text(&mut self.engine, seq, tokenizer, &request, params)?;
            let said = |f: crate::beam_text::Found| Said {
                text: f.text.trim().to_owned(),
                tokens: f.ids.len(),
                finish_reason: f.finish,
                score: Some(f.score),
            };
            return Ok(search.found.into_iter().map(said).collect());
        }
        let mut all = Vec::with_capacity(self.generation.returned);
        for index in 0..self.generation.returned {
            // The prompt is in the cache; its last token is read again, for its logits.
            let held = self.engine.len(seq).min(prompt.len().saturating_sub(1));
            if !self.engine.truncate(seq, held) {
                self.engine.truncate(seq, 0);
            }
            let seed = request.sampling.seed.wrapping_add(index as u64);
            let sampling = SamplingParams {
                seed,
                ..request.sampling
            };
            let request = Request {
                sampling,
                ..request
            };
            let mut emit = |_: Option<u32>, _: &str| -> Result<()> { Ok(()) };
            let done = continue_text(&mut self.engine, seq, tokenizer, &request, &mut emit)?;
            all.push(Said {
                text: done.text.trim().to_owned(),
                tokens: done.ids.len(),
                finish_reason: done.finish,
                score: None,
            });
        }
        self.engine.close(seq);
        Ok(all)
    }
}
