//! The reference evaluator: what a module means, at any stage.
//!
//! [`Evaluator::step`] runs the entry on one step of packed tokens; KV states stay with the
//! evaluator from step to step. [`infer`] does what an executable's `infer` does. Every op's own
//! `eval` stands in its file under `ops/`.
//!
//! Invariants: slow and obvious; f32 storage with f64 accumulation, so that the order of a sum does
//! not matter; weights and cached keys are rounded to their types; places, layouts, packs, kernels
//! and schedules change nothing. The module is verified before it runs; nothing panics.
//!
//! Deliberately not here: IO (a [`TensorSource`] hands over the numbers), speed.

mod args;
pub mod batch;
pub mod encoder_decoder;
pub mod infer;
mod kv;
pub mod pictures;
mod step;
mod tensor;
mod weights;

pub use args::{Arg, Args};
pub use kv::KvStore;
pub use step::{SeqStep, Step, StepInput};
pub use tensor::{Tensor, Val, dot};

use crate::{
    Entry, Func, Module, Operand, State, StateId, TensorSource, Type, WeightId,
    print::inst_text,
    verify::{Violation, verify},
};
use indexmap::IndexMap;
use std::sync::Arc;

/// Why a module cannot be evaluated.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum EvalError {
    #[error("the module is not legal: {}", .0.first().map_or(String::new(), |v| v.to_string()))]
    Illegal(Vec<Violation>),
    #[error("{0}")]
    Input(String),
    #[error("weight @{name}: {message}")]
    Weight { name: String, message: String },
    #[error("@{func}: `{inst}`: {message}")]
    Op {
        func: String,
        inst: String,
        message: String,
    },
}

/// An op says only what is wrong; the frame adds which instruction it is.
impl From<String> for EvalError {
    fn from(message: String) -> Self {
        EvalError::Input(message)
    }
}

/// A step's results.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StepOutput {
    /// What the entry returns, in its order.
    pub results: IndexMap<String, Tensor>,
    /// The value that the first `repeat` carries, before the first layer and after each: `[N, D]`.
    pub hidden: Vec<Tensor>,
}

impl StepOutput {
    /// A result by its name.
    pub fn result(&self, name: &str) -> Option<&Tensor> {
        self.results.get(name)
    }
}

/// Runs one module, step by step.
pub struct Evaluator<'m> {
    module: &'m Module,
    source: &'m dyn TensorSource,
    weights: IndexMap<(WeightId, u32), Arc<Tensor>>,
    kv: KvStore,
}

/// What an op's `eval` sees besides its operands.
pub struct Frame<'f, 'm> {
    evaluator: &'f mut Evaluator<'m>,
    /// The step.
    pub step: &'f Step,
    /// The slot of the layer class that runs; None in the entry.
    slot: Option<u32>,
    hidden: Vec<Tensor>,
    /// Whether a `repeat` has run.
    repeated: bool,
}

impl<'m> Evaluator<'m> {
    /// Verifies `module`; weights are read from `source` when they are first used.
    pub fn new(module: &'m Module, source: &'m dyn TensorSource) -> Result<Self, EvalError> {
        let violations = verify(module);
        if !violations.is_empty() {
            return Err(EvalError::Illegal(violations));
        }
        Ok(Evaluator {
            module,
            source,
            weights: IndexMap::new(),
            kv: KvStore::default(),
        })
    }

    /// The module.
    pub fn module(&self) -> &'m Module {
        self.module
    }

    /// Forgets a sequence's past.
    pub fn forget(&mut self, seq: u32) {
        self.kv.forget(seq);
    }

    /// Runs the main entry.
    pub fn step(&mut self, input: &StepInput) -> Result<StepOutput, EvalError> {
        match self.module.main_entry() {
            Some((entry, _)) => self.step_of(entry, input),
            None => Err(EvalError::Input("the module has no entry".into())),
        }
    }

    /// Runs an entry.
    pub fn step_of(&mut self, entry: Entry, input: &StepInput) -> Result<StepOutput, EvalError> {
        let Some(func) = self.module.entry(entry) else {
            let name = entry.name();
            return Err(EvalError::Input(format!("the module has no `{name}`")));
        };
        let step = Step::new(&self.module.dims_of_entry(entry), input)?;
        let entry = func;
        let mut params = Vec::new();
        for &p in &entry.params {
            let name = entry.value(p).name.as_str();
            let given = match (name, entry.ty(p)) {
                (_, Type::Step) => Some(Val::Step),
                ("ids", _) => Some(Val::I32(input.ids.clone())),
                ("pos", _) => Some(Val::I32(input.pos.clone())),
                ("types", _) => {
                    let none = || vec![0; step.len()];
                    Some(Val::I32(input.types.clone().unwrap_or_else(none)))
                }
                (name, ty) => {
                    let width = ty.tensor().and_then(|t| t.last()).map(|w| w as usize);
                    let rows = input.rows_in.get(name);
                    let fits = |t: &&Tensor| t.dims.len() == 2 && Some(t.last()) == width;
                    rows.filter(fits).map(|t| Val::F32(t.clone()))
                }
            };
            let rows = match &given {
                Some(Val::I32(v)) => v.len(),
                Some(Val::F32(t)) => t.dims[0],
                _ => step.len(),
            };
            let given = given.filter(|_| rows == step.len());
            params.push(given.ok_or_else(|| {
                let (n, ty) = (step.len(), entry.ty(p));
                EvalError::Input(format!(
                    "nothing gives the entry its %{name}: {ty} of {n} tokens"
                ))
            })?);
        }
        let params = params.into_iter().map(Arc::new).collect();
        let mut frame = Frame {
            evaluator: self,
            step: &step,
            slot: None,
            hidden: Vec::new(),
            repeated: false,
        };
        let results = frame.run(entry, params)?;
        let hidden = frame.hidden;
        let mut out = StepOutput {
            results: IndexMap::new(),
            hidden,
        };
        for ((name, _), value) in entry.results.iter().zip(results) {
            match Arc::unwrap_or_clone(value) {
                Val::F32(t) => out.results.insert(name.clone(), t),
                _ => return Err(EvalError::Input(format!("result {name} is no tensor"))),
            };
        }
        Ok(out)
    }

    fn weight(&mut self, id: WeightId, slot: u32) -> Result<Arc<Tensor>, EvalError> {
        if let Some(w) = self.weights.get(&(id, slot)) {
            return Ok(w.clone());
        }
        let w = Arc::new(weights::load(self.module, self.source, id, slot)?);
        self.weights.insert((id, slot), w.clone());
        Ok(w)
    }
}

impl<'m> Frame<'_, 'm> {
    /// Runs a layer class with the weights and states of `slot`; its first result.
    pub fn call(
        &mut self,
        class: &str,
        slot: u32,
        args: Vec<Arc<Val>>,
    ) -> Result<Arc<Val>, EvalError> {
        let func = self.evaluator.module.funcs.iter().find(|f| f.name == class);
        let func = func.ok_or_else(|| format!("no layer class @{class}"))?;
        let outer = self.slot.replace(slot);
        let results = self.run(func, args);
        self.slot = outer;
        let first = results?.into_iter().next();
        first.ok_or_else(|| format!("layer class @{class} returns nothing").into())
    }

    /// Whether this is the step's first `repeat`, whose carried values are hidden states.
    pub fn first_repeat(&mut self) -> bool {
        !std::mem::replace(&mut self.repeated, true)
    }

    /// Notes the value that a `repeat` carries across a layer boundary.
    pub fn tap(&mut self, carried: &Val) {
        if let Val::F32(t) = carried {
            self.hidden.push(t.clone());
        }
    }

    /// The state, and the slot of it that the running function uses.
    fn state(&self, id: StateId) -> Result<(StateId, &'m State, u32), String> {
        let state = self.evaluator.module.states.get(id.index());
        let state = state.ok_or_else(|| format!("no state {id}"))?;
        Ok((
            id,
            state,
            self.slot.filter(|_| state.slots.is_some()).unwrap_or(0),
        ))
    }

    /// Writes this step's keys and values behind the past ones; the slot that they went to.
    pub fn append(&mut self, id: StateId, k: &Tensor, v: &Tensor) -> Result<u32, String> {
        let at = self.state(id)?;
        self.evaluator.kv.append(at, self.step, k, v)?;
        Ok(at.2)
    }

    /// The slot of a state that the running function uses.
    pub fn slot_of(&self, id: StateId) -> Result<u32, String> {
        Ok(self.state(id)?.2)
    }

    /// The keys `[T, H, Dk]` and values `[T, H, Dv]` of each sequence, or of its source: those that the
    /// slot of a state holds.
    pub fn read(&self, view: &Val) -> Result<(Vec<Tensor>, Vec<Tensor>), String> {
        let Val::View {
            state,
            slot,
            source,
        } = *view
        else {
            return Err("expected a kv_view".into());
        };
        let (id, state, _) = self.state(state)?;
        let (at, kv) = ((id, state, slot), &self.evaluator.kv);
        if source {
            let whole = |source: &u32| SeqStep {
                id: *source,
                past: 0,
                new: kv.held(at, *source),
            };
            let sources: Vec<SeqStep> = self.step.sources.iter().map(whole).collect();
            return kv.read(at, &sources);
        }
        kv.read(at, &self.step.seqs)
    }

    /// What `attention`, `attn_scores` and `attn_mix` read, as one tensor `[T, H, D]` a sequence:
    /// tokens of this step alone, or what `kv_read` gave.
    pub fn per_sequence(&self, keys: &Val) -> Result<Vec<Tensor>, String> {
        match keys {
            Val::PerSeq(l) => Ok(l.clone()),
            Val::F32(t) => Ok((0..self.step.seqs.len())
                .map(|s| {
                    let range = self.step.range(s);
                    let mut dims = t.dims.clone();
                    dims[0] = range.len();
                    Tensor {
                        dims,
                        data: range.flat_map(|i| t.at(i)).copied().collect(),
                    }
                })
                .collect()),
            Val::I32(_) | Val::PerToken(_) | Val::View { .. } | Val::Step => {
                Err("expected keys or values".into())
            }
        }
    }

    /// Runs a function's body; its results in order.
    fn run(&mut self, func: &'m Func, params: Vec<Arc<Val>>) -> Result<Vec<Arc<Val>>, EvalError> {
        let mut values: Vec<Option<Arc<Val>>> = vec![None; func.values.len()];
        for (&p, v) in func.params.iter().zip(params) {
            values[p.index()] = Some(v);
        }
        let module = self.evaluator.module;
        for inst in &func.body {
            let fail = |message: String| EvalError::Op {
                func: func.name.clone(),
                inst: inst_text(module, func, inst),
                message,
            };
            let mut args = Vec::with_capacity(inst.operands.len());
            for &o in &inst.operands {
                args.push(match o {
                    Operand::Value(v) => match &values[v.index()] {
                        Some(v) => Arg::Val(v.clone()),
                        None => return Err(fail(format!("{v} has no value"))),
                    },
                    Operand::Weight(w) => {
                        let stacked = module.weights[w.index()].slots.is_some();
                        let slot = if stacked { self.slot.unwrap_or(0) } else { 0 };
                        Arg::Weight(self.evaluator.weight(w, slot)?)
                    }
                    Operand::State(s) => Arg::State(s),
                });
            }
            let results = inst.op.eval(self, Args::new(args)).map_err(|e| match e {
                EvalError::Input(message) => fail(message),
                inner => inner,
            })?;
            for (&r, v) in inst.results.iter().zip(results) {
                values[r.index()] = Some(Arc::new(v));
            }
        }
        let result = |(name, v): &(String, crate::ValueId)| {
            let value = values[v.index()].clone();
            value.ok_or_else(|| EvalError::Input(format!("result {name} has no value")))
        };
        func.results.iter().map(result).collect()
    }
}
