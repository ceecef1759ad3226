//! What an executable's `infer` does: a padded batch in, named tensors out, by the evaluator.
//!
//! Results over tokens come out as `[B, S, …]` with zeros at masked positions, results over sequences
//! as `[B, …]`. Prompts longer than a step are run in chunks where the model has states; models
//! without states (encoders) take whole sequences, and where a step gives fewer rows than are wanted it
//! is repeated for the next ones. Generation is greedy. A rope that looks at lengths goes by each row's
//! own (see [`crate::rope`]).
//!
//! Deliberately not here: sources (`encoder_decoder`), sampling, beams, files.

use super::{
    EvalError, Evaluator, SeqStep, StepOutput, Tensor,
    batch::{Batch, Row, pack, scatter},
    pictures,
};
use crate::{Dim, Dims, Entry, Func, Sym, Type, rope::LengthRule};
use indexmap::IndexMap;

/// What `infer` is asked for besides the forward pass.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InferOptions {
    /// `--hidden-states`: add `hidden_states.i`.
    pub hidden_states: bool,
    /// `--generate N`.
    pub generate: Option<usize>,
    /// Ids that end a row.
    pub eos: Vec<i32>,
    /// Fills what follows the end of a row.
    pub pad: i32,
}

/// What `infer` writes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InferOutput {
    /// `logits`, `last_hidden_state`, `pooler_output`, `sentence_embedding`, `hidden_states.i`, …
    pub tensors: IndexMap<String, Tensor>,
    /// The new tokens of every row, all of one length.
    pub generated: Option<Vec<Vec<i32>>>,
}

/// Results that are one number for each token: `[B, S]`.
pub const SPANS: [&str; 2] = ["start_logits", "end_logits"];

/// A result's outermost extent, by name.
pub(super) fn over(entry: &Func) -> IndexMap<String, Sym> {
    let dim = |ty: &Type| ty.tensor().and_then(|t| t.dims.first().copied());
    let results = entry.results.iter();
    results
        .filter_map(|(name, v)| match dim(entry.ty(*v)) {
            Some(Dim::Sym(sym)) => Some((name.clone(), sym)),
            Some(Dim::Fixed(_)) | None => None,
        })
        .collect()
}

/// Runs a batch. The evaluator forgets the rows' sequences before and after.
pub fn infer(
    evaluator: &mut Evaluator<'_>,
    batch: &Batch,
    options: &InferOptions,
) -> Result<InferOutput, EvalError> {
    let mut rows = batch.rows_with_pictures()?;
    let Some((entry, _)) = evaluator.module().main_entry() else {
        return Err(EvalError::Input("the module has no entry".into()));
    };
    if entry == Entry::Decode {
        let message = "an encoder-decoder reads a source first";
        return Err(EvalError::Input(message.into()));
    }
    let forget = |e: &mut Evaluator<'_>| (0..batch.rows as u32).for_each(|r| e.forget(r));
    forget(evaluator);
    let mut run = Run::new(evaluator, entry, batch, options)?;
    let result = run
        .forward(evaluator, &rows)
        .and_then(|()| match options.generate {
            Some(n) => run.generate(evaluator, &mut rows, n),
            None => Ok(()),
        });
    forget(evaluator);
    result.map(|()| run.output)
}

/// A batch on its way through an entry.
pub(super) struct Run<'a> {
    entry: Entry,
    dims: Dims,
    /// Whether sequences go on from step to step.
    decoder: bool,
    over: IndexMap<String, Sym>,
    batch: &'a Batch,
    options: &'a InferOptions,
    /// Width of the rows of pictures that the entry takes; 0: none.
    features: usize,
    pub output: InferOutput,
    /// Of every row, the logits of its last token.
    last_logits: Vec<Option<Vec<f32>>>,
}

impl<'a> Run<'a> {
    /// The entry's run of `batch`.
    pub fn new(
        evaluator: &Evaluator<'_>,
        entry: Entry,
        batch: &'a Batch,
        options: &'a InferOptions,
    ) -> Result<Self, EvalError> {
        let module = evaluator.module();
        let func = module.entry(entry);
        let func = func.ok_or_else(|| format!("the module has no `{}`", entry.name()))?;
        Ok(Run {
            entry,
            dims: module.dims_of_entry(entry),
            decoder: match entry {
                Entry::Forward => !module.states.is_empty(),
                Entry::Decode => true,
                Entry::Encode | Entry::Vision | Entry::Qformer => false,
            },
            over: over(func),
            batch,
            options,
            features: pictures::features(func),
            output: InferOutput::default(),
            last_logits: vec![None; batch.rows],
        })
    }

    /// All rows' tokens, in as few steps as the module's bounds allow.
    pub fn forward(
        &mut self,
        evaluator: &mut Evaluator<'_>,
        rows: &[Row],
    ) -> Result<(), EvalError> {
        let (decoder, dims) = (self.decoder, self.dims);
        let wants_rows = self.over.values().any(|&s| s == Sym::R);
        let room = if wants_rows && decoder {
            dims.n.min(dims.r)
        } else {
            dims.n
        };
        let mut left: Vec<SeqStep> = Vec::new();
        for (id, row) in rows.iter().enumerate() {
            let new = row.ids.len() as u32;
            if new > dims.t || (!decoder && new > room) {
                let most = if decoder { dims.t } else { room.min(dims.t) };
                let message = format!("row {id} has {new} tokens, at most {most} fit");
                return Err(EvalError::Input(message));
            }
            left.push(SeqStep {
                id: id as u32,
                past: 0,
                new,
            });
        }
        loop {
            let mut shares: Vec<SeqStep> = Vec::new();
            let mut free = room;
            for s in left.iter_mut().filter(|s| s.new > 0) {
                let take = if decoder { s.new.min(free) } else { s.new };
                if take == 0 || take > free || shares.len() == dims.b as usize {
                    break;
                }
                shares.push(SeqStep { new: take, ..*s });
                (s.past, s.new, free) = (s.past + take, s.new - take, free - take);
            }
            if shares.is_empty() {
                return Ok(());
            }
            let mut input = pack(rows, &shares, self.features);
            let length = |s: &SeqStep| rows[s.id as usize].ids.len() as u32;
            input.lengths = Some(shares.iter().map(length).collect());
            if !wants_rows {
                let out = evaluator.step_of(self.entry, &input)?;
                self.collect(&out, rows, &shares, 0);
                continue;
            }
            let all: Vec<u32> = (0..input.ids.len() as u32).collect();
            for wanted in all.chunks(dims.r.max(1) as usize) {
                input.rows = wanted.to_vec();
                let out = evaluator.step_of(self.entry, &input)?;
                self.collect(&out, rows, &shares, wanted[0] as usize);
            }
        }
    }

    /// Puts a step's results in their places; its rows are those from token `first` on.
    fn collect(&mut self, out: &StepOutput, rows: &[Row], shares: &[SeqStep], first: usize) {
        let (b, s) = (self.batch.rows, self.batch.len);
        for (name, t) in &out.results {
            let over = self.over.get(name).copied();
            let mut dims = vec![b];
            if over != Some(Sym::B) {
                dims.push(s);
            }
            if !SPANS.contains(&name.as_str()) {
                dims.extend(t.dims.iter().skip(1));
            }
            let whole = self.output.tensors.entry(name.clone());
            let whole = whole.or_insert_with(|| Tensor::zeros(&dims));
            if over != Some(Sym::B) {
                let first = if over == Some(Sym::R) { first } else { 0 };
                scatter(whole, t, rows, shares, first);
                continue;
            }
            let width = t.stride();
            for (i, share) in shares.iter().enumerate() {
                let to = share.id as usize * width;
                whole.data[to..to + width].copy_from_slice(t.at(i));
            }
        }
        if let (Some(logits), Some(Sym::R)) = (out.result("logits"), self.over.get("logits")) {
            let mut end = 0;
            for share in shares {
                end += share.new as usize;
                if end <= logits.dims[0] {
                    self.last_logits[share.id as usize] = Some(logits.at(end - 1).to_vec());
                }
            }
        }
        if self.options.hidden_states {
            let last = out.hidden.len().saturating_sub(1);
            for (i, h) in out.hidden.iter().enumerate() {
                // HF's last hidden state is the one behind the final norm.
                let h = out
                    .result("last_hidden_state")
                    .filter(|_| i == last)
                    .unwrap_or(h);
                let whole = self.output.tensors.entry(format!("hidden_states.{i}"));
                let whole = whole.or_insert_with(|| Tensor::zeros(&[b, s, h.last()]));
                scatter(whole, h, rows, shares, 0);
            }
        }
    }

    /// Greedy continuation of every row, at most `n` tokens, one a step.
    pub fn generate(
        &mut self,
        evaluator: &mut Evaluator<'_>,
        rows: &mut [Row],
        n: usize,
    ) -> Result<(), EvalError> {
        let dims = self.dims;
        if !self.decoder || self.over.get("logits") != Some(&Sym::R) {
            return Err(EvalError::Input("the model does not generate".into()));
        }
        let rule = evaluator.module().length_rule();
        let prompts: Vec<u32> = rows.iter().map(|r| r.ids.len() as u32).collect();
        let mut new: Vec<Vec<i32>> = vec![Vec::new(); rows.len()];
        let mut open: Vec<usize> = (0..rows.len())
            .filter(|&r| !rows[r].ids.is_empty())
            .collect();
        for _ in 0..n {
            for &r in &open {
                let id = self.last_logits[r].as_deref().map_or(0, argmax) as i32;
                new[r].push(id);
                rows[r].ids.push(id);
                rows[r].types.push(0);
            }
            open.retain(|&r| {
                let ended = new[r]
                    .last()
                    .is_some_and(|id| self.options.eos.contains(id));
                !ended && rows[r].ids.len() <= dims.t as usize && new[r].len() < n
            });
            if let Some(LengthRule::Switch(at)) = rule {
                for &r in &open {
                    if rows[r].ids.len() as u64 == u64::from(at) + 1 {
                        again(evaluator, rows, r, self.features)?;
                    }
                }
            }
            let length = |s: &SeqStep| match rule {
                Some(LengthRule::Prompt(_)) => prompts[s.id as usize],
                Some(LengthRule::Switch(_)) | None => s.past + s.new,
            };
            let most = dims.b.min(dims.n).min(dims.r).max(1) as usize;
            for group in open.chunks(most) {
                let share = |&r: &usize| SeqStep {
                    id: r as u32,
                    past: rows[r].ids.len() as u32 - 1,
                    new: 1,
                };
                let shares: Vec<SeqStep> = group.iter().map(share).collect();
                let mut input = pack(rows, &shares, self.features);
                input.lengths = Some(shares.iter().map(length).collect());
                input.rows = (0..input.ids.len() as u32).collect();
                let out = evaluator.step_of(self.entry, &input)?;
                if let Some(logits) = out.result("logits") {
                    for (i, &r) in group.iter().enumerate() {
                        self.last_logits[r] = Some(logits.at(i).to_vec());
                    }
                }
            }
            if open.is_empty() {
                break;
            }
        }
        let longest = new.iter().map(Vec::len).max().unwrap_or(0);
        for row in &mut new {
            row.resize(longest, self.options.pad);
        }
        self.output.generated = Some(new);
        Ok(())
    }
}

/// Computes row `r` again up to its last token, which is to come, with the length that it has now.
fn again(
    evaluator: &mut Evaluator<'_>,
    rows: &[Row],
    r: usize,
    features: usize,
) -> Result<(), EvalError> {
    let (length, chunk) = (rows[r].ids.len() as u32, evaluator.module().dims.n);
    let mut past = 0;
    while past + 1 < length {
        let new = chunk.min(length - 1 - past);
        let share = SeqStep {
            id: r as u32,
            past,
            new,
        };
        let mut input = pack(rows, &[share], features);
        input.lengths = Some(vec![length]);
        evaluator.step(&input)?;
        past += new;
    }
    Ok(())
}

/// Index of the greatest number, the first of several.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}
