//! Lowering: planned IR to a [`StepPlan`], op by op.
//!
//! In: a planned module and where its weights lie. Out: phases of kernel calls. Each op's file says
//! which kernels it becomes; ops that only rename memory (splits, merges) become nothing.
//!
//! Invariants: every match on `Op` is exhaustive; an op that no kernel can do is refused with its
//! text, never approximated.
//!
//! Not here: code (`step`), kernels (`kernels`), decisions (`llmc_passes`).

mod attention;
mod elementwise;
mod embedding;
mod experts;
mod linear;
mod norm;
mod quantize;
mod rope;
mod rows;
mod work;

use llmc_abi::{Input, KvClass, LANES, Limits, Output, PAGE_TOKENS, Per, Taps, Work};
use llmc_ir::{
    Dim, Dims, Entry, Func, Inst, Layout, Module, Op, Operand, Place, StateId, Sym, ValueId,
    WeightId,
};

use crate::{
    pack::{Stored, WeightPlan},
    step::{Arg, BatchField, Call, EntryPlan, Extent, Kernel, Logits, Phase, Routine, StepPlan},
};

/// What keeps a planned module from being lowered; a bug of the compiler, with the op's name.
#[derive(Debug, thiserror::Error)]
#[error("cannot lower `{op}` in @{func}: {message}")]
pub struct LowerError {
    pub func: String,
    pub op: &'static str,
    pub message: String,
}

/// Lowers a planned module: every entry with the layer classes that it repeats.
pub fn lower(module: &Module, weights: &WeightPlan) -> Result<StepPlan, LowerError> {
    let mut kv: Vec<KvClass> = (0..module.states.len())
        .map(|i| state_class(module, StateId(i as u32)))
        .collect();
    let mut tables = Vec::new();
    let mut most = Memory::default();
    let mut entries: Vec<EntryPlan> = Vec::new();
    let main = module.main_entry().map(|(entry, _)| entry);
    let others = module.entries().filter(|(entry, _)| Some(*entry) != main);
    for (entry, func) in module.main_entry().into_iter().chain(others) {
        let runs = |f: &&Func| {
            func.repeats()
                .any(|r| r.layers.iter().any(|l| l.0 == f.name))
        };
        let classes: Vec<&Func> = module.funcs.iter().filter(runs).collect();
        let dims = module.dims_of_entry(entry);
        let mut routines = Vec::new();
        for func in classes.iter().copied().chain([func]) {
            let mut l = Lower {
                module,
                weights,
                func,
                dims,
                kv: &mut kv,
                tables: &mut tables,
                phases: Vec::new(),
                calls: Vec::new(),
                work: Vec::new(),
                repeats: 0,
                workspace: 0,
                scratch: 0,
                partials: 0,
                op: "",
            };
            l.function()?;
            most.workspace = most.workspace.max(l.workspace);
            most.scratch = most.scratch.max(l.scratch);
            most.partials = most.partials.max(l.partials);
            routines.push(Routine {
                name: func.name.clone(),
                phases: l.phases,
            });
        }
        let class = |name: &str| classes.iter().position(|f| f.name == name);
        let repeats = func.repeats().map(|r| {
            let layers = r.layers.iter();
            layers
                .map(|(c, slot)| (class(c).unwrap_or(usize::MAX), *slot))
                .collect()
        });
        let before: usize = entries.iter().map(|e| e.phases().len()).sum();
        let plan = entry_plan((entry, func), dims, routines, repeats.collect());
        entries.push(EntryPlan {
            phases_from: before,
            ..plan
        });
    }
    let workspace_at = module.arena_bytes.unwrap_or(0).next_multiple_of(64);
    let partials_at = (workspace_at + most.workspace).next_multiple_of(64);
    Ok(StepPlan {
        entries,
        kv,
        tables,
        arena_bytes: partials_at + most.partials,
        workspace_at,
        partials_at,
        scratch_bytes: most.scratch.next_multiple_of(64),
    })
}

/// Bytes that kernels need besides the values' places.
#[derive(Default)]
struct Memory {
    workspace: u64,
    scratch: u64,
    partials: u64,
}

/// How results are called that are hidden states: they are tapped, not given.
const HIDDEN_STATES: &str = "hidden_states.";

/// What an entry takes and gives, and where.
fn entry_plan(
    (entry, func): (Entry, &Func),
    dims: Dims,
    routines: Vec<Routine>,
    repeats: Vec<Vec<(usize, u32)>>,
) -> EntryPlan {
    let place = |v: ValueId| func.value(v).place.as_ref();
    let stream = func
        .body
        .iter()
        .find(|i| matches!(i.op, Op::Repeat(_)))
        .and_then(|i| place(i.results[0]));
    // A result that is called a hidden state is the last one where the last hidden state is not.
    let result = |is: &dyn Fn(&str) -> bool| func.results.iter().find(|(n, _)| is(n));
    let last_hidden = result(&|n| n.starts_with(HIDDEN_STATES))
        .or_else(|| result(&|n| n == "last_hidden_state"))
        .and_then(|(_, v)| place(*v));
    // A last hidden state of another width is an output alone.
    let last_tap = last_hidden
        .filter(|l| stream.is_some_and(|s| s.layout == l.layout && s.stride == l.stride));
    let layers = repeats.first().map_or(0, Vec::len) as u32;
    let taps = stream
        .filter(|_| last_hidden.is_some())
        .map_or_else(Taps::default, |s| Taps {
            count: layers + u32::from(last_tap.is_some()),
            width: s.layout.len(),
            stride: s.stride,
        });
    let tapped = taps.count > 0;
    let outputs = outputs(func);
    EntryPlan {
        entry: match entry {
            Entry::Forward => llmc_abi::Entry::Forward,
            Entry::Encode => llmc_abi::Entry::Encode,
            Entry::Decode => llmc_abi::Entry::Decode,
            Entry::Vision => llmc_abi::Entry::Vision,
            Entry::Qformer => llmc_abi::Entry::Qformer,
        },
        limits: Limits {
            max_tokens: dims.n,
            max_seqs: dims.b,
            max_rows: dims.r,
            max_context: dims.t,
        },
        logits: logits(&dims, &outputs),
        routines,
        repeats,
        phases_from: 0,
        inputs: inputs(func),
        outputs,
        taps,
        stream_at: stream.filter(|_| tapped).map(|p| p.at),
        last_hidden_at: last_tap.map(|p| p.at),
    }
}

/// The rows of floats that an entry takes.
fn inputs(entry: &Func) -> Vec<Input> {
    let input = |p: &ValueId| {
        let value = entry.value(*p);
        let place = value.place.as_ref()?;
        Some(Input {
            name: value.name.clone(),
            width: place.layout.len(),
            offset: place.at,
            stride: place.stride,
            of_type: type_of_rows(entry, *p),
        })
    };
    entry.params.iter().filter_map(input).collect()
}

/// The type of the tokens whose rows of a parameter are read, where all it does is stand in for those.
fn type_of_rows(entry: &Func, param: ValueId) -> Option<u32> {
    let users = entry.users(param);
    let [user] = users.as_slice() else {
        return None;
    };
    match (&entry.body[*user].op, entry.body[*user].operands.as_slice()) {
        (Op::Substitute(op), [Operand::Value(x), Operand::Value(y), Operand::Value(ids)]) => {
            let by_type = entry.value(*ids).name == "types" && entry.params.contains(ids);
            (by_type && *x != param && *y == param).then_some(op.id)
        }
        _ => None,
    }
}

fn outputs(entry: &Func) -> Vec<Output> {
    entry
        .results
        .iter()
        .filter(|(name, _)| !name.starts_with(HIDDEN_STATES))
        .filter_map(|(name, v)| {
            let place = entry.value(*v).place.as_ref()?;
            let per = match entry.ty(*v).tensor()?.dims.first()? {
                Dim::Sym(Sym::N) => Per::Token,
                Dim::Sym(Sym::B) => Per::Sequence,
                Dim::Sym(Sym::R | Sym::T) | Dim::Fixed(_) => Per::Row,
            };
            let (width, stride) = (place.layout.len(), place.stride);
            Some(Output {
                name: name.clone(),
                per,
                width,
                offset: place.at,
                stride,
            })
        })
        .collect()
}

/// The logits of decoders, in rows.
fn logits(dims: &Dims, outputs: &[Output]) -> Option<Logits> {
    let of = outputs
        .iter()
        .find(|o| o.name == "logits" && o.per == Per::Row)?;
    Some(Logits {
        at: of.offset,
        width: of.width,
        stride: of.stride,
        rows: dims.r,
    })
}

/// The KV class of a state, `k_width` and `v_width` from the layouts that its keys are appended in.
fn state_class(module: &Module, id: StateId) -> KvClass {
    let state = &module.states[id.index()];
    let mut widths = (state.k_dim, state.v_dim);
    for func in &module.funcs {
        for inst in &func.body {
            if let (Op::KvAppend(_), [Operand::State(s), Operand::Value(k), Operand::Value(v), ..]) =
                (&inst.op, inst.operands.as_slice())
                && *s == id
            {
                let width = |v: ValueId| {
                    let place = func.value(v).place.as_ref();
                    place.map_or(0, |p| p.layout.width() / state.heads)
                };
                widths = (width(*k), width(*v));
            }
        }
    }
    let class = kv_class(
        &state.name,
        state.dtype,
        state.slots.unwrap_or(1),
        state.heads,
        widths,
        state.window,
    );
    KvClass {
        source: module.is_source(id),
        ..class
    }
}

fn kv_class(
    name: &str,
    dtype: llmc_ir::DType,
    slots: u32,
    kv_heads: u32,
    (k_width, v_width): (u32, u32),
    window: Option<u32>,
) -> KvClass {
    let token = [k_width, v_width].map(|w| dtype.row_bytes(w.into()));
    KvClass {
        name: name.to_string(),
        dtype: dtype.name().to_string(),
        slots,
        kv_heads,
        k_width,
        v_width,
        page_bytes: u64::from(kv_heads) * PAGE_TOKENS as u64 * (token[0] + token[1]),
        window,
        scratch: false,
        source: false,
    }
}

/// Lowers one function.
struct Lower<'a> {
    module: &'a Module,
    weights: &'a WeightPlan,
    func: &'a Func,
    dims: Dims,
    kv: &'a mut Vec<KvClass>,
    tables: &'a mut Vec<Vec<f32>>,
    phases: Vec<Phase>,
    calls: Vec<Call>,
    /// What the calls read and compute.
    work: Vec<Work>,
    /// `repeat`s so far.
    repeats: usize,
    workspace: u64,
    scratch: u64,
    partials: u64,
    op: &'static str,
}

impl<'a> Lower<'a> {
    fn function(&mut self) -> Result<(), LowerError> {
        let func = self.func;
        let mut next = 0;
        for kernel in &func.kernels {
            for inst in &func.body[next..next + kernel.len as usize] {
                self.op = inst.op.name();
                self.inst(inst)?;
                self.count(inst);
            }
            next += kernel.len as usize;
            self.end_phase(&kernel.name);
        }
        Ok(())
    }

    fn inst(&mut self, inst: &'a Inst) -> Result<(), LowerError> {
        match &inst.op {
            Op::Activation(_)
            | Op::Add(_)
            | Op::Glu(_)
            | Op::Mul(_)
            | Op::Scale(_)
            | Op::Softcap(_) => self.elementwise(inst),
            Op::Attention(a) => self.attention(inst, a),
            Op::Experts(e) => self.experts(inst, e),
            Op::Gather(g) => self.gather(inst, g),
            Op::KvAppend(_) => self.kv_append(inst),
            Op::L2Normalize(n) => self.l2_normalize(inst, n),
            Op::LayerNorm(_) | Op::RmsNorm(_) => self.norm(inst),
            Op::Linear(l) => self.linear(inst, l),
            Op::Pool(p) => self.pool(inst, p),
            Op::PositionIds(p) => self.position_ids(inst, p),
            Op::Quantize(q) => self.quantize(inst, q),
            Op::Repeat(_) => {
                self.calls.push(Call::Layers(self.repeats));
                self.repeats += 1;
                Ok(())
            }
            Op::Rope(_) => self.rope(inst),
            Op::RopeAngles(r) => self.rope_angles(inst, r),
            Op::Route(r) => self.route(inst, r),
            Op::Rows(_) => self.rows(inst),
            Op::Substitute(s) => self.substitute(inst, s),
            Op::Unfold(u) => self.unfold(inst, u),
            // Other names for memory that is already there.
            Op::KvSource(_) | Op::MergeHeads(_) | Op::Split(_) | Op::SplitHeads(_) => Ok(()),
            Op::Alibi(_)
            | Op::AttnBias(_)
            | Op::AttnDisentangled(_)
            | Op::AttnMix(_)
            | Op::AttnScores(_)
            | Op::KvRead(_)
            | Op::MaskScores(_)
            | Op::Softmax(_) => {
                Err(self.error("decomposed attention is for the evaluator; raise it first"))
            }
        }
    }

    fn error(&self, message: impl Into<String>) -> LowerError {
        LowerError {
            func: self.func.name.clone(),
            op: self.op,
            message: message.into(),
        }
    }

    fn push(&mut self, kernel: Kernel, args: Vec<Arg>) {
        self.calls.push(Call::Kernel { kernel, args });
    }

    /// Everything pushed so far ends at a barrier.
    fn end_phase(&mut self, name: &str) {
        // Alone between two barriers, it needs not go by rows.
        if let [
            Call::Kernel {
                kernel: Kernel::KvAppend(append),
                ..
            },
        ] = self.calls.as_mut_slice()
        {
            append.by_heads = true;
        }
        if !self.calls.is_empty() {
            self.phases.push(Phase {
                name: name.to_string(),
                calls: std::mem::take(&mut self.calls),
                work: std::mem::take(&mut self.work),
            });
        }
    }

    fn value(&self, inst: &Inst, index: usize) -> Result<ValueId, LowerError> {
        match inst.operands.get(index) {
            Some(Operand::Value(v)) => Ok(*v),
            _ => Err(self.error(format!("operand {index} is no value"))),
        }
    }

    fn weight(&self, inst: &Inst, index: usize) -> Result<(WeightId, &'a Stored), LowerError> {
        match inst.operands.get(index) {
            Some(Operand::Weight(w)) => Ok((*w, &self.weights.weights[w.index()])),
            _ => Err(self.error(format!("operand {index} is no weight"))),
        }
    }

    fn place(&self, v: ValueId) -> Result<&'a Place, LowerError> {
        let value = self.func.value(v);
        value
            .place
            .as_ref()
            .ok_or_else(|| self.error(format!("%{} has no place", value.name)))
    }

    /// The place of operand `index`.
    fn operand(&self, inst: &Inst, index: usize) -> Result<&'a Place, LowerError> {
        self.place(self.value(inst, index)?)
    }

    /// The place of the only result.
    fn result(&self, inst: &Inst) -> Result<&'a Place, LowerError> {
        self.place(inst.results[0])
    }

    /// How many rows a value has.
    fn extent(&self, v: ValueId) -> Result<Extent, LowerError> {
        match self.func.ty(v).tensor().and_then(|t| t.dims.first()) {
            Some(Dim::Sym(Sym::N)) => Ok(Extent::Tokens),
            Some(Dim::Sym(Sym::R)) => Ok(Extent::Rows),
            Some(Dim::Sym(Sym::B)) => Ok(Extent::Sequences),
            _ => Err(self.error("a value's first extent is not N, R or B")),
        }
    }

    /// Upper bound of an extent.
    fn bound(&self, extent: Extent) -> u64 {
        u64::from(self.dims.bound(match extent {
            Extent::Tokens => Sym::N,
            Extent::Rows => Sym::R,
            Extent::Sequences => Sym::B,
        }))
    }

    /// Ids: a parameter of the entry, or a value.
    fn ids(&self, v: ValueId) -> Result<Arg, LowerError> {
        if self.func.params.contains(&v) && self.func.entry().is_some() {
            return Ok(Arg::Batch(match self.func.value(v).name.as_str() {
                "ids" => BatchField::Ids,
                "pos" => BatchField::Pos,
                "types" => BatchField::Types,
                other => return Err(self.error(format!("%{other} is no input of a step"))),
            }));
        }
        Ok(Arg::Arena(self.place(v)?.at))
    }

    /// The heads of a value: how many, and the layout of one.
    fn heads(&self, place: &Place) -> Result<(i64, Vec<u32>), LowerError> {
        match place.layout.0.as_slice() {
            [s] => Ok((i64::from(s.count), s.parts.clone())),
            _ => Err(self.error(format!(
                "layout {} has no single kind of head",
                place.layout
            ))),
        }
    }
}

/// The entry of a weight for the running slot.
fn weight_arg(stored: &Stored) -> Arg {
    let slot_stride = if stored.layers.first() == Some(&None) {
        0
    } else {
        stored.slot_stride
    };
    Arg::Weight {
        offset: stored.offset,
        slot_stride,
    }
}

/// Logical lanes of one group of parts: `(start, length)` as stored.
fn lanes(parts: &[u32]) -> Vec<(i64, i64)> {
    let mut at = 0;
    parts
        .iter()
        .map(|&p| {
            let run = (at, i64::from(p));
            at += i64::from(p.next_multiple_of(LANES as u32));
            run
        })
        .collect()
}

/// Logical lanes of a row for kernels that mask the last group: the stored width where the row has
/// padding inside.
fn row_width(layout: &Layout) -> i64 {
    match layout.0.as_slice() {
        [s] if s.count == 1 && s.parts.len() == 1 => i64::from(layout.len()),
        _ => i64::from(layout.width()),
    }
}
