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

/// Writes texts.
pub struct Writer<'s> {
    session: &'s Session<'s>,
    pub engine: Engine<'s>,
    pub generation: Generation,
    /// New tokens of each text at most.
    pub new: usize,
}

/// A text.
#[derive(Clone, Debug)]
pub struct Said {
    pub text: String,
    /// New tokens, the one that ended the text included.
    pub tokens: usize,
    pub finish: Finish,
    /// Of a search.
    pub score: Option<f32>,
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
                text: f.text,
                tokens: f.ids.len(),
                finish: f.finish,
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
                text: done.text,
                tokens: done.ids.len(),
                finish: done.finish,
                score: None,
            });
        }
        self.engine.close(seq);
        Ok(all)
    }
}

/// A text as one line.
pub fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").trim().to_owned()
}
