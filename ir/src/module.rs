//! The module: weights, states, functions, and what the passes have planned for them.

use crate::{
    DType, FuncId, Layout, Op, Operand, StateId, TensorType, Type, ValueId, WeightId,
    rope::LengthRule,
};

/// How far a module has come; each stage has its own legality (`verify`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// As the family wrote it.
    Model,
    /// Fused, shared, quantised.
    Fused,
    /// Kernels formed, layouts chosen, memory planned.
    Planned,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 3] = [Stage::Model, Stage::Fused, Stage::Planned];

    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Model => "model",
            Stage::Fused => "fused",
            Stage::Planned => "planned",
        }
    }

    /// Reads the text syntax.
    pub fn from_name(name: &str) -> Option<Stage> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }
}

/// Upper bounds of the symbolic extents; the lower bound is 1 (0 for `R`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dims {
    pub n: u32,
    pub r: u32,
    pub b: u32,
    pub t: u32,
}

impl Dims {
    /// The bound of one extent.
    pub fn bound(&self, sym: crate::Sym) -> u32 {
        match sym {
            crate::Sym::N => self.n,
            crate::Sym::R => self.r,
            crate::Sym::B => self.b,
            crate::Sym::T => self.t,
        }
    }
}

/// What a function that the runtime calls is for: one step function each, named after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Entry {
    /// The only network of decoders and encoders.
    Forward,
    /// The encoder of an encoder-decoder: reads a source whole, writes its keys and values.
    Encode,
    /// The decoder of an encoder-decoder.
    Decode,
    /// An image's encoder.
    Vision,
    /// What queries an image's encoding.
    Qformer,
}

impl Entry {
    /// All entries, in the order in which a module's are listed.
    pub const ALL: [Entry; 5] = [
        Entry::Forward,
        Entry::Encode,
        Entry::Decode,
        Entry::Vision,
        Entry::Qformer,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Entry::Forward => "forward",
            Entry::Encode => "encode",
            Entry::Decode => "decode",
            Entry::Vision => "vision",
            Entry::Qformer => "qformer",
        }
    }

    /// The entry of this name.
    pub fn from_name(name: &str) -> Option<Entry> {
        Self::ALL.into_iter().find(|e| e.name() == name)
    }
}

/// A model in Transformer IR.
#[derive(Clone, PartialEq, Debug)]
pub struct Module {
    pub name: String,
    pub stage: Stage,
    /// Bounds of the extents of every entry and its layers, unless it has its own.
    pub dims: Dims,
    /// Bounds of those that have.
    pub entry_dims: Vec<(Entry, Dims)>,
    pub weights: Vec<Weight>,
    pub states: Vec<State>,
    /// Layer classes, each before the entry that repeats it.
    pub funcs: Vec<Func>,
    /// Bytes of the arena, once planned.
    pub arena_bytes: Option<u64>,
}

/// A weight: its type and where its values come from, never the values.
#[derive(Clone, PartialEq, Debug)]
pub struct Weight {
    pub name: String,
    /// Entries of the stack, one for each slot of the layer class that uses it; None: a single tensor.
    pub slots: Option<u32>,
    /// Type of one entry.
    pub ty: TensorType,
    pub source: Source,
    /// How it is packed, once layouts are chosen.
    pub pack: Option<Pack>,
}

/// The tensors of the checkpoint that make up a weight: their rows, one part after another.
#[derive(Clone, PartialEq, Debug)]
pub struct Source {
    pub parts: Vec<SourcePart>,
    /// What those rows go through to become the weight's; None: they are the weight's.
    pub projected: Option<Projected>,
}

/// A weight computed of weights, once, when they are packed: every row of the parts becomes
/// `norm(row) · matrixᵀ + bias`, the weight being f32.
#[derive(Clone, PartialEq, Debug)]
pub struct Projected {
    /// A layer norm of the rows.
    pub norm: Option<SourceNorm>,
    /// `[columns of the weight, columns of the parts]`.
    pub matrix: Vec<SourcePart>,
    /// `[columns of the weight]`; no part: there is none.
    pub bias: Vec<SourcePart>,
}

/// The layer norm of a computed weight.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceNorm {
    /// The tensors.
    pub weight: String,
    pub bias: String,
    /// Added to the variance.
    pub eps: f32,
}

/// One tensor, or some of its rows; or a tensor for each expert, one after another.
///
/// A tensor of more extents than the weight is taken for its rows, flattened (a convolution's
/// `[out, in, width]`), or for slices over one another (experts' `[E, out, in]`), whichever gives the
/// weight's columns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourcePart {
    /// Name in the checkpoint; `{layer}` stands for the absolute index of the layer, `{expert}` for that
    /// of the expert.
    pub name: String,
    /// Rows `start..end` of the tensor; None: all.
    pub rows: Option<(u32, u32)>,
    /// Of those rows every so manyth is taken, from the first on.
    pub every: u32,
    /// The checkpoint holds the transpose: `[in, out]`, or `[E, in, out]`.
    pub transposed: bool,
    /// How many tensors there are, where each expert has its own.
    pub experts: Option<u32>,
}

impl SourcePart {
    /// The whole of one tensor.
    pub fn tensor(name: impl Into<String>) -> SourcePart {
        SourcePart {
            name: name.into(),
            rows: None,
            every: 1,
            transposed: false,
            experts: None,
        }
    }

    /// How many rows of each tensor are taken, where `rows` says it.
    pub fn count(&self) -> Option<u32> {
        let (start, end) = self.rows?;
        Some(end.saturating_sub(start).div_ceil(self.every.max(1)))
    }

    /// The names of the tensors, in order.
    pub fn tensors(&self, layer: Option<u32>) -> impl Iterator<Item = String> {
        let name = crate::source::tensor_name(&self.name, layer).into_owned();
        (0..self.experts.unwrap_or(1)).map(move |e| match name.contains("{expert}") {
            true => name.replace("{expert}", &e.to_string()),
            false => name.clone(),
        })
    }
}

impl Source {
    /// The whole of one tensor.
    pub fn tensor(name: impl Into<String>) -> Source {
        SourcePart::tensor(name).into()
    }

    /// The rows of all `parts`.
    pub fn rows(parts: Vec<SourcePart>) -> Source {
        Source {
            parts,
            projected: None,
        }
    }

    /// Changes the name pattern of every tensor that the weight depends on.
    pub fn rename(&mut self, of: impl Fn(&str) -> String) {
        let mut parts: Vec<&mut SourcePart> = self.parts.iter_mut().collect();
        if let Some(p) = &mut self.projected {
            parts.extend(p.matrix.iter_mut().chain(&mut p.bias));
            if let Some(n) = &mut p.norm {
                (n.weight, n.bias) = (of(&n.weight), of(&n.bias));
            }
        }
        parts
            .into_iter()
            .for_each(|part| part.name = of(&part.name));
    }

    /// Every tensor's name pattern that the weight depends on.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        let through = self.projected.iter().flat_map(|p| {
            let parts = p
                .matrix
                .iter()
                .chain(&p.bias)
                .map(|part| part.name.as_str());
            let norm = p
                .norm
                .iter()
                .flat_map(|n| [n.weight.as_str(), n.bias.as_str()]);
            parts.chain(norm)
        });
        self.parts.iter().map(|p| p.name.as_str()).chain(through)
    }
}

impl From<SourcePart> for Source {
    fn from(part: SourcePart) -> Source {
        Source::rows(vec![part])
    }
}

/// How a weight's values are stored for its kernels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pack {
    /// A matrix in panels of 64 outputs, `[rows / 64][cols][64]`, in the weight's element type; block
    /// formats and `int8` in strips of 16 outputs. With `glu`, gate and up alternate in groups of 16 rows.
    Panels {
        rows: Layout,
        cols: Layout,
        glu: bool,
    },
    /// The matrices of `count` experts, each in panels or strips of its own, one behind the other. The
    /// weight holds the experts' rows one behind the other; with `glu` the gates of all, then the ups.
    /// `rows` are the outputs of one expert.
    Experts {
        count: u32,
        rows: Layout,
        cols: Layout,
        glu: bool,
    },
    /// A table of rows in the weight's element type, each stored as `cols` says.
    Rows { cols: Layout },
    /// A vector, or the rows of a small table, as f32.
    Vector { layout: Layout },
}

/// A state that outlives the step: keys and values of past tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub name: String,
    /// Slots of the layer class that uses it.
    pub slots: Option<u32>,
    pub dtype: DType,
    pub heads: u32,
    pub k_dim: u32,
    pub v_dim: u32,
    /// Keys further behind than this are never read again.
    pub window: Option<u32>,
}

/// A function: straight-line code over SSA values.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Func {
    pub name: String,
    pub params: Vec<ValueId>,
    pub values: Vec<Value>,
    pub body: Vec<Inst>,
    /// What the function returns; names are HF's output names in the entry.
    pub results: Vec<(String, ValueId)>,
    /// A partition of `body` into kernels, in order; empty before stage `planned`.
    pub kernels: Vec<Kernel>,
}

/// A value of a function.
#[derive(Clone, PartialEq, Debug)]
pub struct Value {
    /// Unique within the function.
    pub name: String,
    pub ty: Type,
    /// Where it is stored, once planned; None for values that need no memory.
    pub place: Option<Place>,
}

impl Value {
    /// 4-byte units that a row takes where it is placed; None without rows or without a place.
    pub fn row_units(&self) -> Option<u32> {
        let (place, t) = (self.place.as_ref()?, self.ty.tensor()?);
        match t.dims.len() {
            1 => Some(1),
            _ => place.layout.checked_units(t.dtype),
        }
    }
}

/// A value's memory in the arena.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Bytes from the arena's start to the first element.
    pub at: u64,
    /// 4-byte units from one row to the next, whatever the element type.
    pub stride: u32,
    pub layout: Layout,
}

/// An instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct Inst {
    pub op: Op,
    pub operands: Vec<Operand>,
    pub results: Vec<ValueId>,
}

/// Consecutive instructions that run without a barrier between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    pub name: String,
    /// Number of instructions.
    pub len: u32,
}

impl Module {
    /// An empty module at stage `model`.
    pub fn new(name: impl Into<String>, dims: Dims) -> Module {
        Module {
            name: name.into(),
            stage: Stage::Model,
            dims,
            entry_dims: Vec::new(),
            weights: Vec::new(),
            states: Vec::new(),
            funcs: Vec::new(),
            arena_bytes: None,
        }
    }

    /// What the model's ropes want to know of its sequences' lengths: the first rule that there is.
    pub fn length_rule(&self) -> Option<LengthRule> {
        let insts = self.funcs.iter().flat_map(|f| &f.body);
        let mut rules = insts.filter_map(|inst| match &inst.op {
            Op::RopeAngles(op) => op.scaling.length_rule(),
            _ => None,
        });
        rules.next()
    }

    /// Adds a weight; its name must be new (the verifier checks).
    pub fn add_weight(&mut self, weight: Weight) -> WeightId {
        self.weights.push(weight);
        WeightId(self.weights.len() as u32 - 1)
    }

    /// Adds a state.
    pub fn add_state(&mut self, state: State) -> StateId {
        self.states.push(state);
        StateId(self.states.len() as u32 - 1)
    }

    /// The function called `name`.
    pub fn func(&self, name: &str) -> Option<FuncId> {
        self.funcs
            .iter()
            .position(|f| f.name == name)
            .map(|i| FuncId(i as u32))
    }

    /// The entries, in the order of [`Entry::ALL`].
    pub fn entries(&self) -> impl Iterator<Item = (Entry, &Func)> {
        let of = |entry| Some((entry, self.funcs.iter().find(|f| f.entry() == Some(entry))?));
        Entry::ALL.into_iter().filter_map(of)
    }

    /// One entry.
    pub fn entry(&self, entry: Entry) -> Option<&Func> {
        self.funcs.iter().find(|f| f.entry() == Some(entry))
    }

    /// The entry that texts go through: `forward`, or `decode`; the first one where there is neither.
    pub fn main_entry(&self) -> Option<(Entry, &Func)> {
        let text = |e: &(Entry, &Func)| matches!(e.0, Entry::Forward | Entry::Decode);
        self.entries().find(text).or_else(|| self.entries().next())
    }

    /// The entry that a function is, or that repeats it.
    pub fn entry_of(&self, func: &Func) -> Option<Entry> {
        func.entry().or_else(|| {
            let runs = |f: &Func| {
                f.repeats()
                    .any(|r| r.layers.iter().any(|l| l.0 == func.name))
            };
            self.entries()
                .find(|(_, f)| runs(f))
                .map(|(entry, _)| entry)
        })
    }

    /// The bounds of an entry's extents.
    pub fn dims_of_entry(&self, entry: Entry) -> Dims {
        let own = self.entry_dims.iter().find(|(e, _)| *e == entry);
        own.map_or(self.dims, |(_, dims)| *dims)
    }

    /// The bounds of the extents of a function, an entry or a layer class.
    pub fn dims_of(&self, func: &Func) -> Dims {
        self.entry_of(func)
            .map_or(self.dims, |entry| self.dims_of_entry(entry))
    }

    /// The layers of the main entry in order: class and slot, as its first `repeat` lists them.
    pub fn layers(&self) -> &[(String, u32)] {
        self.main_entry()
            .and_then(|(_, f)| f.repeats().next())
            .map_or(&[], |r| r.layers.as_slice())
    }

    /// The `repeat` that runs `class`.
    pub fn repeat_of(&self, class: &str) -> Option<&crate::ops::Repeat> {
        let runs = |r: &&crate::ops::Repeat| r.layers.iter().any(|(c, _)| c == class);
        self.funcs.iter().flat_map(Func::repeats).find(runs)
    }

    /// The index among the checkpoint's layers of slot `slot` of `class`, which `{layer}` in names stands
    /// for: layers are counted where they run first, so that one that runs several times counts once.
    pub fn layer_of(&self, class: &str, slot: u32) -> Option<u32> {
        let mut seen = std::collections::HashSet::new();
        for (c, s) in &self.repeat_of(class)?.layers {
            if c == class && *s == slot {
                return Some(seen.len() as u32);
            }
            seen.insert((c.as_str(), *s));
        }
        None
    }

    /// Whether a state holds a source's keys and values: written by one function, read by others.
    pub fn is_source(&self, state: StateId) -> bool {
        let reads = |i: &Inst| {
            matches!(i.op, Op::KvSource(_)) && i.operands.contains(&Operand::State(state))
        };
        self.funcs.iter().flat_map(|f| &f.body).any(reads)
    }

    /// The layer class that uses a weight; None for weights of entries.
    pub fn class_of_weight(&self, weight: WeightId) -> Option<&str> {
        self.funcs
            .iter()
            .find(|f| {
                f.entry().is_none()
                    && f.body
                        .iter()
                        .any(|i| i.operands.contains(&Operand::Weight(weight)))
            })
            .map(|f| f.name.as_str())
    }
}

/// Name of the only entry of decoders and encoders.
pub const ENTRY: &str = "forward";

impl Func {
    /// The entry that the function is; None for layer classes.
    pub fn entry(&self) -> Option<Entry> {
        Entry::from_name(&self.name)
    }

    /// Its `repeat`s, in order.
    pub fn repeats(&self) -> impl Iterator<Item = &crate::ops::Repeat> {
        self.body.iter().filter_map(|inst| match &inst.op {
            Op::Repeat(r) => Some(r),
            _ => None,
        })
    }

    /// The value's data.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// The value's type.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.values[id.index()].ty
    }

    /// Index of the instruction that defines the value; None for parameters.
    pub fn def(&self, id: ValueId) -> Option<usize> {
        self.body.iter().position(|i| i.results.contains(&id))
    }

    /// Indices of the instructions that read the value.
    pub fn users(&self, id: ValueId) -> Vec<usize> {
        (0..self.body.len())
            .filter(|&i| self.body[i].operands.contains(&Operand::Value(id)))
            .collect()
    }

    /// Whether the function returns the value.
    pub fn returns(&self, id: ValueId) -> bool {
        self.results.iter().any(|(_, v)| *v == id)
    }

    /// Reads `to` wherever `from` was read or returned.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for inst in &mut self.body {
            for o in &mut inst.operands {
                if *o == Operand::Value(from) {
                    *o = Operand::Value(to);
                }
            }
        }
        for (_, v) in &mut self.results {
            if *v == from {
                *v = to;
            }
        }
    }

    /// A new value whose name starts with `hint`.
    pub fn new_value(&mut self, hint: &str, ty: Type) -> ValueId {
        let taken = |name: &str| self.values.iter().any(|v| v.name == name);
        let mut name = hint.to_string();
        let mut n = 1;
        while taken(&name) {
            name = format!("{hint}.{n}");
            n += 1;
        }
        self.values.push(Value {
            name,
            ty,
            place: None,
        });
        ValueId(self.values.len() as u32 - 1)
    }
}
