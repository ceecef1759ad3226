//! `generate`: continues a raw prompt.
//!
//! Input: a prompt. Output: the continuation alone on standard output, as it comes; figures on
//! standard error. Several continuations (beams, samples) come one after the other, an empty line
//! between them. Not here: chat templates (`chat`), the loops themselves (`decode_loop`,
//! `beam_text`).

use crate::beam_search::BeamParams;
use crate::beam_text::search_text;
use crate::decode_loop::{Continuation, Finish, Request, continue_text, rate};
use crate::engine::Engine;
use crate::generation_flags::{Generation, GenerationFlags};
use crate::interrupt;
use crate::kv_cache::SeqId;
use crate::sampling_params::SamplingParams;
use crate::session::{Session, check_ids};
use crate::source_text::read_source;
use crate::text_tools::{TextTools, read_text};
use crate::told::Given;
use crate::{Error, Result};
use llmc_abi::Kind;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

/// New tokens when `-n` says nothing.
const DEFAULT_NEW: usize = 512;

/// Arguments of `generate`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GenerateArgs {
    /// The prompt; `-` reads all of standard input
    pub prompt: Option<String>,
    /// At most N new tokens [default: 512]
    #[arg(short = 'n', value_name = "N")]
    pub new: Option<usize>,
    /// End at this text, which is not printed (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Go on after end-of-text tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
    /// Print token ids instead of text
    #[arg(long)]
    pub ids: bool,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

/// Runs `generate`.
pub fn generate(
    session: &Session<'_>,
    args: &GenerateArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    session.need(session.generates(), "generate")?;
    let m = session.manifest;
    let generation = args.flags.resolve(&m.generation, m)?;
    let tools = session.text_tools()?;
    let prompt = match args.prompt.as_deref() {
        Some("-") => read_text(input)?,
        None if std::io::stdin().is_terminal() => {
            return Err(Error::Usage(
                "give a prompt, or `-` to read standard input".into(),
            ));
        }
        None => read_text(input)?,
        Some(text) => text.to_owned(),
    };
    let mut ids = tools.tokenizer.encode(&prompt, true)?.ids;
    if ids.is_empty() {
        ids.extend(m.tokens.bos);
    }
    check_ids(m, &ids)?;
    if ids.is_empty() {
        return Err(Error::Input(
            "the prompt is empty, and this model has no start token".into(),
        ));
    }

    // What an encoder-decoder is told is a source; its text begins with the start token.
    let read = ids.len();
    let source = match m.kind {
        Kind::EncoderDecoder => Some(std::mem::replace(&mut ids, vec![m.start_token()])),
        Kind::Decoder | Kind::Encoder => None,
    };
    let new = args.new.unwrap_or(DEFAULT_NEW);
    session.timings.mark("prompt");
    let sequences = generation.beams.map_or(1, |b| b.beams);
    let mut engine = session.engine(sequences, ids.len().saturating_add(new), false)?;
    let seq = engine.open()?;
    if let Some(source) = &source {
        read_source(&mut engine, seq, source, Given::default())?;
        session.timings.mark("source");
    }
    let request = Request {
        prompt: &ids,
        given: Given::default(),
        max_new: Some(new),
        sampling: generation.sampling,
        bias: &generation.bias,
        lookup: generation.lookup,
        stops: &args.stop,
        eos: if args.ignore_eos { &[] } else { &m.tokens.eos },
        continues: source.is_none(),
    };
    let run = Run {
        session,
        args,
        read,
        tools: &tools,
        request,
        before: session.timings.parts(),
    };
    match generation.beams {
        Some(params) => run.search(&mut engine, seq, params, out),
        None => run.texts(&mut engine, seq, &generation, out),
    }
}

/// One prompt and all that its texts share.
struct Run<'a> {
    session: &'a Session<'a>,
    args: &'a GenerateArgs,
    /// Tokens of the prompt as it was given.
    read: usize,
    tools: &'a TextTools<'a>,
    request: Request<'a>,
    /// Where the time went before.
    before: Vec<(&'static str, Duration)>,
}

fn written(result: std::io::Result<()>) -> Result<()> {
    result.map_err(|e| Error::io("standard output", e))
}

/// Ids as `--ids` prints them.
fn spaced(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}

impl Run<'_> {
    /// Writes one text after the other, as they come.
    fn texts(
        &self,
        engine: &mut Engine<'_>,
        seq: SeqId,
        generation: &Generation,
        out: &mut dyn Write,
    ) -> Result<()> {
        let mut texts = Vec::new();
        for index in 0..generation.returned {
            // The prompt is in the cache; its last token is read again, for its logits.
            let held = engine.len(seq).min(self.request.prompt.len() - 1);
            if !engine.truncate(seq, held) {
                engine.truncate(seq, 0);
            }
            if index > 0 && !self.args.json {
                written(writeln!(out))?;
            }
            let seed = generation.sampling.seed.wrapping_add(index as u64);
            let sampling = SamplingParams {
                seed,
                ..generation.sampling
            };
            let done = self.text(engine, seq, sampling, index == 0, out)?;
            let finish = done.finish;
            texts.push((done, sampling));
            if finish == Finish::Interrupted {
                break;
            }
        }
        if self.args.json {
            let (first, sampling) = &texts[0];
            let mut line = self.json(first, sampling);
            if generation.returned > 1 {
                let all = texts.iter().map(|(done, p)| self.json(done, p));
                line = serde_json::json!({
                    "prompt_tokens": self.read,
                    "sequences": all.collect::<Vec<_>>(),
                });
            }
            written(writeln!(out, "{line}").and_then(|()| out.flush()))?;
        }
        Ok(())
    }

    /// Writes one text.
    fn text(
        &self,
        engine: &mut Engine<'_>,
        seq: SeqId,
        sampling: SamplingParams,
        is_first: bool,
        out: &mut dyn Write,
    ) -> Result<Continuation> {
        let (args, session) = (self.args, self.session);
        let mut first = true;
        let mut emit = |id: Option<u32>, text: &str| -> Result<()> {
            let wrote = match (args.json, args.ids, id) {
                (true, ..) | (false, true, None) => Ok(()),
                (false, true, Some(id)) => {
                    let space = if std::mem::take(&mut first) { "" } else { " " };
                    write!(out, "{space}{id}")
                }
                (false, false, _) => out.write_all(text.as_bytes()),
            };
            written(wrote.and_then(|()| out.flush()))
        };
        let request = Request {
            sampling,
            ..self.request
        };
        let guard = interrupt::catch();
        let done = continue_text(engine, seq, &self.tools.tokenizer, &request, &mut emit)?;
        drop(guard);
        if !args.json {
            written(writeln!(out).and_then(|()| out.flush()))?;
        }
        let seed = match sampling.temperature > 0.0 {
            true => format!("; seed {}", sampling.seed),
            false => String::new(),
        };
        session.note(&format!("{}{seed}", done.figures()));
        if session.tell_timings {
            let before: &[_] = if is_first { &self.before } else { &[] };
            eprintln!("{}", done.timings(before));
        }
        self.note_full(done.finish, done.ids.len());
        Ok(done)
    }

    fn json(&self, done: &Continuation, sampling: &SamplingParams) -> serde_json::Value {
        let start: Duration = self.before.iter().map(|(_, time)| *time).sum();
        let mut line = serde_json::json!({
            "text": done.text,
            "prompt_tokens": self.read,
            "tokens": done.ids.len(),
            "finish_reason": done.finish,
            "start_s": start.as_secs_f64(),
            "prefill_s": done.prefill.as_secs_f64(),
            "decode_s": done.decode.as_secs_f64(),
            "tok_s": done.decode_rate(),
        });
        if self.args.ids {
            line["ids"] = done.ids.clone().into();
        }
        if sampling.temperature > 0.0 {
            line["seed"] = sampling.seed.into();
        }
        if self.request.lookup > 0 {
            line["guessed"] = done.guesses.guessed.into();
            line["guessed_right"] = done.guesses.right.into();
        }
        line
    }

    /// Writes the best texts of a search.
    fn search(
        &self,
        engine: &mut Engine<'_>,
        seq: SeqId,
        params: BeamParams,
        out: &mut dyn Write,
    ) -> Result<()> {
        let (args, session, request) = (self.args, self.session, &self.request);
        let guard = interrupt::catch();
        let search = search_text(engine, seq, &self.tools.tokenizer, request, params)?;
        drop(guard);
        let steps = search.found.iter().map(|f| f.ids.len()).max().unwrap_or(0);
        if args.json {
            let all = search.found.iter().map(|f| {
                let mut entry = serde_json::json!({
                    "text": f.text,
                    "tokens": f.ids.len(),
                    "finish_reason": f.finish,
                    "score": f.score,
                });
                if args.ids {
                    entry["ids"] = f.ids.clone().into();
                }
                entry
            });
            let all: Vec<_> = all.collect();
            let mut line = serde_json::json!({
                "prompt_tokens": self.read,
                "beams": params.beams,
                "prefill_s": search.prefill.as_secs_f64(),
                "decode_s": search.decode.as_secs_f64(),
                "sequences": all,
            });
            if request.sampling.temperature > 0.0 {
                line["seed"] = request.sampling.seed.into();
            }
            written(writeln!(out, "{line}"))?;
        } else {
            for (index, found) in search.found.iter().enumerate() {
                let gap = if index > 0 { "\n" } else { "" };
                let text = match args.ids {
                    true => spaced(&found.ids),
                    false => found.text.clone(),
                };
                written(writeln!(out, "{gap}{text}"))?;
            }
        }
        written(out.flush())?;
        let scores: Vec<String> = search
            .found
            .iter()
            .map(|f| format!("{:.4}", f.score))
            .collect();
        session.note(&format!(
            "prompt: {} tokens in {:.2} s; {} beams: up to {steps} tokens in {:.2} s ({:.1} tok/s); scores {}",
            request.prompt.len(),
            search.prefill.as_secs_f64(),
            params.beams,
            search.decode.as_secs_f64(),
            rate(steps.saturating_sub(1), search.decode),
            scores.join(", "),
        ));
        if let Some(best) = search.found.first() {
            self.note_full(best.finish, best.ids.len());
        }
        Ok(())
    }

    fn note_full(&self, finish: Finish, new: usize) {
        let context = self.session.manifest.limits.max_context as usize;
        if finish == Finish::Length && self.request.prompt.len() + new > context {
            let full = format!("the context of {context} tokens is full");
            self.session.note(&full);
        }
    }
}
