//! `infer`: named tensors in, named tensors out, under Hugging Face's names.
//!
//! Input: a safetensors file (`infer_input`). Output: a safetensors file with every output of the
//! model for all positions, hidden states and generated ids where asked. The padded batch is
//! packed, run, and scattered back; masked positions are zero. Every row behaves as if alone.
//! Not here: reading and checking the tensors, laying out the file.

use crate::beam_search::{BeamParams, BeamSearch};
use crate::beam_sequences::Sequences;
use crate::engine::{Engine, Rows, StepView, Work};
use crate::generation_flags::{Generation, GenerationFlags};
use crate::infer_input::{Inputs, Row};
use crate::infer_told::Known;
use crate::kv_cache::SeqId;
use crate::prompt_lookup;
use crate::sampler::Sampler;
use crate::sampling_params::SamplingParams;
use crate::session::Session;
use crate::tensor_file::{Spec, TensorFile};
use crate::told::Told;
use crate::{Error, Result, infer_input, infer_pair, infer_pictures, infer_told};
use llmc_abi::{Entry, GenerationDefaults, Kind, Per, SpecialTokens};
use std::path::PathBuf;

/// Arguments of `infer`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct InferArgs {
    /// Tensors in: input_ids, attention_mask, token_type_ids, decoder_input_ids, pixel_values
    #[arg(value_name = "IN.safetensors")]
    pub input: PathBuf,
    /// Tensors out
    #[arg(value_name = "OUT.safetensors")]
    pub output: PathBuf,
    /// Also read a picture's file, behind those of IN, which may itself be a picture; its `pixel_values` are
    /// written out
    #[arg(long = "image", value_name = "FILE")]
    pub images: Vec<PathBuf>,
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

/// Outputs that are one number for each token: `[batch, tokens]`.
const SPANS: [&str; 2] = ["start_logits", "end_logits"];

/// What a tensor of the file is made of.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Output(usize),
    /// The residual stream at a layer boundary.
    Tap(usize),
    Probs,
    /// The scores of a search's texts.
    Scores,
    /// It was known before.
    Known,
}

/// A tensor of the file.
pub(crate) struct Part {
    /// What gives it.
    pub entry: Entry,
    pub source: Source,
    pub width: usize,
    /// Positions of a row of the file.
    pub columns: usize,
}

/// The file and what goes into it.
pub(crate) struct Sink {
    pub file: TensorFile,
    pub parts: Vec<Part>,
}

impl Sink {
    /// Writes the first tensors of the file.
    pub fn with(mut self, known: Vec<Known>) -> Sink {
        for (tensor, known) in known.iter().enumerate() {
            self.file.write(tensor, 0, &known.values);
        }
        self
    }

    /// Scatters the results of a step of `entry`. `first` is the row of the run's first item.
    pub fn take(&mut self, entry: Entry, view: &StepView<'_>, rows: &[Row], first: usize) {
        let own = |(_, part): &(usize, &Part)| part.entry == entry;
        for (tensor, part) in self.parts.iter().enumerate().filter(own) {
            let width = part.width;
            for (s, span) in view.spans.iter().enumerate() {
                let row = first + span.work;
                let at =
                    |token: usize| (row * part.columns + rows[span.work].columns[token]) * width;
                match part.source {
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
                    Source::Probs | Source::Scores | Source::Known => {}
                }
            }
        }
    }

    fn write_scores(&mut self, values: &[f32]) {
        let is_scores = |p: &Part| matches!(p.source, Source::Scores);
        if let Some(tensor) = self.parts.iter().position(is_scores) {
            self.file.write(tensor, 0, values);
        }
    }

    fn write_probs(&mut self, row: usize, values: &[f32]) {
        let is_probs = |p: &Part| matches!(p.source, Source::Probs);
        if let Some(tensor) = self.parts.iter().position(is_probs) {
            self.file.write(tensor, row * values.len(), values);
        }
    }
}

/// Runs `infer`.
pub fn infer(session: &Session<'_>, args: &InferArgs) -> Result<()> {
    let m = session.manifest;
    if args.generate.is_none() && !args.probs && args.flags != GenerationFlags::default() {
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
    let generation = args.flags.resolve(&GenerationDefaults::default(), m)?;
    if args.probs && generation.beams.is_some() {
        return Err(Error::Usage(
            "--probs and --beams exclude each other".into(),
        ));
    }
    if args.generate.is_none() && (generation.beams.is_some() || generation.returned > 1) {
        return Err(Error::Usage(
            "--beams and --num-return need --generate".into(),
        ));
    }
    let eos = parse_eos(args.eos.as_deref(), &m.tokens.eos)?;
    if m.pictures.is_none() && !args.images.is_empty() {
        return Err(Error::Unsupported(format!("{} reads no pictures", m.name)));
    }
    let bytes = std::fs::read(&args.input)
        .map_err(|e| Error::Input(format!("cannot read {}: {e}", args.input.display())))?;
    let told = Told::of(m)?;
    if let (Some(pictures), None) = (&m.pictures, &told) {
        return infer_pictures::infer(session, args, pictures, &bytes);
    }
    let new = args.generate.unwrap_or(0);
    // Samplers hold rows of the vocabulary: only where tokens are wanted.
    let logits = m.outputs.iter().position(|o| o.name == "logits");
    let run = Run {
        logits: logits.unwrap_or(0),
        vocab: logits.map_or(0, |o| m.outputs[o].width as usize),
        longest: 0,
        new,
        eos: &eos,
        generation: &generation,
        writes: true,
        continues: args.generate.is_some(),
        probs: args.probs,
        texts: Vec::new(),
        scores: Vec::new(),
    };
    if let Some(told) = &told {
        return infer_told::infer(session, args, told, bytes, run);
    }
    let named = |e| Error::Input(format!("{}: {e}", args.input.display()));
    if m.kind == Kind::EncoderDecoder {
        let pair = infer_input::read_pair(&bytes, m).map_err(named)?;
        return infer_pair::infer(session, args, pair, run, Vec::new());
    }
    let inputs = infer_input::read(&bytes, m).map_err(named)?;
    drop(bytes);
    rows(session, args, inputs, run, Vec::new())
}

/// Runs a batch of rows, and continues them where asked.
pub(crate) fn rows(
    session: &Session<'_>,
    args: &InferArgs,
    inputs: Inputs,
    mut run: Run<'_>,
    known: Vec<Known>,
) -> Result<()> {
    let (m, generation, new) = (session.manifest, run.generation, run.new);
    check_room(session, &inputs, new, args.generate.is_some() || args.probs)?;

    let longest = inputs.rows.iter().map(|r| r.ids.len()).max().unwrap_or(0);
    // Sequences that one row of the input needs.
    let copies = generation.beams.map_or(generation.returned, |b| b.beams);
    let at_once = match m.kind {
        Kind::Encoder => inputs.rows.len(),
        Kind::Decoder | Kind::EncoderDecoder => inputs
            .rows
            .len()
            .min((m.limits.max_seqs as usize / copies).max(1)),
    };
    let sequences = match m.kind {
        Kind::Encoder => 0,
        Kind::Decoder | Kind::EncoderDecoder => at_once * copies,
    };
    let mut engine = session.engine(sequences, longest.saturating_add(new), args.hidden_states)?;
    let mut sink = create_file(session, args, &inputs, generation.returned, known)?;
    run.longest = longest + new;
    let wants_tokens = args.generate.is_some() || args.probs;
    for (group, rows) in inputs.rows.chunks(at_once.max(1)).enumerate() {
        let first = group * at_once;
        let seqs = open_rows(&mut engine, rows)?;
        if wants_tokens {
            run.rows(&mut engine, &mut sink, (rows, seqs), first)?;
        } else {
            forward(&mut engine, &mut sink, rows, &seqs, first)?;
            seqs.into_iter().flatten().for_each(|seq| engine.close(seq));
        }
    }
    run.finish(sink, &m.tokens, None)
}

/// A sequence for each row, where the model has any.
fn open_rows(engine: &mut Engine<'_>, rows: &[Row]) -> Result<Vec<Option<SeqId>>> {
    let mut seqs = Vec::with_capacity(rows.len());
    for _ in rows {
        seqs.push(match engine.manifest().kind {
            Kind::Encoder => None,
            Kind::Decoder | Kind::EncoderDecoder => Some(engine.open()?),
        });
    }
    Ok(seqs)
}

/// All that the main entry gives for rows.
pub(crate) fn works<'r>(
    engine: &Engine<'_>,
    rows: &'r [Row],
    seqs: &[Option<SeqId>],
) -> Vec<Work<'r>> {
    let wants_rows = engine.manifest().outputs.iter().any(|o| o.per == Per::Row);
    let work = |(row, &seq): (&'r Row, &Option<SeqId>)| Work {
        seq,
        ids: &row.ids,
        types: &row.types,
        rows: if wants_rows { Rows::All } else { Rows::None },
    };
    rows.iter().zip(seqs).map(work).collect()
}

/// Runs rows through an entry, with what stands for some of their tokens.
pub(crate) fn run_rows(
    engine: &mut Engine<'_>,
    entry: Entry,
    (works, rows): (&[Work<'_>], &[Row]),
    sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
) -> Result<()> {
    let features: Vec<&[f32]> = rows.iter().map(|row| row.features.as_slice()).collect();
    engine.run_of(entry, works, &[&features], sink)
}

/// Runs rows and writes what the model gives.
pub(crate) fn forward(
    engine: &mut Engine<'_>,
    sink: &mut Sink,
    rows: &[Row],
    seqs: &[Option<SeqId>],
    first: usize,
) -> Result<()> {
    let (works, entry) = (works(engine, rows, seqs), engine.manifest().entry);
    run_rows(engine, entry, (&works, rows), &mut |view| {
        sink.take(entry, view, rows, first);
        Ok(())
    })
}

/// Rows of a group and their sequences.
type Group<'r> = (&'r [Row], Vec<Option<SeqId>>);

/// Tokens behind rows.
pub(crate) struct Run<'a> {
    logits: usize,
    vocab: usize,
    /// Tokens of the longest sequence to be.
    pub longest: usize,
    /// New tokens.
    pub new: usize,
    eos: &'a [u32],
    pub generation: &'a Generation,
    /// Whether the file gets what the rows themselves give.
    pub writes: bool,
    continues: bool,
    probs: bool,
    /// New tokens of each text.
    texts: Vec<Vec<i64>>,
    /// The score of each text of a search.
    scores: Vec<f32>,
}

impl Run<'_> {
    /// Sequences that one row of the input needs.
    pub fn copies(&self) -> usize {
        let beams = self.generation.beams.map(|b| b.beams);
        beams.unwrap_or(self.generation.returned)
    }

    /// Writes the texts, behind a `start` token where there is one: all as wide as the longest.
    pub fn finish(self, mut sink: Sink, tokens: &SpecialTokens, start: Option<u32>) -> Result<()> {
        let fill = match self.generation.beams {
            // A search fills with an end token where the pad id is 0, as Hugging Face's does.
            Some(_) if tokens.pad == 0 => self.eos.first().copied().unwrap_or(0),
            _ => tokens.pad,
        };
        let mut texts = self.texts;
        let width = texts.iter().map(Vec::len).max().unwrap_or(0);
        for text in &mut texts {
            text.resize(width, i64::from(fill));
            if let Some(start) = start {
                text.insert(0, i64::from(start));
            }
        }
        sink.write_scores(&self.scores);
        sink.file.finish(&texts)
    }

    /// Runs rows, the first of which is row `first` of the file, and continues them; closes their
    /// sequences.
    pub fn rows(
        &mut self,
        engine: &mut Engine<'_>,
        sink: &mut Sink,
        rows: Group<'_>,
        first: usize,
    ) -> Result<()> {
        match self.generation.beams {
            Some(params) => self.search(engine, sink, rows, first, params),
            None => self.sample(engine, sink, rows, first),
        }
    }

    fn sampler(&self, seed: u64) -> Sampler {
        let sampling = SamplingParams {
            seed: self.generation.sampling.seed.wrapping_add(seed),
            ..self.generation.sampling
        };
        Sampler::new(sampling, self.vocab, self.eos, self.longest).biased(&self.generation.bias)
    }

    fn search(
        &mut self,
        engine: &mut Engine<'_>,
        sink: &mut Sink,
        (rows, seqs): Group<'_>,
        first: usize,
        params: BeamParams,
    ) -> Result<()> {
        let (works, entry) = (works(engine, rows, &seqs), engine.manifest().entry);
        let prompts = rows.iter().map(as_tokens).collect();
        let sampler = self.sampler(first as u64).keeping(1 + self.eos.len());
        let mut search = BeamSearch::new(params, sampler, self.eos, prompts, self.new);
        run_rows(engine, entry, (&works, rows), &mut |view| {
            if self.writes {
                sink.take(entry, view, rows, first);
            }
            for span in view.spans.iter().filter(|s| s.last && s.rows > 0) {
                let row = view.row(self.logits, span.row + span.rows - 1);
                search.first(span.work, row)?;
            }
            Ok(())
        })?;
        let seqs = seqs.into_iter().flatten().collect();
        let mut sequences = Sequences::new(engine, seqs, self.logits);
        search.run(&mut sequences)?;
        sequences.close();
        for hypothesis in search.results().into_iter().flatten() {
            self.scores.push(hypothesis.score);
            let ids = hypothesis.ids.into_iter().map(i64::from);
            self.texts.push(ids.collect());
        }
        Ok(())
    }

    fn sample(
        &mut self,
        engine: &mut Engine<'_>,
        sink: &mut Sink,
        (rows, seqs): Group<'_>,
        first: usize,
    ) -> Result<()> {
        let copies = self.generation.returned;
        let (works, entry) = (works(engine, rows, &seqs), engine.manifest().entry);
        let mut samplers: Vec<Sampler> = Vec::with_capacity(rows.len() * copies);
        for (r, row) in rows.iter().enumerate() {
            for c in 0..copies {
                let mut sampler = self.sampler(((first + r) * copies + c) as u64);
                row.ids.iter().for_each(|&t| sampler.observe(t as u32));
                samplers.push(sampler);
            }
        }
        let mut next: Vec<Vec<u32>> = vec![Vec::new(); samplers.len()];
        run_rows(engine, entry, (&works, rows), &mut |view| {
            if self.writes {
                sink.take(entry, view, rows, first);
            }
            for span in view.spans.iter().filter(|s| s.last && s.rows > 0) {
                let row = view.row(self.logits, span.row + span.rows - 1);
                let texts = span.work * copies..(span.work + 1) * copies;
                if self.probs {
                    let sampler = &mut samplers[texts.start];
                    sink.write_probs(first + span.work, sampler.distribution(row)?);
                }
                if self.new > 0 {
                    for text in texts {
                        next[text].push(samplers[text].sample(row)?);
                    }
                }
            }
            Ok(())
        })?;
        let mut all = Vec::with_capacity(samplers.len());
        for seq in seqs.into_iter().flatten() {
            for copy in 0..copies {
                all.push(if copy == 0 { seq } else { engine.fork(seq)? });
            }
        }
        if self.continues {
            let history = match self.generation.lookup {
                0 => vec![Vec::new(); all.len()],
                _ => (0..all.len())
                    .map(|i| as_tokens(&rows[i / copies]))
                    .collect(),
            };
            let texts = self.continue_rows(engine, &all, &mut samplers, next, history)?;
            self.texts.extend(texts);
        }
        all.into_iter().for_each(|seq| engine.close(seq));
        Ok(())
    }

    /// Continues sequences whose first new token is in `next`, until each has met an EOS or has
    /// enough. `history` are their tokens so far, for guesses.
    fn continue_rows(
        &self,
        engine: &mut Engine<'_>,
        seqs: &[SeqId],
        samplers: &mut [Sampler],
        mut next: Vec<Vec<u32>>,
        mut history: Vec<Vec<u32>>,
    ) -> Result<Vec<Vec<i64>>> {
        let lookup = self.generation.lookup;
        let mut texts: Vec<Vec<i64>> = vec![Vec::new(); seqs.len()];
        // The ids of the next step: the last token and guesses; empty where the text has ended.
        let mut fed: Vec<Vec<i32>> = vec![Vec::new(); seqs.len()];
        loop {
            for (r, text) in texts.iter_mut().enumerate() {
                fed[r].clear();
                let mut ended = next[r].is_empty();
                for &id in &next[r] {
                    text.push(i64::from(id));
                    ended = self.eos.contains(&id) || text.len() >= self.new;
                    if ended {
                        break;
                    }
                }
                if let (false, Some(&last)) = (ended, next[r].last()) {
                    fed[r].push(last as i32);
                }
                if lookup > 0 {
                    history[r].extend(&next[r]);
                }
                next[r].clear();
            }
            let alive: Vec<usize> = (0..seqs.len()).filter(|&r| !fed[r].is_empty()).collect();
            if alive.is_empty() {
                return Ok(texts);
            }
            if lookup > 0 {
                for &r in &alive {
                    let room = prompt_lookup::room(engine, seqs[r], alive.len());
                    let most = lookup.min(room).min(self.new - texts[r].len() - 1);
                    prompt_lookup::guess(&history[r], most, &mut fed[r]);
                }
            }
            let before: Vec<usize> = alive.iter().map(|&r| engine.len(seqs[r])).collect();
            let works: Vec<Work<'_>> = alive
                .iter()
                .map(|&r| Work {
                    seq: Some(seqs[r]),
                    ids: &fed[r],
                    types: &[],
                    rows: Rows::All,
                })
                .collect();
            engine.run(&works, &mut |view| {
                for span in view.spans {
                    let r = alive[span.work];
                    let pick = |row| samplers[r].sample(view.row(self.logits, row));
                    prompt_lookup::check(span, &fed[r], &mut next[r], pick)?;
                }
                Ok(())
            })?;
            for (&r, before) in alive.iter().zip(before) {
                if !engine.truncate(seqs[r], before + next[r].len()) {
                    return Err(Error::Run("wrong guesses cannot be taken back".into()));
                }
            }
        }
    }
}

fn as_tokens(row: &Row) -> Vec<u32> {
    row.ids.iter().map(|&t| t as u32).collect()
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

fn create_file(
    session: &Session<'_>,
    args: &InferArgs,
    inputs: &Inputs,
    returned: usize,
    known: Vec<Known>,
) -> Result<Sink> {
    let m = session.manifest;
    let (b, s) = (inputs.rows.len(), inputs.columns);
    let mut specs: Vec<Spec> = known.iter().map(|k| k.spec.clone()).collect();
    let mut sources = vec![(Source::Known, 0); known.len()];
    for (index, o) in m.outputs.iter().enumerate() {
        let width = o.width as usize;
        let shape = match o.per {
            Per::Token if SPANS.contains(&o.name.as_str()) => vec![b, s],
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
    let texts = b.saturating_mul(returned);
    if args.flags.beams.is_some_and(|n| n > 1) {
        specs.push(("sequences_scores".into(), vec![texts]));
        sources.push((Source::Scores, texts));
    }
    let ids = args
        .generate
        .map(|n| ("generated_ids".to_owned(), vec![texts, n]));
    let file = TensorFile::create(&args.output, ids, specs)?;
    let part = |(source, width)| Part {
        entry: m.entry,
        source,
        width,
        columns: s,
    };
    let parts = sources.into_iter().map(part).collect();
    Ok(Sink { file, parts }.with(known))
}
