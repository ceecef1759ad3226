//! Runs steps: turns work (sequences with new tokens) into batches within the model's limits.
//!
//! Input: [`Work`] items, one per sequence: new tokens and whose logits are wanted. Output: after
//! each step a [`StepView`] of the outputs, whose [`Span`]s say which tokens of which item are
//! where. Decoders: prefill is cut into chunks, chunks and single tokens share steps. Encoders:
//! a sequence is always whole within a step; where more rows are wanted than a step gives, the
//! step is repeated for the next rows.
//!
//! Invariants: no allocation in [`Engine::run`] (recomputing a longrope cache aside); what a
//! sequence gets does not depend on the other items of the run.
//! Not here: tokens to text, sampling, padding.

use crate::barrier::{Barrier, step_barrier};
use crate::kv_cache::{KvCache, KvPlan, SeqId};
use crate::memory::Region;
use crate::recorder::Recorder;
use crate::threads::{Pool, granted_cores};
use crate::{Error, Result};
use llmc_abi::{ABI_VERSION, Batch, Best, Kind, Manifest, Per, StepCtx, StepFn};
use std::ptr;

/// A compiled model as the engine needs it.
#[derive(Clone, Copy)]
pub struct Compiled<'a> {
    pub manifest: &'a Manifest,
    pub step: StepFn,
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
pub enum Rows {
    None,
    Last,
    All,
}

/// New tokens of one sequence. A run may hold a sequence once only.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// None for encoders, whose sequences have no state.
    pub seq: Option<SeqId>,
    pub ids: &'a [i32],
    /// Token types `[ids.len()]`, or empty: all zero.
    pub types: &'a [i32],
    pub rows: Rows,
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
    /// The token of the first row, as an index into the item's ids.
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

/// Runs steps of one compiled model.
pub struct Engine<'m> {
    model: Compiled<'m>,
    pool: Pool,
    barrier: Barrier,
    arena: Region,
    scratch: Region,
    taps: Option<Region>,
    kv: KvCache,
    outputs: Vec<Place>,
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
    rows: Vec<i32>,
    lengths: Vec<i32>,
}

impl<'m> Engine<'m> {
    /// Maps the memory and starts the threads.
    pub fn new(model: Compiled<'m>, options: EngineOptions) -> Result<Engine<'m>> {
        let m = model.manifest;
        let l = m.limits;
        if l.max_tokens == 0 || l.max_seqs == 0 || m.outputs.iter().any(|o| o.width > o.stride) {
            return Err(Error::Payload(
                "the manifest's limits or outputs make no sense".into(),
            ));
        }
        let place = |o: &llmc_abi::Output| {
            let rows = match o.per {
                Per::Row => l.max_rows,
                Per::Token => l.max_tokens,
                Per::Sequence => l.max_seqs,
            };
            let floats =
                u64::from(rows.saturating_sub(1)) * u64::from(o.stride) + u64::from(o.width);
            let inside = o.offset.is_multiple_of(4)
                && o.offset
                    .checked_add(floats * 4)
                    .is_some_and(|end| end <= m.arena_bytes);
            inside
                .then_some(Place {
                    offset: o.offset as usize,
                    width: o.width as usize,
                    stride: o.stride as usize,
                    per: o.per,
                })
                .ok_or_else(|| {
                    Error::Payload(format!("output `{}` lies outside the arena", o.name))
                })
        };
        let outputs = m.outputs.iter().map(place).collect::<Result<Vec<_>>>()?;
        let taps = if options.taps && m.taps.count > 0 {
            let floats =
                u64::from(m.taps.count) * u64::from(m.taps.stride) * u64::from(l.max_tokens);
            Some(Region::new(floats * 4, "hidden states")?)
        } else {
            None
        };
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
            taps,
            kv: KvCache::new(&m.kv, &l, options.plan)?,
            outputs,
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

    /// Index of an output by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.model
            .manifest
            .outputs
            .iter()
            .position(|o| o.name == name)
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

    /// Runs the items, calling `sink` after each step; an error of the sink ends the run.
    pub fn run(
        &mut self,
        works: &[Work<'_>],
        sink: &mut dyn FnMut(&StepView<'_>) -> Result<()>,
    ) -> Result<()> {
        for work in works {
            self.check(work)?;
            self.choose_factors(work)?;
        }
        self.run_steps(works, sink)
    }

    fn is_encoder(&self) -> bool {
        self.model.manifest.kind == Kind::Encoder
    }

    fn check(&self, work: &Work<'_>) -> Result<()> {
        let limits = self.model.manifest.limits;
        let (have, limit, what) = if self.is_encoder() {
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
        self.run_steps(&[again], &mut |_| Ok(()))
    }

    fn run_steps(
        &mut self,
        works: &[Work<'_>],
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
            self.step();
            for span in &self.spans {
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
        let limits = self.model.manifest.limits;
        let encoder = self.is_encoder();
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
                    Rows::Last | Rows::None => (0, *done),
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
            &mut self.rows,
            &mut self.lengths,
        ] {
            list.clear();
        }
        self.kv.begin_step();
        for (index, span) in self.spans.iter().enumerate() {
            let work = &works[span.work];
            let past = work.seq.map_or(0, |s| self.kv.len(s));
            if let Some(seq) = work.seq {
                self.kv.reserve(seq, span.len)?;
            }
            self.kv.stage(index, work.seq, past + span.len)?;
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
            let row = span.token + span.row_first - span.first;
            self.rows.extend((row..row + span.rows).map(|i| i as i32));
            let length = work.seq.and_then(|s| self.rope_length.get(s.0 as usize));
            let length = length.copied().unwrap_or(past + span.len);
            self.lengths.push(length as i32);
        }
        self.q_start.push(self.ids.len() as i32);
        Ok(())
    }

    fn step(&mut self) {
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
            taps: self
                .taps
                .as_ref()
                .map_or(ptr::null_mut(), |t| t.ptr().cast()),
            tap_rows: u64::from(self.model.manifest.limits.max_tokens),
            barrier: step_barrier,
            barrier_state: ptr::from_ref(&self.barrier).cast_mut().cast(),
            mark,
            mark_state,
            best: if self.best.is_empty() {
                ptr::null_mut()
            } else {
                self.best.as_mut_ptr()
            },
        };
        // SAFETY: everything in the context is as the contract says, and lives until `run` returns.
        unsafe { self.pool.run(self.model.step, &ctx) };
        if let Some(recorder) = &mut self.recorder {
            let sequences = self.q_start.windows(2).zip(&self.kv_len);
            let sequences = sequences.map(|(q, &keys)| ((q[1] - q[0]) as u64, keys as u64));
            recorder.finish(self.model.manifest, batch.n, batch.r, sequences);
        }
    }
}

impl StepView<'_> {
    /// Row `index` of an output: a row, token or sequence of the step, as the output's `per` says.
    pub fn row(&self, output: usize, index: usize) -> &[f32] {
        let place = self.engine.outputs[output];
        // SAFETY: `Engine::new` has checked that every row lies within the arena; no step runs
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
        self.engine.outputs[output].per
    }

    /// The residual stream of a token at a layer boundary; none without taps.
    pub fn tap(&self, layer: usize, token: usize) -> Option<&[f32]> {
        let taps = &self.engine.model.manifest.taps;
        let rows = self.engine.model.manifest.limits.max_tokens as usize;
        let region = self.engine.taps.as_ref()?;
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
