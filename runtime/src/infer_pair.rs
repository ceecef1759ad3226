//! `infer` for encoder-decoders: sources, and texts that look at them.
//!
//! Input: `input_ids` with their mask, and perhaps `decoder_input_ids`. Output: `encoder_last_hidden_state`, where
//! there are texts `logits` for all their positions, hidden states of both stacks, and generated ids, which begin
//! with the start token whatever the texts are. Each source is read once. The distribution of `--probs` is that
//! behind the texts, or behind the start token where there are none or something is generated.
//! Not here: reading and checking the tensors (`infer_input`), generation (`infer`), laying out the file
//! (`tensor_file`).

use crate::engine::{Engine, Rows, Work};
use crate::infer::{InferArgs, Part, Run, Sink, Source, forward, run_rows};
use crate::infer_input::{Pair, Row};
use crate::infer_told::Known;
use crate::kv_cache::SeqId;
use crate::session::Session;
use crate::tensor_file::{Spec, TensorFile};
use crate::{Error, Result};
use llmc_abi::{Entry, EntryInfo};

/// The file with the tensors of both entries, as far as there is input for them.
fn create_file(
    session: &Session<'_>,
    args: &InferArgs,
    pair: &Pair,
    run: &Run<'_>,
    known: Vec<Known>,
) -> Result<Sink> {
    let (m, rows) = (session.manifest, pair.source.rows.len());
    let texts = rows.saturating_mul(run.generation.returned);
    let mut specs: Vec<Spec> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for k in &known {
        specs.push(k.spec.clone());
        parts.push(Part {
            entry: m.entry,
            source: Source::Known,
            width: 0,
            columns: 0,
        });
    }
    let mut add = |(name, shape): Spec, entry, source, columns| {
        let width = shape.last().copied().unwrap_or(0);
        specs.push((name, shape));
        parts.push(Part {
            entry,
            source,
            width,
            columns,
        });
    };
    for info in m.entries() {
        let (prefix, columns) = match (info.entry, &pair.text) {
            (Entry::Encode, _) => ("encoder_", pair.source.columns),
            (Entry::Decode, Some(text)) => ("decoder_", text.columns),
            _ => continue,
        };
        for (name, source, width) in of_entry(&info, prefix, args.hidden_states) {
            let shape = vec![rows, columns, width];
            add((name, shape), info.entry, source, columns);
        }
    }
    if args.probs {
        let logits = m.outputs.iter().find(|o| o.name == "logits");
        let vocab = logits.map_or(0, |o| o.width as usize);
        add(
            ("probs".into(), vec![rows, vocab]),
            m.entry,
            Source::Probs,
            0,
        );
    }
    if run.generation.beams.is_some() {
        let spec = ("sequences_scores".into(), vec![texts]);
        add(spec, m.entry, Source::Scores, 0);
    }
    let ids = args
        .generate
        .map(|n| ("generated_ids".to_owned(), vec![texts, n.saturating_add(1)]));
    let file = TensorFile::create(&args.output, ids, specs)?;
    Ok(Sink { file, parts }.with(known))
}

/// Names, origins and widths of an entry's tensors over tokens.
fn of_entry(info: &EntryInfo, prefix: &str, hidden_states: bool) -> Vec<(String, Source, usize)> {
    let mut list = Vec::new();
    for (index, o) in info.outputs.iter().enumerate() {
        // Models with a head leave the last hidden state out; that of the encoder is a result.
        let name = match (info.entry, o.name.as_str()) {
            (Entry::Decode, "last_hidden_state") => continue,
            (Entry::Decode, name) => name.to_owned(),
            (_, name) => format!("{prefix}{name}"),
        };
        list.push((name, Source::Output(index), o.width as usize));
    }
    let taps = if hidden_states { info.taps.count } else { 0 };
    for layer in 0..taps as usize {
        let name = format!("{prefix}hidden_states.{layer}");
        list.push((name, Source::Tap(layer), info.taps.width as usize));
    }
    list
}

/// Runs `infer` on sources and texts.
pub(crate) fn infer(
    session: &Session<'_>,
    args: &InferArgs,
    pair: Pair,
    mut run: Run<'_>,
    known: Vec<Known>,
) -> Result<()> {
    let m = session.manifest;
    let context = m.limits.max_context as usize;
    if run.new > context {
        let new = run.new;
        return Err(Error::Input(format!(
            "{new} new tokens are more than the context of {context}"
        )));
    }
    let text = pair.text.iter().flat_map(|t| &t.rows);
    let longest = text.map(|r| r.ids.len()).max().unwrap_or(1);
    run.longest = longest.max(1 + run.new);
    // What the texts give is written before anything is continued.
    run.writes = false;
    let (rows, copies) = (pair.source.rows.len(), run.copies());
    let at_once = rows.min((m.limits.max_seqs as usize / copies).max(1));
    let mut engine = session.engine(at_once * copies, run.longest, args.hidden_states)?;
    let mut sink = create_file(session, args, &pair, &run, known)?;
    let start = Row {
        ids: vec![m.start_token() as i32],
        columns: vec![0],
        ..Row::default()
    };
    for first in (0..rows).step_by(at_once) {
        let group = first..(first + at_once).min(rows);
        let sources = &pair.source.rows[group.clone()];
        let seqs = read_sources(&mut engine, &mut sink, sources, first)?;
        let texts = pair.text.as_ref().map(|text| &text.rows[group.clone()]);
        if let Some(texts) = texts {
            forward(&mut engine, &mut sink, texts, &seqs, first)?;
        }
        if args.generate.is_none() && !args.probs {
            seqs.into_iter().flatten().for_each(|seq| engine.close(seq));
            continue;
        }
        for seq in seqs.iter().flatten() {
            engine.truncate(*seq, 0);
        }
        let starts = vec![start.clone(); group.len()];
        let prompts = texts.filter(|_| args.generate.is_none()).unwrap_or(&starts);
        run.rows(&mut engine, &mut sink, (prompts, seqs), first)?;
    }
    run.finish(sink, &m.tokens, Some(m.start_token()))
}

/// A sequence for each source, which has been read.
fn read_sources(
    engine: &mut Engine<'_>,
    sink: &mut Sink,
    rows: &[Row],
    first: usize,
) -> Result<Vec<Option<SeqId>>> {
    let seqs = rows.iter().map(|_| engine.open().map(Some));
    let seqs = seqs.collect::<Result<Vec<_>>>()?;
    let mut works: Vec<Work<'_>> = Vec::with_capacity(rows.len());
    for (row, &seq) in rows.iter().zip(&seqs) {
        works.push(Work {
            seq,
            ids: &row.ids,
            types: &row.types,
            rows: Rows::None,
        });
    }
    run_rows(engine, Entry::Encode, (&works, rows), &mut |view| {
        sink.take(Entry::Encode, view, rows, first);
        Ok(())
    })?;
    Ok(seqs)
}
