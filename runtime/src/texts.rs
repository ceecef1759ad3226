//! Texts in, answers out: what the tasks over many texts share.
//!
//! Input: texts as arguments, or one a line on standard input, and a task: how a text becomes inputs of the
//! model ([`Item`]), which outputs are wanted, and what is printed. Output: the answers in the order of the
//! texts, as they are ready. A thread reads and encodes ahead; a batch is whatever is waiting, up to the
//! model's limits, so that a slow writer gets its answer at once and a file runs in full batches. The engine
//! packs a batch into steps by their tokens, without padding.
//!
//! Not here: any task.

use crate::engine::{Engine, Rows, StepView, Work};
use crate::session::{Session, as_i32, check_ids};
use crate::tokenizer::Window;
use crate::{Error, Result};
use llmc_abi::{Kind, Per};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The texts of a task.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Texts {
    /// The texts, or pictures' files if the model reads those; `-` or nothing reads one a line from standard input
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
}

impl Texts {
    /// Whether they are lines of standard input.
    pub fn are_lines(&self) -> bool {
        match self.texts.as_slice() {
            [] => true,
            [text] => text == "-",
            _ => false,
        }
    }
}

impl Texts {
    /// Calls `each` with one after another, as they come.
    pub fn each(
        &self,
        input: &mut dyn BufRead,
        each: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        if !self.are_lines() {
            return self.texts.iter().try_for_each(|text| each(text));
        }
        let mut line = String::new();
        loop {
            line.clear();
            match input.read_line(&mut line) {
                Ok(0) => return Ok(()),
                Ok(_) => each(line.trim_end_matches(['\n', '\r']))?,
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(Error::Input("standard input is not UTF-8".into()));
                }
                Err(e) => return Err(Error::io("standard input", e)),
            }
        }
    }
}

/// One input of the model.
#[derive(Clone, Debug, Default)]
pub struct Input {
    ids: Vec<i32>,
    types: Vec<i32>,
    /// The tokens whose rows are wanted, where the output has rows.
    rows: Vec<usize>,
}

impl Input {
    /// Checks ids against the model's tables.
    pub fn new(session: &Session<'_>, ids: &[u32], type_ids: &[u32]) -> Result<Input> {
        let m = session.manifest;
        check_ids(m, ids)?;
        if ids.is_empty() {
            return Err(Error::Input("a text without tokens has no answer".into()));
        }
        let types = match m.type_vocab_size {
            0 | 1 => Vec::new(),
            n => type_ids.iter().map(|&t| t.min(n - 1) as i32).collect(),
        };
        Ok(Input {
            ids: as_i32(ids),
            types,
            rows: Vec::new(),
        })
    }

    /// The input of a window.
    pub fn of(session: &Session<'_>, window: &Window) -> Result<Input> {
        Input::new(session, &window.ids, &window.type_ids)
    }

    /// The same, which wants the rows of these tokens.
    pub fn with_rows(self, rows: Vec<usize>) -> Input {
        Input { rows, ..self }
    }
}

/// A text on its way through the model.
pub struct Item<T> {
    pub inputs: Vec<Input>,
    /// Whether its end was left out.
    pub cut: bool,
    /// What the answer is made of besides.
    pub of: T,
}

/// The wanted outputs of one input, in the task's order: the row of the sequence, or the rows of all its
/// tokens or of those that it wants, one after another.
pub type Found = Vec<Vec<f32>>;

/// Prints the answer to a text; the results of its inputs in order.
pub type Answer<'a, T> = dyn FnMut(&Item<T>, Vec<Found>, &mut dyn Write) -> Result<()> + 'a;

/// A task over texts.
pub struct Task<'a, T> {
    /// Indices of the manifest's outputs.
    pub outputs: &'a [usize],
    /// A text's inputs.
    pub encode: &'a (dyn Fn(&str) -> Result<Item<T>> + Sync),
    pub answer: &'a mut Answer<'a, T>,
}

/// Writes one JSON line.
pub fn write_json(out: &mut dyn Write, line: &impl Serialize) -> Result<()> {
    let failed = |e| Error::io("standard output", e);
    serde_json::to_writer(&mut *out, line).map_err(|e| failed(std::io::Error::from(e)))?;
    out.write_all(b"\n").map_err(failed)
}

/// Answers all texts.
pub fn run<T: Send>(
    session: &Session<'_>,
    texts: &Texts,
    mut task: Task<'_, T>,
    input: &mut (dyn BufRead + Send),
    out: &mut dyn Write,
) -> Result<()> {
    let seqs = session.manifest.limits.max_seqs as usize;
    let mut engine = session.engine(seqs, session.max_input(), false)?;
    let (send, receive) = sync_channel(4 * seqs);
    let encode = task.encode;
    std::thread::scope(|scope| {
        scope.spawn(move || read_ahead(texts, encode, input, send));
        let done = drain(session, &mut engine, &mut task, &receive, out);
        // Dropped before the scope waits for the reader, which then finds nobody listening.
        drop(receive);
        done
    })
}

/// Encodes the texts and hands them over, an error as the last one.
fn read_ahead<T>(
    texts: &Texts,
    encode: &dyn Fn(&str) -> Result<Item<T>>,
    input: &mut dyn BufRead,
    send: SyncSender<Result<Item<T>>>,
) {
    if !texts.are_lines() {
        for text in &texts.texts {
            if send.send(encode(text)).is_err() {
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
            Ok(_) => encode(line.trim_end_matches(['\n', '\r'])),
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

/// Runs batches of what is waiting until nothing comes any more.
fn drain<T>(
    session: &Session<'_>,
    engine: &mut Engine<'_>,
    task: &mut Task<'_, T>,
    receive: &Receiver<Result<Item<T>>>,
    out: &mut dyn Write,
) -> Result<()> {
    let limit = session.manifest.limits.max_seqs as usize;
    let mut told = false;
    let mut batch: Vec<Item<T>> = Vec::new();
    while let Ok(first) = receive.recv() {
        batch.clear();
        let mut inputs = 0;
        let mut failure = None;
        for item in std::iter::once(first).chain(receive.try_iter()) {
            match item {
                Ok(item) => {
                    inputs += item.inputs.len();
                    batch.push(item);
                }
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
            if inputs >= limit {
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
        run_batch(engine, task, &batch, out)?;
        if let Some(e) = failure {
            return Err(e);
        }
    }
    Ok(())
}

fn run_batch<T>(
    engine: &mut Engine<'_>,
    task: &mut Task<'_, T>,
    batch: &[Item<T>],
    out: &mut dyn Write,
) -> Result<()> {
    let m = engine.manifest();
    let wants_rows = task.outputs.iter().any(|&o| m.outputs[o].per == Per::Row);
    let mut works = Vec::new();
    for input in batch.iter().flat_map(|item| &item.inputs) {
        let seq = match m.kind {
            Kind::Decoder => Some(engine.open()?),
            Kind::Encoder => None,
            Kind::EncoderDecoder => {
                let what = "tasks over texts of models that have a decoder besides their encoder";
                return Err(Error::Unsupported(what.into()));
            }
        };
        works.push(Work {
            seq,
            ids: &input.ids,
            types: &input.types,
            rows: if wants_rows {
                Rows::At(&input.rows)
            } else {
                Rows::None
            },
        });
    }
    // The item whose answer comes next, and what is known of it.
    let mut next = 0;
    let mut found: Vec<Found> = Vec::new();
    let mut current: Found = vec![Vec::new(); task.outputs.len()];
    let failed = |e| Error::io("standard output", e);
    engine.run(&works, &mut |view| {
        for (s, span) in view.spans.iter().enumerate() {
            let first = span.row_first == 0;
            for (&output, values) in task.outputs.iter().zip(&mut current) {
                collect(view, output, (s, span), first, values);
            }
            if !span.last {
                continue;
            }
            let fresh = vec![Vec::new(); task.outputs.len()];
            found.push(std::mem::replace(&mut current, fresh));
            if found.len() == batch[next].inputs.len() {
                (task.answer)(&batch[next], std::mem::take(&mut found), out)?;
                next += 1;
            }
        }
        Ok(())
    })?;
    works
        .iter()
        .filter_map(|w| w.seq)
        .for_each(|seq| engine.close(seq));
    out.flush().map_err(failed)
}

/// Takes what a step gave of one input.
fn collect(
    view: &StepView<'_>,
    output: usize,
    (s, span): (usize, &crate::engine::Span),
    first: bool,
    values: &mut Vec<f32>,
) {
    let mut take = |rows: std::ops::Range<usize>| {
        for row in rows {
            values.extend_from_slice(view.row(output, row));
        }
    };
    match view.per(output) {
        Per::Row => take(span.row..span.row + span.rows),
        // A step that is repeated for its rows gives these every time.
        Per::Token if first => take(span.token..span.token + span.len),
        Per::Sequence if span.last => take(s..s + 1),
        Per::Token | Per::Sequence => {}
    }
}
