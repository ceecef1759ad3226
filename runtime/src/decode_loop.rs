//! Continues one sequence: prefill, then token after token until something ends it.
//!
//! Input: prompt ids, sampling, limits, stop strings. Output: the continuation, piece by piece
//! through a callback, and why it ended. What the sequence already holds of the prompt is not
//! computed again. With prompt lookup a step checks several guessed tokens at once; the text is the
//! same. Not here: prompts as text, printing, beams (`beam_text`).

use crate::engine::{Engine, Rows, Work};
use crate::interrupt;
use crate::kv_cache::SeqId;
use crate::prompt_lookup::{self, Tally};
use crate::sampler::Sampler;
use crate::sampling_params::SamplingParams;
use crate::session::as_i32;
use crate::text_stream::{StopFilter, TextStream};
use crate::timings::line;
use crate::tokenizer::Tokenizer;
use crate::told::Given;
use crate::{Error, Result};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What to continue, and how.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub prompt: &'a [u32],
    /// The rows of pictures among the prompt's tokens.
    pub given: Given<'a>,
    /// None: until something else ends the text.
    pub max_new: Option<usize>,
    pub sampling: SamplingParams,
    /// What is added to the logits of tokens.
    pub bias: &'a [(u32, f32)],
    /// Tokens that are guessed at a time at most.
    pub lookup: usize,
    pub stops: &'a [String],
    /// Tokens that end the text; empty to ignore them.
    pub eos: &'a [u32],
    /// Whether the text continues the prompt's (a raw prompt) or starts afresh (a chat's answer).
    pub continues: bool,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-text token or a stop string.
    Stop,
    /// `max_new` tokens, or a full context.
    Length,
    /// Ctrl-C.
    Interrupted,
}

/// A finished text.
#[derive(Clone, Debug)]
pub struct Continuation {
    /// All new tokens, the one that ended the text included.
    pub ids: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    /// The prompt, and picking the first token.
    pub prefill: Duration,
    /// The first token after that one; zero where there is none.
    pub first_step: Duration,
    /// Prompt tokens that were computed (not found in the cache).
    pub prefilled: usize,
    pub decode: Duration,
    /// Tokens that were guessed; none without prompt lookup.
    pub guesses: Tally,
}

impl Continuation {
    /// Tokens a second after the first one.
    pub fn decode_rate(&self) -> f64 {
        rate(self.ids.len().saturating_sub(1), self.decode)
    }

    /// The figures for standard error.
    pub fn figures(&self) -> String {
        format!(
            "prompt: {} tokens in {:.2} s ({:.1} tok/s); text: {} tokens in {:.2} s ({:.1} tok/s); ended by {}",
            self.prefilled,
            self.prefill.as_secs_f64(),
            rate(self.prefilled, self.prefill),
            self.ids.len(),
            self.decode.as_secs_f64(),
            self.decode_rate(),
            match self.finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
                Finish::Interrupted => "Ctrl-C",
            },
        )
    }

    /// The parts of the run, a line each; `before` are those before the prefill, if this is the
    /// process's first text.
    pub fn timings(&self, before: &[(&'static str, Duration)]) -> String {
        let mut lines: Vec<String> = before.iter().map(|&(n, t)| line(n, t, "")).collect();
        let rates =
            |tokens: usize, time| format!("{tokens} tokens, {:.1} tok/s", rate(tokens, time));
        lines.push(line(
            "prefill",
            self.prefill,
            &rates(self.prefilled, self.prefill),
        ));
        if !before.is_empty() {
            let start: Duration = before.iter().map(|(_, t)| *t).sum();
            lines.push(line("first token", start + self.prefill, "since the start"));
        }
        let after = self.ids.len().saturating_sub(1);
        if after > 0 {
            lines.push(line("first step", self.first_step, ""));
            lines.push(line("all steps", self.decode, &rates(after, self.decode)));
        }
        let Tally { guessed, right } = self.guesses;
        if guessed > 0 {
            let share = 100.0 * right as f64 / guessed as f64;
            lines.push(format!(
                "{:>12} {right} of {guessed} tokens were right ({share:.1} %)",
                "guesses"
            ));
        }
        lines.join("\n")
    }
}

/// Things a second; 0 where nothing was measured.
pub fn rate(count: usize, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// Continues `seq`, which holds a prefix of the prompt (often nothing). `emit` gets each new
/// token with the text that it completes.
pub fn continue_text(
    engine: &mut Engine<'_>,
    seq: SeqId,
    tokenizer: &Tokenizer<'_>,
    request: &Request<'_>,
    emit: &mut dyn FnMut(Option<u32>, &str) -> Result<()>,
) -> Result<Continuation> {
    let logits = engine
        .output("logits")
        .ok_or_else(|| Error::Unsupported("this model gives no logits".into()))?;
    let context = engine.manifest().limits.max_context as usize;
    let vocab = engine.manifest().outputs[logits].width as usize;
    // The base of a grown rope is the whole prompt's.
    let growth = engine.manifest().rope_growth;
    if growth.is_some_and(|g| request.prompt.len() > g as usize) {
        engine.truncate(seq, 0);
    }
    let past = engine.len(seq);
    let Some(fresh) = request.prompt.get(past..).filter(|f| !f.is_empty()) else {
        return Err(Error::Input("the prompt is empty".into()));
    };
    if request.prompt.len() > context {
        return Err(Error::Input(format!(
            "the prompt has {} tokens, this model's context is {context}",
            request.prompt.len()
        )));
    }
    let room = context - request.prompt.len() + 1;
    let max_new = request.max_new.unwrap_or(room).min(room);

    let tokens = request.prompt.len() + max_new;
    let mut sampler =
        Sampler::new(request.sampling, vocab, request.eos, tokens).biased(request.bias);
    request.prompt.iter().for_each(|&t| sampler.observe(t));
    let context_ids = if request.continues {
        request.prompt
    } else {
        &[]
    };
    let mut stream = TextStream::new(tokenizer, context_ids, true)?;
    let mut stops = StopFilter::new(request.stops);
    let mut done = Continuation {
        ids: Vec::new(),
        text: String::new(),
        finish: Finish::Length,
        prefill: Duration::ZERO,
        first_step: Duration::ZERO,
        prefilled: fresh.len(),
        decode: Duration::ZERO,
        guesses: Tally::default(),
    };
    if max_new == 0 {
        return Ok(done);
    }

    let gives_best = sampler.is_greedy() && engine.choose_best();
    // All tokens, for guesses.
    let mut history = if request.lookup > 0 {
        request.prompt.to_vec()
    } else {
        Vec::new()
    };
    // What the last step picked, and whether Ctrl-C came meanwhile.
    let mut picked: Vec<u32> = Vec::new();
    let mut step = |engine: &mut Engine<'_>, ids: &[i32], rows, picked: &mut Vec<u32>| {
        picked.clear();
        // Nothing behind the prompt.
        let given = request.given.behind(engine.len(seq));
        let work = Work {
            seq: Some(seq),
            ids,
            types: given.types,
            rows,
        };
        let entry = engine.manifest().entry;
        let run = engine.run_of(entry, &[work], &[&[given.rows]], &mut |view| {
            let mut pick = |row| {
                if gives_best && sampler.is_plainly_greedy() {
                    sampler.take(view.best(row))
                } else {
                    sampler.sample(view.row(logits, row))
                }
            };
            let span = &view.spans[0];
            match rows {
                Rows::All => prompt_lookup::check(span, ids, picked, pick)?,
                _ if span.last => picked.push(pick(0)?),
                _ => {}
            }
            if interrupt::requested() {
                Err(Error::Interrupted)
            } else {
                Ok(())
            }
        });
        match run {
            Ok(()) => Ok(false),
            Err(Error::Interrupted) => Ok(true),
            Err(e) => Err(e),
        }
    };
    let start = Instant::now();
    let mut interrupted = step(engine, &as_i32(fresh), Rows::Last, &mut picked)?;
    done.prefill = start.elapsed();
    let start = Instant::now();
    let mut fed: Vec<i32> = Vec::new();
    'text: loop {
        for &id in &picked {
            done.ids.push(id);
            if request.eos.contains(&id) {
                emit(Some(id), "")?;
                done.finish = Finish::Stop;
                break 'text;
            }
            let (text, stopped) = stops.push(&stream.push(id)?);
            emit(Some(id), &text)?;
            done.text.push_str(&text);
            if stopped {
                done.finish = Finish::Stop;
                done.decode = start.elapsed();
                return Ok(done);
            }
            if done.ids.len() >= max_new {
                break 'text;
            }
        }
        if interrupted {
            done.finish = Finish::Interrupted;
            break;
        }
        let Some(&last) = picked.last() else {
            return Err(Error::Run("a step gave no token".into()));
        };
        fed.clear();
        fed.push(last as i32);
        if request.lookup > 0 {
            history.extend(&picked);
            let room = prompt_lookup::room(engine, seq, 1).min(max_new - done.ids.len() - 1);
            prompt_lookup::guess(&history, request.lookup.min(room), &mut fed);
        }
        let rows = if fed.len() > 1 { Rows::All } else { Rows::Last };
        let before = engine.len(seq);
        let step_start = Instant::now();
        interrupted = step(engine, &fed, rows, &mut picked)?;
        if fed.len() > 1 && !picked.is_empty() {
            done.guesses.guessed += fed.len() - 1;
            done.guesses.right += picked.len() - 1;
            if !engine.truncate(seq, before + picked.len()) {
                return Err(Error::Run("wrong guesses cannot be taken back".into()));
            }
        }
        if done.ids.len() == 1 {
            done.first_step = step_start.elapsed();
        }
    }
    done.decode = start.elapsed();
    let (mut rest, stopped) = stops.push(&stream.finish()?);
    if !stopped {
        rest.push_str(&stops.finish());
    }
    emit(None, &rest)?;
    done.text.push_str(&rest);
    Ok(done)
}
