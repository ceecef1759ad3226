//! `chat`: a conversation through the model's chat template.
//!
//! Input: lines, from a terminal or a pipe, one message each. Output: the answers on standard
//! output. The whole conversation is rendered anew for each turn; what the cache already holds of
//! it is kept, so a turn costs its new tokens only. Not here: the template's dialect.

use crate::chat_template::Message;
use crate::decode_loop::{Finish, Request, continue_text};
use crate::generation_flags::GenerationFlags;
use crate::interrupt;
use crate::session::{Session, check_ids};
use crate::timings::line;
use crate::told::Given;
use crate::{Error, Result};
use std::io::{BufRead, IsTerminal, Write};

/// Arguments of `chat`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChatArgs {
    /// What the model is told before the conversation
    #[arg(long, value_name = "S")]
    pub system: Option<String>,
    /// At most N tokens an answer [default: as the context allows]
    #[arg(short = 'n', value_name = "N")]
    pub new: Option<usize>,
    /// End an answer at this text, which is not printed (may be given several times)
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

/// Runs `chat`.
pub fn chat(
    session: &Session<'_>,
    args: &ChatArgs,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<()> {
    session.need(
        session.continues_texts() && session.manifest.chat_template.is_some(),
        "chat",
    )?;
    let m = session.manifest;
    let generation = args.flags.resolve(&m.generation, m)?;
    generation.one_text("chat")?;
    let tools = session.text_tools()?;
    let template = tools.chat()?;
    let context = m.limits.max_context as usize;
    let mut engine = session.engine(1, context, false)?;
    let seq = engine.open()?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        session.note(&format!(
            "{}: write a message; Ctrl-D ends, Ctrl-C cuts an answer short",
            m.name
        ));
    }

    if session.tell_timings {
        for (part, time) in session.timings.parts() {
            eprintln!("{}", line(part, time, ""));
        }
    }

    let mut messages: Vec<Message> = Vec::new();
    messages.extend(args.system.as_deref().map(|s| Message::new("system", s)));
    // The tokens that the cache holds.
    let mut held: Vec<u32> = Vec::new();
    let mut line = String::new();
    loop {
        if terminal {
            eprint!("> ");
        }
        line.clear();
        match input.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Error::Input("standard input is not UTF-8".into()));
            }
            Err(e) => return Err(Error::io("standard input", e)),
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if text.trim().is_empty() {
            continue;
        }
        messages.push(Message::new("user", text));
        let rendered = template.render(&messages, None, true)?;
        let prompt = tools.tokenizer.encode(&rendered, false)?.ids;
        check_ids(m, &prompt)?;
        if prompt.len() > context {
            return Err(Error::Run(format!(
                "the context of {context} tokens is full"
            )));
        }

        // Keep the common start, but compute at least one token: its logits are needed.
        let common = held.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
        let common = common.min(prompt.len().saturating_sub(1));
        if !engine.truncate(seq, common) {
            engine.truncate(seq, 0);
        }
        let request = Request {
            prompt: &prompt,
            given: Given::default(),
            max_new: args.new,
            sampling: generation.sampling,
            bias: &generation.bias,
            lookup: generation.lookup,
            stops: &args.stop,
            eos: &m.tokens.eos,
            continues: false,
        };
        let mut emit = |_: Option<u32>, text: &str| {
            let wrote = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            wrote.map_err(|e| Error::io("standard output", e))
        };
        let guard = interrupt::catch();
        let done = continue_text(&mut engine, seq, &tools.tokenizer, &request, &mut emit)?;
        drop(guard);
        writeln!(out)
            .and_then(|()| out.flush())
            .map_err(|e| Error::io("standard output", e))?;
        session.note(&done.figures());
        if session.tell_timings {
            eprintln!("{}", done.timings(&[]));
        }
        if done.finish == Finish::Length && args.new.is_none_or(|n| done.ids.len() < n) {
            session.note(&format!("the context of {context} tokens is full"));
        }
        messages.push(Message::new("assistant", done.text.trim()));
        held = prompt;
        held.extend(&done.ids);
        // The last token of an answer is not in the cache yet.
        held.truncate(engine.len(seq));
    }
    if terminal {
        eprintln!();
    }
    Ok(())
}
