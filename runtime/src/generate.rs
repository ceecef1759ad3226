//! `generate`: continues a raw prompt.
//!
//! Input: a prompt. Output: the continuation alone on standard output, as it comes; figures on
//! standard error. Not here: chat templates (`chat`), the loop itself (`decode_loop`).

use crate::decode_loop::{Finish, Request, continue_text};
use crate::generation_flags::GenerationFlags;
use crate::interrupt;
use crate::session::{Session, check_ids};
use crate::text_tools::read_text;
use crate::{Error, Result};
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
    let sampling = args.flags.choice()?.resolve(&m.generation)?;
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

    let new = args.new.unwrap_or(DEFAULT_NEW);
    session.timings.mark("prompt");
    let mut engine = session.engine(1, ids.len().saturating_add(new), false)?;
    let seq = engine.open()?;
    let request = Request {
        prompt: &ids,
        max_new: Some(new),
        sampling,
        stops: &args.stop,
        eos: if args.ignore_eos { &[] } else { &m.tokens.eos },
        continues: true,
    };
    let before = session.timings.parts();
    let mut first = true;
    let mut emit = |id: Option<u32>, text: &str| -> Result<()> {
        let wrote = match (args.json, args.ids, id) {
            (true, ..) | (false, true, None) => Ok(()),
            (false, true, Some(id)) => {
                write!(
                    out,
                    "{}{id}",
                    if std::mem::take(&mut first) { "" } else { " " }
                )
            }
            (false, false, _) => out.write_all(text.as_bytes()),
        };
        wrote
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("standard output", e))
    };
    let guard = interrupt::catch();
    let done = continue_text(&mut engine, seq, &tools.tokenizer, &request, &mut emit)?;
    drop(guard);
    let start: Duration = before.iter().map(|(_, time)| *time).sum();
    let wrote = if args.json {
        let mut line = serde_json::json!({
            "text": done.text,
            "prompt_tokens": ids.len(),
            "tokens": done.ids.len(),
            "finish_reason": done.finish,
            "start_s": start.as_secs_f64(),
            "prefill_s": done.prefill.as_secs_f64(),
            "decode_s": done.decode.as_secs_f64(),
            "tok_s": done.decode_rate(),
        });
        if args.ids {
            line["ids"] = done.ids.clone().into();
        }
        if sampling.temperature > 0.0 {
            line["seed"] = sampling.seed.into();
        }
        writeln!(out, "{line}")
    } else {
        writeln!(out)
    };
    wrote
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("standard output", e))?;
    let seed = match sampling.temperature > 0.0 {
        true => format!("; seed {}", sampling.seed),
        false => String::new(),
    };
    session.note(&format!("{}{seed}", done.figures()));
    if session.tell_timings {
        eprintln!("{}", done.timings(&before));
    }
    if done.finish == Finish::Length && ids.len() + done.ids.len() > m.limits.max_context as usize {
        session.note(&format!(
            "the context of {} tokens is full",
            m.limits.max_context
        ));
    }
    Ok(())
}
