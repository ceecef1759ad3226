//! Runs steps: turns work (sequences with new tokens) into batches within the model's limits.
//!
//! Input: [`Work`] items, one per sequence: new tokens and whose logits are wanted. Output: after
//! each step a [`StepView`] of the outputs, whose [`Span`]s say which tokens of which item are
//! where. A run goes through one entry of the model: the main one, or one that is named. Decoders: prefill is cut into chunks, chunks and single tokens share steps. Encoders:
//! a sequence is always whole within a step; where more rows are wanted than a step gives, the
//! step is repeated for the next rows.
//!
//! Invariants: no allocation in [`Engine::run`] (recomputing a longrope cache aside); what a
//! sequence gets does not depend on the other items of the run.
//! Not here: tokens to text, sampling, padding.

use crate::barrier::{Barrier, step_barrier};
use crate::kv_cache::{KvCache, KvPlan, SeqId};
use crate::memory::Region;
use crate::recorder::{Keys, Recorder};
use crate::threads::{Pool, granted_cores};
use crate::{Error, Result};
use llmc_abi::{
    ABI_VERSION, Batch, Best, Entry, EntryInfo, Input, Kind, LANES, Limits, Manifest, Per, StepCtx,
    StepFn,
};
use std::ptr;

/// A compiled model as the engine needs it.
#[derive(Clone, Copy)]
pub struct Compiled<'a> {
    pub manifest: &'a Manifest,
    /// Of `Manifest::entries`, in order.
    pub steps: &'a [StepFn],
    pub weights: &'a [u8],
}

/// How to run it.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    pub threads: u32,
    pub plan: KvPlan,
    /// Whether steps copy the residual stream out (hidden states).
    pub taps: bool,
}

/// Which rows of an item go through the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows<'a> {
    None,
    Last,
    All,
    /// These tokens of the item, encoders only.
    At(&'a [usize]),
}

/// New tokens of one sequence. A run may hold a sequence once only.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// None for encoders, whose sequences have no state. Of an encoder-decoder both entries have it.
    pub seq: Option<SeqId>,
    pub ids: &'a [i32],
    /// Token types `[ids.len()]`, or empty: all zero.
    pub types: &'a [i32],
    pub rows: Rows<'a>,
}

/// The part of an item that a step computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the item in the run.
    pub work: usize,
    /// First token, as an index into the item's ids.
    pub first: usize,
    /// Tokens.
    pub len: usize,
    /// First token, as an index into the step's tokens.
    pub token: usize,
    /// First row of the step that belongs to the item, and how many do.
    pub row: usize,
    pub rows: usize,
    /// The token of the first row, as an index into the item's ids; for [`Rows::At`] an index into the list.
    pub row_first: usize,
    /// True for the item's last step.
    pub last: bool,
}

#[derive(Clone, Copy)]
struct Place {
    offset: usize,
    width: usize,
    stride: usize,
    per: Per,
}

/// The results of one step, until the next one.
pub struct StepView<'a> {
    engine: &'a Engine<'a>,
    /// One per sequence of the step, in the batch's order.
    pub spans: &'a [Span],
}

/// An entry that can run.
struct Ready {
    info: EntryInfo,
    step: StepFn,
    outputs: Vec<Place>,
    inputs: Vec<Place>,
    taps: Option<Region>,
    /// Sequences are whole within a step.
    whole: bool,
}

/// Runs steps of one compiled model.
pub struct Engine<'m> {
    model: Compiled<'m>,
    pool: Pool,
    barrier: Barrier,
    arena: Region,
    scratch: Region,
    kv: KvCache,
    /// The main one first.
    entries: Vec<Ready>,
    /// Which of them the running step is.
    entry: usize,
    /// Longrope models only: the tokens of each sequence.
    history: Vec<Vec<i32>>,
    /// Models whose rope goes by lengths: that of each sequence, which its cache is for.
    rope_length: Vec<usize>,
    /// The threads' greedy choices `[threads][max_rows]`; empty unless asked for.
    best: Vec<Best>,
    recorder: Option<Recorder>,
    // The step's batch; capacities are the model's limits.
    spans: Vec<Span>,
    ids: Vec<i32>,
    pos: Vec<i32>,
    types: Vec<i32>,
    seq: Vec<i32>,
    q_start: Vec<i32>,
    kv_len: Vec<i32>,
    source_len: Vec<i32>,
    rows: Vec<i32>,
    lengths: Vec<i32>,
}

impl<'m> Engine<'m> {
    /// Maps the memory and starts the threads.
    pub fn new(model: Compiled<'m>, options: EngineOptions) -> Result<Engine<'m>> {
        let m = model.manifest;
        let l = m.widest();
        let infos = m.entries();
        if infos.len() != model.steps.len() {
            return Err(Error::Payload(format!(
                "{} entries in the manifest, {} in the code",
                infos.len(),
                model.steps.len()
            )));
        }
        let ready = |(info, &step): (EntryInfo, &StepFn)| Ready::new(m, info, step, options.taps);
        let entries = infos.into_iter().zip(model.steps).map(ready);
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let tokens = l.max_tokens as usize;
        let seqs = l.max_seqs as usize;
        let open = |has: bool| if has { options.plan.sequences } else { 0 };
        let goes_by_length = m.rope_switch.is_some() || m.rope_growth.is_some();
        Ok(Engine {
            model,
            pool: Pool::new(options.threads)?,
            barrier: Barrier::new(options.threads, options.threads <= granted_cores()),
            arena: Region::new(m.arena_bytes, "activations")?,
            scratch: Region::new(m.scratch_bytes * u64::from(options.threads), "scratch")?,
            kv: KvCache::new(&m.kv, &l, options.plan)?,
            entries,
            entry: 0,
            history: (0..open(m.rope_switch.is_some()))
                .map(|_| Vec::with_capacity(options.plan.tokens))
                .collect(),
            rope_length: vec![0; open(goes_by_length)],
            best: Vec::new(),
            recorder: None,
            spans: Vec::with_capacity(seqs),
            ids: Vec::with_capacity(tokens),
            pos: Vec::with_capacity(tokens),
            types: Vec::with_capacity(tokens),
            seq: Vec::with_capacity(tokens),
            q_start: Vec::with_capacity(seqs + 1),
            kv_len: Vec::with_capacity(seqs),
            source_len: Vec::with_capacity(seqs),
            rows: Vec::with_capacity(l.max_rows as usize),
            lengths: Vec::with_capacity(seqs),
        })
    }

    /// The manifest.
    pub fn manifest(&self) -> &'m Manifest {
        self.model.manifest
    }

    /// Threads that run a step.
    pub fn threads(&self) -> u32 {
        self.pool.threads()
    }

    /// Index of an output of the main entry by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        let outputs = &self.model.manifest.outputs;
        outputs.iter().position(|o| o.name == name)
    }

    /// Opens an empty sequence.
    pub fn open(&mut self) -> Result<SeqId> {
        let seq = self.kv.open()?;
        if let Some(history) = self.history.get_mut(seq.0 as usize) {
            history.clear();
        }
        Ok(seq)
    }

    /// Opens a sequence that shares the cache of another.
    pub fn fork(&mut self, seq: SeqId) -> Result<SeqId> {
        let fork = self.kv.fork(seq)?;
        let (from, to) = (seq.0 as usize, fork.0 as usize);
        if !self.history.is_empty() {
            self.history[to] = self.history[from].clone();
        }
        if !self.rope_length.is_empty() {
            self.rope_length[to] = self.rope_length[from];
        }
        Ok(fork)
    }

    /// Closes a sequence.
    pub fn close(&mut self, seq: SeqId) {
        self.kv.close(seq);
    }

    /// Tokens of a sequence in the cache.
    pub fn len(&self, seq: SeqId) -> usize {
        self.kv.len(seq)
    }

    /// True if the sequence is empty.
    pub fn is_empty(&self, seq: SeqId) -> bool {
        self.kv.is_empty(seq)
    }

    /// Shortens a sequence; false, and nothing done, where a sliding window has left behind what
    /// it would need. Zero always succeeds.
    pub fn truncate(&mut self, seq: SeqId, len: usize) -> bool {
        let done = self.kv.truncate(seq, len);
        if done && let Some(history) = self.history.get_mut(seq.0 as usize) {
            history.truncate(len);
        }
        done
    }

    /// Makes steps give the greedy choice ([`StepView::best`]); false where the model does not.
    pub fn choose_best(&mut self) -> bool {
        let m = self.model.manifest;
        if m.best && self.best.is_empty() {
            let none = Best {
                logit: f32::NEG_INFINITY,
                token: -1,
            };
            let rows = m.limits.max_rows as usize * self.pool.threads() as usize;
            self.best = vec![none; rows];
        }
        m.best
    }

    /// Measures the phases of all steps from now on, or ends that; returns what was measured.
    pub fn record(&mut self, recorder: Option<Recorder>) -> Option<Recorder> {
        std::mem::replace(&mut self.recorder, recorder)
    }

    /// Runs the items through the main entry, calling `sink` after each step; an error of the sink
    /// ends the run.
    pub fn run(
        &mut self,
        works: &[Work<'_>],
        sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
    ) -> Result<()> {
        self.run_at(0, works, &[], sink)
    }

    /// Runs the items through an entry. `rows` are those that the entry takes: for each of its inputs
    /// those of each item, `[ids.len(), width]`, or none for an item that has no token of the input's type.
    /// Entries that take no ids read their number alone.
    pub fn run_of(
        &mut self,
        entry: Entry,
        works: &[Work<'_>],
        rows: &[&[&[f32]]],
        sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
    ) -> Result<()> {
        let at = self.entries.iter().position(|e| e.info.entry == entry);
        let Some(at) = at else {
            return Err(Error::Unsupported(format!(
                "this model has no entry {entry:?}"
            )));
        };
        self.run_at(at, works, rows, sink)
    }

    fn run_at(
        &mut self,
        entry: usize,
        works: &[Work<'_>],
        rows: &[&[&[f32]]],
        sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
    ) -> Result<()> {
        self.entry = entry;
        self.check_rows(works, rows)?;
        for work in works {
            self.check(work)?;
            self.choose_factors(work)?;
        }
        self.run_steps(works, rows, sink)
    }

    fn ready(&self) -> &Ready {
        &self.entries[self.entry]
    }

    fn limits(&self) -> Limits {
        self.ready().info.limits
    }

    /// Every input has the rows of every item, as far as it reads them.
    fn check_rows(&self, works: &[Work<'_>], rows: &[&[&[f32]]]) -> Result<()> {
        let inputs = &self.ready().info.inputs;
        let of = |i: usize, w: usize| rows.get(i).and_then(|of| of.get(w)).copied();
        let fits = |i: usize, w: usize, work: &Work<'_>| {
            let given = of(i, w).unwrap_or_default().len();
            let reads = |input: &Input| {
                let is_type = |ty| work.types.contains(&(ty as i32));
                input.of_type.is_none_or(is_type)
            };
            match inputs.get(i) {
                Some(input) if given > 0 => given == work.ids.len() * input.width as usize,
                Some(input) => work.ids.is_empty() || !reads(input),
                None => given == 0,
            }
        };
        let all = |i: usize| works.iter().enumerate().all(|(w, work)| fits(i, w, work));
        if (0..inputs.len().max(rows.len())).all(all) {
            return Ok(());
        }
        let names: Vec<&str> = inputs.iter().map(|i| &*i.name).collect();
        Err(Error::Input(format!(
            "the rows given are not those of the inputs [{}]",
            names.join(", ")
        )))
    }

    fn check(&self, work: &Work<'_>) -> Result<()> {
        let limits = self.limits();
        let (have, limit, what) = if self.ready().whole {
            (
                work.ids.len(),
                limits.max_tokens.min(limits.max_context),
                "the input has",
            )
        } else {
            let past = work.seq.map_or(0, |s| self.kv.len(s));
            (
                past + work.ids.len(),
                limits.max_context,
                "the sequence would have",
            )
        };
        if have > limit as usize {
            return Err(Error::Input(format!(
                "{what} {have} tokens, this model takes {limit}"
            )));
        }
        if let Rows::At(list) = work.rows
            && (!self.ready().whole || list.iter().any(|&i| i >= work.ids.len()))
        {
            return Err(Error::Run(
                "rows of a list that does not fit the item".into(),
            ));
        }
        let has_source = work.seq.is_some_and(|s| self.kv.source_len(s) > 0);
        let wants_source = matches!(self.ready().info.entry, Entry::Decode | Entry::Qformer);
        if wants_source && !has_source {
            return Err(Error::Run("the sequence has no source".into()));
        }
        if work.rows != Rows::None && limits.max_rows == 0 {
            return Err(Error::Unsupported(
                "this model has no rows to give out".into(),
            ));
        }
        Ok(())
    }

    /// The length that a sequence's rope goes by. Dynamic NTK: that of the first run. Longrope: one set
    /// of factors for all positions, so a sequence that crosses the switch is computed again.
    fn choose_factors(&mut self, work: &Work<'_>) -> Result<()> {
        let Some(seq) = work.seq.filter(|_| !self.rope_length.is_empty()) else {
            return Ok(());
        };
        let index = seq.0 as usize;
        let length = self.kv.len(seq) + work.ids.len();
        if self.kv.is_empty(seq) {
            self.rope_length[index] = length;
            return Ok(());
        }
        let Some(switch) = self.model.manifest.rope_switch else {
            return Ok(());
        };
        let before = std::mem::replace(&mut self.rope_length[index], length);
        if (before > switch as usize) == (length > switch as usize) {
            return Ok(());
        }
        let past = std::mem::take(&mut self.history[index]);
        self.history[index].reserve(past.capacity());
        self.kv.truncate(seq, 0);
        let again = Work {
            seq: Some(seq),
            ids: &past,
            types: &[],
            rows: Rows::None,
        };
        self.run_steps(&[again], &[], &mut |_| Ok(()))
    }

    fn run_steps(
        &mut self,
        works: &[Work<'_>],
        rows: &[&[&[f32]]],
        sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
    ) -> Result<()> {
        // The next item, and how much of it is done: tokens, or rows for encoders.
        let (mut next, mut done) = (0, 0);
        loop {
            self.plan(works, &mut next, &mut done);
            if self.spans.is_empty() {
                return Ok(());
            }
            self.build(works)?;
            self.place_rows(rows);
            self.step();
            // What a whole sequence leaves is a source, which does not grow.
            let grows =
                |span: &&Span| works[span.work].seq.is_some() && !self.entries[self.entry].whole;
            for span in self.spans.iter().filter(grows) {
                if let Some(seq) = works[span.work].seq {
                    self.kv.advance(seq, span.len);
                    if let Some(history) = self.history.get_mut(seq.0 as usize) {
                        let ids = &works[span.work].ids[span.first..span.first + span.len];
                        history.extend_from_slice(ids);
                    }
                }
            }
            sink(&StepView {
                engine: self,
                spans: &self.spans,
            })?;
        }
    }

    /// Chooses the spans of the next step; none when all is done.
    fn plan(&mut self, works: &[Work<'_>], next: &mut usize, done: &mut usize) {
        let (limits, encoder) = (self.limits(), self.ready().whole);
        let (mut n, mut r) = (0, 0);
        self.spans.clear();
        while *next < works.len() && self.spans.len() < limits.max_seqs as usize {
            let work = &works[*next];
            let total = work.ids.len();
            if total == 0 {
                *next += 1;
                continue;
            }
            let tokens_left = limits.max_tokens as usize - n;
            let rows_left = limits.max_rows as usize - r;
            let span = if encoder {
                let (first, wanted) = match work.rows {
                    Rows::None => (0, 0),
                    Rows::Last => (total - 1, 1),
                    Rows::All => (*done, total - *done),
                    Rows::At(list) => (*done, list.len() - *done),
                };
                let rows = wanted.min(rows_left);
                if total > tokens_left || wanted > 0 && rows == 0 {
                    break;
                }
                *done += rows;
                let last = rows == wanted;
                Span {
                    work: *next,
                    first: 0,
                    len: total,
                    token: n,
                    row: r,
                    rows,
                    row_first: first,
                    last,
                }
            } else {
                let mut len = (total - *done).min(tokens_left);
                if work.rows == Rows::All {
                    len = len.min(rows_left);
                }
                let last = *done + len == total;
                let (rows, row_first) = match work.rows {
                    Rows::All => (len, *done),
                    Rows::Last if last => (1, total - 1),
                    Rows::Last | Rows::None | Rows::At(_) => (0, *done),
                };
                if len == 0 || rows > rows_left {
                    break;
                }
                let first = *done;
                *done += len;
                Span {
                    work: *next,
                    first,
                    len,
                    token: n,
                    row: r,
                    rows,
                    row_first,
                    last,
                }
            };
            n += span.len;
            r += span.rows;
            let last = span.last;
            self.spans.push(span);
            if !last {
                break;
            }
            *next += 1;
            *done = 0;
        }
    }

    /// Fills the batch's arrays and the block tables.
    fn build(&mut self, works: &[Work<'_>]) -> Result<()> {
        for list in [&mut self.ids, &mut self.pos, &mut self.types, &mut self.seq] {
            list.clear();
        }
        for list in [
            &mut self.q_start,
            &mut self.kv_len,
            &mut self.source_len,
            &mut self.rows,
            &mut self.lengths,
        ] {
            list.clear();
        }
        self.kv.begin_step();
        for (index, span) in self.spans.iter().enumerate() {
            let work = &works[span.work];
            let whole = self.entries[self.entry].whole;
            let asks = self.entries[self.entry].info.entry == Entry::Qformer;
            let past = match work.seq {
                Some(_) if asks => 0,
                Some(seq) if whole => {
                    self.kv.reserve_source(seq, span.len)?;
                    0
                }
                Some(seq) => {
                    let past = self.kv.len(seq);
                    self.kv.reserve(seq, span.len)?;
                    past
                }
                None => 0,
            };
            let scratch = if whole { span.len } else { 0 };
            self.kv.stage(index, work.seq, scratch)?;
            let source = work.seq.map_or(0, |s| self.kv.source_len(s));
            self.source_len.push(source as i32);
            let range = span.first..span.first + span.len;
            self.q_start.push(span.token as i32);
            self.kv_len.push((past + span.len) as i32);
            self.ids.extend_from_slice(&work.ids[range.clone()]);
            self.pos.extend((past..past + span.len).map(|p| p as i32));
            match work.types.get(range) {
                Some(types) => self.types.extend_from_slice(types),
                None => self.types.extend(std::iter::repeat_n(0, span.len)),
            }
            self.seq.extend(std::iter::repeat_n(index as i32, span.len));
            if let Rows::At(list) = work.rows {
                let list = &list[span.row_first..span.row_first + span.rows];
                self.rows
                    .extend(list.iter().map(|i| (span.token + i) as i32));
            } else {
                let row = span.token + span.row_first - span.first;
                self.rows.extend((row..row + span.rows).map(|i| i as i32));
            }
            let length = work.seq.and_then(|s| self.rope_length.get(s.0 as usize));
            let length = length.copied().unwrap_or(past + span.len);
            self.lengths.push(length as i32);
        }
        self.q_start.push(self.ids.len() as i32);
        Ok(())
    }

    /// Puts the rows that the entry takes into the arena, zeros behind each up to a whole group.
    fn place_rows(&mut self, rows: &[&[&[f32]]]) {
        for (input, given) in self.entries[self.entry].inputs.iter().zip(rows) {
            for span in &self.spans {
                let from = given.get(span.work).copied().unwrap_or_default();
                let from = from.get(span.first * input.width..).unwrap_or_default();
                for (t, row) in from.chunks_exact(input.width).take(span.len).enumerate() {
                    let at = input.offset / 4 + (span.token + t) * input.stride;
                    let arena = self.arena.ptr().cast::<f32>();
                    let padded = input.width.next_multiple_of(LANES).min(input.stride);
                    // SAFETY: `Ready::new` has checked that every row lies within the arena, which no
                    // step reads now.
                    let to = unsafe { std::slice::from_raw_parts_mut(arena.add(at), padded) };
                    to[..input.width].copy_from_slice(row);
                    to[input.width..].fill(0.0);
                }
            }
        }
    }

    fn step(&mut self) {
        let entry = &self.entries[self.entry];
        let batch = Batch {
            n: self.ids.len() as u64,
            b: self.spans.len() as u64,
            r: self.rows.len() as u64,
            ids: self.ids.as_ptr(),
            pos: self.pos.as_ptr(),
            types: self.types.as_ptr(),
            seq: self.seq.as_ptr(),
            q_start: self.q_start.as_ptr(),
            kv_len: self.kv_len.as_ptr(),
            source_len: self.source_len.as_ptr(),
            rows: self.rows.as_ptr(),
            rope_length: self.lengths.as_ptr(),
        };
        let (mark, mark_state) = match &mut self.recorder {
            Some(recorder) => recorder.start(),
            None => (None, ptr::null_mut()),
        };
        let ctx = StepCtx {
            version: u64::from(ABI_VERSION),
            weights: self.model.weights.as_ptr(),
            arena: self.arena.ptr(),
            scratch: self.scratch.ptr(),
            kv: self.kv.states().as_ptr(),
            batch: &batch,
            taps: entry
                .taps
                .as_ref()
                .map_or(ptr::null_mut(), |t| t.ptr().cast()),
            tap_rows: u64::from(entry.info.limits.max_tokens),
            barrier: step_barrier,
            barrier_state: ptr::from_ref(&self.barrier).cast_mut().cast(),
            mark,
            mark_state,
            best: if self.best.is_empty() || self.entry != 0 {
                ptr::null_mut()
            } else {
                self.best.as_mut_ptr()
            },
        };
        // SAFETY: everything in the context is as the contract says, and lives until `run` returns.
        unsafe { self.pool.run(entry.step, &ctx) };
        if let Some(recorder) = &mut self.recorder {
            let keys = self.kv_len.iter().zip(&self.source_len);
            let sequences = self
                .q_start
                .windows(2)
                .zip(keys)
                .map(|(q, (&keys, &source))| Keys {
                    new: (q[1] - q[0]) as u64,
                    keys: keys as u64,
                    source: source as u64,
                });
            recorder.finish(self.model.manifest, batch.n, batch.r, sequences);
        }
    }
}

impl Ready {
    /// Checks that everything lies within the arena.
    fn new(m: &Manifest, info: EntryInfo, step: StepFn, taps: bool) -> Result<Ready> {
        let l = info.limits;
        let narrow = |width: u32, stride: u32| width > stride;
        let mut outputs = info.outputs.iter();
        if l.max_tokens == 0
            || l.max_seqs == 0
            || outputs.any(|o| narrow(o.width, o.stride))
            || info
                .inputs
                .iter()
                .any(|i| narrow(i.width, i.stride) || i.width == 0)
        {
            return Err(Error::Payload(
                "the manifest's limits, inputs or outputs make no sense".into(),
            ));
        }
        let place = |name: &str, per: Per, (width, stride): (u32, u32), offset: u64| {
            let rows = match per {
                Per::Row => l.max_rows,
                Per::Token => l.max_tokens,
                Per::Sequence => l.max_seqs,
            };
            let floats = u64::from(rows.saturating_sub(1)) * u64::from(stride) + u64::from(width);
            let inside = offset.is_multiple_of(4)
                && offset
                    .checked_add(floats * 4)
                    .is_some_and(|end| end <= m.arena_bytes);
            let place = Place {
                offset: offset as usize,
                width: width as usize,
                stride: stride as usize,
                per,
            };
            let outside = || Error::Payload(format!("`{name}` lies outside the arena"));
            inside.then_some(place).ok_or_else(outside)
        };
        let outputs = info.outputs.iter();
        let outputs = outputs.map(|o| place(&o.name, o.per, (o.width, o.stride), o.offset));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let padded = |width: u32, stride: u32| width.next_multiple_of(LANES as u32).min(stride);
        let inputs = info.inputs.iter().map(|i| {
            // Rows are written with the zeros behind them.
            let whole = (padded(i.width, i.stride), i.stride);
            let place = place(&i.name, Per::Token, whole, i.offset)?;
            Ok(Place {
                width: i.width as usize,
                ..place
            })
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let taps = if taps && info.taps.count > 0 {
            let rows = u64::from(info.taps.count) * u64::from(l.max_tokens);
            Some(Region::new(
                rows * u64::from(info.taps.stride) * 4,
                "hidden states",
            )?)
        } else {
            None
        };
        let whole = match info.entry {
            Entry::Forward => m.kind == Kind::Encoder,
            Entry::Encode | Entry::Vision | Entry::Qformer => true,
            Entry::Decode => false,
        };
        Ok(Ready {
            info,
            step,
            outputs,
            inputs,
            taps,
            whole,
        })
    }
}

impl StepView<'_> {
    /// Row `index` of an output: a row, token or sequence of the step, as the output's `per` says.
    pub fn row(&self, output: usize, index: usize) -> &[f32] {
        let place = self.engine.ready().outputs[output];
        // SAFETY: `Ready::new` has checked that every row lies within the arena; no step runs
        // while the view lives.
        unsafe {
            let base = self.engine.arena.ptr().add(place.offset).cast::<f32>();
            std::slice::from_raw_parts(base.add(index * place.stride).cast_const(), place.width)
        }
    }

    /// The token of row `index`'s largest logit, the first of equals; none where the row holds nothing
    /// but NaN and negative infinity, or where the choice was not asked for ([`Engine::choose_best`]).
    pub fn best(&self, index: usize) -> Option<u32> {
        let rows = self.engine.model.manifest.limits.max_rows as usize;
        let parts = self.engine.best.chunks(rows.max(1)).map(|part| part[index]);
        parts
            .filter(|b| b.token >= 0)
            .reduce(|a, b| if b.logit > a.logit { b } else { a })
            .map(|b| b.token as u32)
    }

    /// What an output has a row for.
    pub fn per(&self, output: usize) -> Per {
        self.engine.ready().outputs[output].per
    }

    /// The residual stream of a token at a layer boundary; none without taps.
    pub fn tap(&self, layer: usize, token: usize) -> Option<&[f32]> {
        let Ready { info, taps, .. } = self.engine.ready();
        let (region, rows) = (taps.as_ref()?, info.limits.max_tokens as usize);
        let taps = &info.taps;
        let (stride, width) = (taps.stride as usize, taps.width as usize);
        // SAFETY: the region holds `count * rows * stride` floats; no step runs meanwhile.
        unsafe {
            let base = region
                .ptr()
                .cast::<f32>()
                .add((layer * rows + token) * stride);
            Some(std::slice::from_raw_parts(base.cast_const(), width))
        }
    }
}
