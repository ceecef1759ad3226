//! `embed`: one vector for each text.
//!
//! Input: texts as arguments, or one a line on standard input. Output: one JSON line
//! `{"embedding": […]}` for each, in order, as they are ready. A thread reads and encodes ahead;
//! a batch is whatever is waiting, up to the model's limits, so a slow writer gets its answer at
//! once and a file runs in full batches. Not here: pooling (compiled into the step).

use crate::engine::{Engine, Rows, Work};
use crate::session::{Session, as_i32, check_ids};
use crate::text_tools::TextTools;
use crate::{Error, Result};
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Arguments of `embed`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EmbedArgs {
    /// The texts; `-` or nothing reads one a line from standard input
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
}

/// An encoded text.
struct Item {
    ids: Vec<i32>,
    types: Vec<i32>,
    cut: bool,
}

/// Runs `embed`.
pub fn embed(
    session: &Session<'_>,
    args: &EmbedArgs,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let m = session.manifest;
    let output = m
        .outputs
        .iter()
        .position(|o| o.name == "sentence_embedding");
    let Some(output) = output.filter(|_| m.embeds) else {
        return session.need(false, "embed");
    };
    let tools = session.text_tools()?;
    let mut engine = session.engine(m.limits.max_seqs as usize, session.max_input(), false)?;
    let (send, receive) = sync_channel(4 * m.limits.max_seqs as usize);
    std::thread::scope(|scope| {
        scope.spawn(|| read_ahead(session, &tools, args, input, send));
        let done = drain(session, &mut engine, output, &receive, out);
        // Dropped before the scope waits for the reader, which then finds nobody listening.
        drop(receive);
        done
    })
}

/// Encodes the texts and hands them over, an error as the last one.
fn read_ahead(
    session: &Session<'_>,
    tools: &TextTools<'_>,
    args: &EmbedArgs,
    input: &mut dyn BufRead,
    send: SyncSender<Result<Item>>,
) {
    let item = |text: &str| encode(session, tools, text);
    if !matches!(args.texts.as_slice(), [] | [_]) || args.texts.first().is_some_and(|t| t != "-") {
        for text in &args.texts {
            if send.send(item(text)).is_err() {
                return;
            }
        }
        return;
    }
    let mut line = String::new();
    loop {
        line.clear();
        let result = match input.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => item(line.trim_end_matches(['\n', '\r'])),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Err(Error::Input("standard input is not UTF-8".into()))
            }
            Err(e) => Err(Error::io("standard input", e)),
        };
        let failed = result.is_err();
        if send.send(result).is_err() || failed {
            return;
        }
    }
}

fn encode(session: &Session<'_>, tools: &TextTools<'_>, text: &str) -> Result<Item> {
    let (encoded, cut) = tools.tokenizer.encode_within(text, session.max_input())?;
    check_ids(session.manifest, &encoded.ids)?;
    if encoded.ids.is_empty() {
        return Err(Error::Input(
            "a text without tokens has no embedding".into(),
        ));
    }
    let types = match session.manifest.type_vocab_size {
        0 | 1 => Vec::new(),
        n => encoded
            .type_ids
            .iter()
            .map(|&t| t.min(n - 1) as i32)
            .collect(),
    };
    Ok(Item {
        ids: as_i32(&encoded.ids),
        types,
        cut,
    })
}

/// Runs batches of what is waiting until nothing comes any more.
fn drain(
    session: &Session<'_>,
    engine: &mut Engine<'_>,
    output: usize,
    receive: &Receiver<Result<Item>>,
    out: &mut dyn Write,
) -> Result<()> {
    let limit = session.manifest.limits.max_seqs as usize;
    let mut told = false;
    let mut batch: Vec<Item> = Vec::new();
    while let Ok(first) = receive.recv() {
        batch.clear();
        let mut failure = None;
        let waiting = std::iter::once(first).chain(receive.try_iter());
        for item in waiting {
            match item {
                Ok(item) => batch.push(item),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
            if batch.len() >= limit {
                break;
            }
        }
        if !told && batch.iter().any(|i| i.cut) {
            told = true;
            let limit = session.max_input();
            session.note(&format!(
                "texts of more than {limit} tokens are cut to {limit}"
            ));
        }
        run_batch(engine, output, &batch, out)?;
        if let Some(e) = failure {
            return Err(e);
        }
    }
    Ok(())
}

fn run_batch(
    engine: &mut Engine<'_>,
    output: usize,
    batch: &[Item],
    out: &mut dyn Write,
) -> Result<()> {
    let decoder = engine.manifest().kind == llmc_abi::Kind::Decoder;
    let mut works = Vec::with_capacity(batch.len());
    for item in batch {
        let seq = if decoder { Some(engine.open()?) } else { None };
        works.push(Work {
            seq,
            ids: &item.ids,
            types: &item.types,
            rows: Rows::None,
        });
    }
    let failed = |e| Error::io("standard output", e);
    engine.run(&works, &mut |view| {
        for (s, _) in view.spans.iter().enumerate().filter(|(_, span)| span.last) {
            out.write_all(b"{\"embedding\": ").map_err(failed)?;
            serde_json::to_writer(&mut *out, view.row(output, s))
                .map_err(|e| failed(std::io::Error::from(e)))?;
            out.write_all(b"}\n").map_err(failed)?;
        }
        Ok(())
    })?;
    works
        .iter()
        .filter_map(|w| w.seq)
        .for_each(|seq| engine.close(seq));
    out.flush().map_err(failed)
}
