//! Continues one prompt by beam search.
//!
//! Input: a prompt in ids, beams, sampling, limits, stop strings. Output: the best texts with their
//! scores, all at the end. Not here: the search (`beam_search`), printing.

use crate::beam_search::{BeamParams, BeamSearch};
use crate::beam_sequences::Sequences;
use crate::decode_loop::{Finish, Request};
use crate::engine::{Engine, Rows, Work};
use crate::interrupt;
use crate::kv_cache::SeqId;
use crate::sampler::Sampler;
use crate::session::as_i32;
use crate::text_stream::{StopFilter, TextStream};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// A text that a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// New tokens, the one that ended the text included.
    pub ids: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    pub score: f32,
}

/// What a search gave.
#[derive(Clone, Debug)]
pub struct Search {
    /// The best texts, best first.
    pub found: Vec<Found>,
    pub prefill: Duration,
    pub decode: Duration,
}

/// New tokens as text up to a stop string, and whether there is one.
fn text_of(
    tokenizer: &Tokenizer<'_>,
    request: &Request<'_>,
    ids: &[u32],
) -> Result<(String, bool)> {
    let context = if request.continues {
        request.prompt
    } else {
        &[]
    };
    let mut stream = TextStream::new(tokenizer, context, true)?;
    let mut stops = StopFilter::new(request.stops);
    let mut text = String::new();
    let shown = ids.iter().filter(|id| !request.eos.contains(id));
    for &id in shown {
        let (piece, stopped) = stops.push(&stream.push(id)?);
        text.push_str(&piece);
        if stopped {
            return Ok((text, true));
        }
    }
    let (piece, stopped) = stops.push(&stream.finish()?);
    text.push_str(&piece);
    if !stopped {
        text.push_str(&stops.finish());
    }
    Ok((text, stopped))
}

/// Searches for continuations of an empty sequence, which is closed at the end. The engine must
/// have been planned for `params.beams` sequences.
pub fn search_text(
    engine: &mut Engine<'_>,
    seq: SeqId,
    tokenizer: &Tokenizer<'_>,
    request: &Request<'_>,
    params: BeamParams,
) -> Result<Search> {
    let logits = engine
        .output("logits")
        .ok_or_else(|| Error::Unsupported("this model gives no logits".into()))?;
    let manifest = engine.manifest();
    let context = manifest.limits.max_context as usize;
    let prompt = request.prompt;
    if prompt.is_empty() || prompt.len() > context {
        return Err(Error::Input(format!(
            "the prompt has {} tokens, this model takes 1 to {context}",
            prompt.len()
        )));
    }
    let room = context - prompt.len() + 1;
    let max_new = request.max_new.unwrap_or(room).min(room);
    let vocab = manifest.outputs[logits].width as usize;
    let sampler = Sampler::new(request.sampling, vocab, request.eos, prompt.len() + max_new)
        .biased(request.bias)
        .keeping(1 + request.eos.len());
    let prompts = vec![prompt.to_vec()];
    let mut search = BeamSearch::new(params, sampler, request.eos, prompts, max_new);
    if !request.stops.is_empty() {
        let stopped = |ids: &[u32]| Ok(text_of(tokenizer, request, ids)?.1);
        search = search.ending(Box::new(stopped));
    }

    let start = Instant::now();
    let ids = as_i32(prompt);
    let work = Work {
        seq: Some(seq),
        ids: &ids,
        types: request.given.types,
        rows: Rows::Last,
    };
    let interrupted = |result: Result<()>| match result {
        Err(Error::Interrupted) => Ok(true),
        other => other.map(|()| false),
    };
    let (entry, rows) = (engine.manifest().entry, request.given.rows);
    let first = engine.run_of(entry, &[work], &[&[rows]], &mut |view| {
        if view.spans[0].last {
            search.first(0, view.row(logits, 0))?;
        }
        if interrupt::requested() {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    });
    let mut cut = interrupted(first)?;
    let prefill = start.elapsed();
    let start = Instant::now();
    let mut sequences = Sequences::new(engine, vec![seq], logits);
    if !cut {
        cut = interrupted(search.run(&mut sequences))?;
    }
    sequences.close();
    let decode = start.elapsed();

    let hypotheses = search.results().into_iter().next().unwrap_or_default();
    let found = |h: crate::beam_search::Hypothesis| {
        let (text, stopped) = text_of(tokenizer, request, &h.ids)?;
        let ended = stopped || h.ids.last().is_some_and(|id| request.eos.contains(id));
        let finish = match (ended, cut) {
            (true, _) => Finish::Stop,
            (false, true) => Finish::Interrupted,
            (false, false) => Finish::Length,
        };
        Ok(Found {
            ids: h.ids,
            text,
            finish,
            score: h.score,
        })
    };
    Ok(Search {
        found: hypotheses.into_iter().map(found).collect::<Result<_>>()?,
        prefill,
        decode,
    })
}
