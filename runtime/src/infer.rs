//! `infer`: named tensors in, named tensors out, under Hugging Face's names.
//!
//! Input: a safetensors file (`infer_input`). Output: a safetensors file with every output of the
//! model for all positions, hidden states and generated ids where asked. The padded batch is
//! packed, run, and scattered back; masked positions are zero. Every row behaves as if alone.
//! Not here: reading and checking the tensors, laying out the file.

use crate::engine::{Engine, Rows, StepView, Work};
use crate::generation_flags::GenerationFlags;
use crate::infer_input::{Inputs, Row};
use crate::kv_cache::SeqId;
use crate::sampler::Sampler;
use crate::sampling_params::{SamplingChoice, SamplingParams};
use crate::session::Session;
use crate::tensor_file::{Spec, TensorFile};
use crate::{Error, Result, infer_input};
use llmc_abi::{GenerationDefaults, Kind, Per};
use std::path::PathBuf;

/// Arguments of `infer`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InferArgs {
    /// Tensors in: input_ids, attention_mask, token_type_ids
    #[arg(value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// Tensors out
    #[arg(value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Also continue each row by at most N tokens (`generated_ids`)
    #[arg(long, value_name = "N")]
    pub generate: Option<usize>,
    /// The token ids that end a row, separated by commas, or `none` [default: the model's]
    #[arg(
        long,
        value_name = "ID|none",
        requires = "generate",
        allow_hyphen_values = true
    )]
    pub eos: Option<String>,
    /// Also write the embeddings and what each layer gives (`hidden_states.i`)
    #[arg(long)]
    pub hidden_states: bool,
    /// Also write the distribution of the next token after all processors (`probs`)
    #[arg(long)]
    pub probs: bool,
    #[command(flatten)]
    pub flags: GenerationFlags,
}

/// What a tensor of the file is made of.
#[derive(Clone, Copy)]
enum Source {
    Output(usize),
    /// The residual stream at a layer boundary.
    Tap(usize),
    Probs,
}

/// The file and what goes into it.
struct Sink {
    file: TensorFile,
    sources: Vec<(Source, usize)>,
    columns: usize,
}

impl Sink {
    /// Scatters the results of a step. `first` is the row of the run's first item.
    fn take(&mut self, view: &StepView<'_>, rows: &[Row], first: usize) {
        for (tensor, &(source, width)) in self.sources.iter().enumerate() {
            for (s, span) in view.spans.iter().enumerate() {
                let row = first + span.work;
                let at =
                    |token: usize| (row * self.columns + rows[span.work].columns[token]) * width;
                match source {
                    Source::Output(o) => match view.per(o) {
                        Per::Row => {
                            for k in 0..span.rows {
                                let values = view.row(o, span.row + k);
                                self.file.write(tensor, at(span.row_first + k), values);
                            }
                        }
                        Per::Token => {
                            for k in 0..span.len {
                                let values = view.row(o, span.token + k);
                                self.file.write(tensor, at(span.first + k), values);
                            }
                        }
                        Per::Sequence => self.file.write(tensor, row * width, view.row(o, s)),
                    },
                    Source::Tap(layer) => {
                        for k in 0..span.len {
                            if let Some(values) = view.tap(layer, span.token + k) {
                                self.file.write(tensor, at(span.first + k), values);
                            }
                        }
                    }
                    Source::Probs => {}
                }
            }
        }
    }

    fn write_probs(&mut self, row: usize, values: &[f32]) {
        let probs = self
            .sources
            .iter()
            .position(|(s, _)| matches!(s, Source::Probs));
        if let Some(tensor) = probs {
            self.file.write(tensor, row * values.len(), values);
        }
    }
}

/// Runs `infer`.
pub fn infer(session: &Session<'_>, args: &InferArgs) -> Result<()> {
    let m = session.manifest;
    let choice = args.flags.choice()?;
    if args.generate.is_none() && !args.probs && choice != SamplingChoice::default() {
        return Err(Error::Usage(
            "generation flags need --generate or --probs".into(),
        ));
    }
    if args.generate.is_some() {
        session.need(session.generates(), "infer --generate")?;
    }
    if args.probs {
        session.need(session.generates(), "infer --probs")?;
    }
    if args.hidden_states && m.taps.count == 0 {
        return Err(Error::Unsupported(format!(
            "{} gives no hidden states",
            m.name
        )));
    }
    // Plain greedy unless the flags say otherwise: the file is all that an answer depends on.
    let sampling = choice.resolve(&GenerationDefaults::default())?;
    let eos = parse_eos(args.eos.as_deref(), &m.tokens.eos)?;
    let bytes = std::fs::read(&args.input)
        .map_err(|e| Error::Input(format!("cannot read {}: {e}", args.input.display())))?;
    let inputs = infer_input::read(&bytes, m)
        .map_err(|e| Error::Input(format!("{}: {e}", args.input.display())))?;
    drop(bytes);
    let new = args.generate.unwrap_or(0);
    check_room(session, &inputs, new, args.generate.is_some() || args.probs)?;

    let longest = inputs.rows.iter().map(|r| r.ids.len()).max().unwrap_or(0);
    let at_once = match m.kind {
        Kind::Encoder => inputs.rows.len(),
        Kind::Decoder => inputs.rows.len().min(m.limits.max_seqs as usize),
    };
    let sequences = if m.kind == Kind::Decoder { at_once } else { 0 };
    let mut engine = session.engine(sequences, longest.saturating_add(new), args.hidden_states)?;
    let mut sink = create_file(session, args, &inputs)?;
    let wants_rows = m.outputs.iter().any(|o| o.per == Per::Row);
    let mut generated: Vec<Vec<i64>> = Vec::new();
    for (group, rows) in inputs.rows.chunks(at_once.max(1)).enumerate() {
        let first = group * at_once;
        let seqs: Vec<Option<SeqId>> = rows
            .iter()
            .map(|_| {
                if sequences > 0 {
                    engine.open().map(Some)
                } else {
                    Ok(None)
                }
            })
            .collect::<Result<_>>()?;
        let works: Vec<Work<'_>> = rows
            .iter()
            .zip(&seqs)
            .map(|(row, &seq)| Work {
                seq,
                ids: &row.ids,
                types: &row.types,
                rows: if wants_rows { Rows::All } else { Rows::None },
            })
            .collect();
        // Samplers hold rows of the vocabulary: only where tokens are wanted.
        let vocab = engine
            .output("logits")
            .map_or(0, |o| m.outputs[o].width as usize);
        let wanted = if args.generate.is_some() || args.probs {
            rows.len()
        } else {
            0
        };
        let mut samplers: Vec<Sampler> = (0..wanted)
            .map(|r| {
                let seed = sampling.seed.wrapping_add((first + r) as u64);
                let mut sampler = Sampler::new(
                    SamplingParams { seed, ..sampling },
                    vocab,
                    &eos,
                    longest + new,
                );
                rows[r].ids.iter().for_each(|&t| sampler.observe(t as u32));
                sampler
            })
            .collect();
        let mut next: Vec<Vec<i32>> = vec![Vec::new(); rows.len()];
        let logits = engine.output("logits");
        engine.run(&works, &mut |view| {
            sink.take(view, rows, first);
            let Some(logits) = logits.filter(|_| !samplers.is_empty()) else {
                return Ok(());
            };
            for span in view.spans.iter().filter(|s| s.last && s.rows > 0) {
                let row = view.row(logits, span.row + span.rows - 1);
                let sampler = &mut samplers[span.work];
                if args.probs {
                    sink.write_probs(first + span.work, sampler.distribution(row)?);
                }
                if new > 0 {
                    next[span.work] = vec![sampler.sample(row)? as i32];
                }
            }
            Ok(())
        })?;
        if args.generate.is_some() {
            let seqs: Vec<SeqId> = seqs.iter().filter_map(|s| *s).collect();
            generated.extend(continue_rows(
                &mut engine,
                &seqs,
                &mut samplers,
                next,
                new,
                &eos,
            )?);
        }
        for seq in seqs.into_iter().flatten() {
            engine.close(seq);
        }
    }
    // All rows are as wide as the longest; the rest is the pad id.
    let width = generated.iter().map(Vec::len).max().unwrap_or(0);
    generated
        .iter_mut()
        .for_each(|r| r.resize(width, i64::from(m.tokens.pad)));
    sink.file.finish(&generated)
}

/// Continues rows whose first new token is in `next`, until each has met an EOS or has `new`.
fn continue_rows(
    engine: &mut Engine<'_>,
    seqs: &[SeqId],
    samplers: &mut [Sampler],
    mut next: Vec<Vec<i32>>,
    new: usize,
    eos: &[u32],
) -> Result<Vec<Vec<i64>>> {
    let logits = engine.output("logits").unwrap_or(0);
    let mut rows: Vec<Vec<i64>> = vec![Vec::new(); seqs.len()];
    loop {
        for (row, token) in rows.iter_mut().zip(&mut next) {
            if let [id] = token[..] {
                row.push(i64::from(id));
                if eos.contains(&(id as u32)) || row.len() >= new {
                    token.clear();
                }
            }
        }
        let alive: Vec<usize> = (0..seqs.len()).filter(|&r| !next[r].is_empty()).collect();
        if alive.is_empty() {
            return Ok(rows);
        }
        let fed = next.clone();
        let works: Vec<Work<'_>> = alive
            .iter()
            .map(|&r| Work {
                seq: Some(seqs[r]),
                ids: &fed[r],
                types: &[],
                rows: Rows::Last,
            })
            .collect();
        engine.run(&works, &mut |view| {
            for span in view.spans {
                let r = alive[span.work];
                next[r][0] = samplers[r].sample(view.row(logits, span.row))? as i32;
            }
            Ok(())
        })?;
    }
}

fn parse_eos(given: Option<&str>, default: &[u32]) -> Result<Vec<u32>> {
    match given {
        None => Ok(default.to_vec()),
        Some("none") => Ok(Vec::new()),
        Some(text) => text
            .split(',')
            .map(|id| {
                let wrong = |_| Error::Usage(format!("--eos {text}: give token ids or `none`"));
                id.trim().parse().map_err(wrong)
            })
            .collect(),
    }
}

/// Every row must have a token to start from, and the context must hold what is asked for.
fn check_room(session: &Session<'_>, inputs: &Inputs, new: usize, generates: bool) -> Result<()> {
    let context = session.manifest.limits.max_context as usize;
    for (r, row) in inputs.rows.iter().enumerate() {
        let len = row.ids.len();
        if generates && len == 0 {
            return Err(Error::Input(format!(
                "row {r} is masked wholly: nothing to continue"
            )));
        }
        // The last new token is never read back.
        if len.saturating_add(new.saturating_sub(1)) > context {
            return Err(Error::Input(format!(
                "row {r} has {len} tokens, with {new} new ones that is more than the context of {context}"
            )));
        }
    }
    Ok(())
}

fn create_file(session: &Session<'_>, args: &InferArgs, inputs: &Inputs) -> Result<Sink> {
    let m = session.manifest;
    let (b, s) = (inputs.rows.len(), inputs.columns);
    let mut specs: Vec<Spec> = Vec::new();
    let mut sources = Vec::new();
    for (index, o) in m.outputs.iter().enumerate() {
        let width = o.width as usize;
        let shape = match o.per {
            Per::Row | Per::Token => vec![b, s, width],
            Per::Sequence => vec![b, width],
        };
        specs.push((o.name.clone(), shape));
        sources.push((Source::Output(index), width));
    }
    if args.hidden_states {
        let width = m.taps.width as usize;
        for layer in 0..m.taps.count as usize {
            specs.push((format!("hidden_states.{layer}"), vec![b, s, width]));
            sources.push((Source::Tap(layer), width));
        }
        let last = m.outputs.iter().position(|o| o.name == "last_hidden_state");
        if let (true, Some(last)) = (m.taps.count == m.num_layers, last) {
            let width = m.outputs[last].width as usize;
            specs.push((format!("hidden_states.{}", m.num_layers), vec![b, s, width]));
            sources.push((Source::Output(last), width));
        }
        if !m.outputs.iter().any(|o| o.name == "last_hidden_state") {
            specs.push(("last_hidden_state".into(), vec![b, s, width]));
            sources.push((Source::Tap(m.taps.count as usize - 1), width));
        }
    }
    if args.probs {
        let vocab = m
            .outputs
            .iter()
            .find(|o| o.name == "logits")
            .map_or(0, |o| o.width as usize);
        specs.push(("probs".into(), vec![b, vocab]));
        sources.push((Source::Probs, vocab));
    }
    let ids = args
        .generate
        .map(|n| ("generated_ids".to_owned(), vec![b, n]));
    let file = TensorFile::create(&args.output, ids, specs)?;
    Ok(Sink {
        file,
        sources,
        columns: s,
    })
}
