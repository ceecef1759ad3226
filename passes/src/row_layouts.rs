//! Which values are stored alike, and how: the analysis behind `choose-layouts`.
//!
//! in: a module → out: for every f32 value of every function its row [`Layout`], or an error naming
//! two demands on one value that exclude each other.
//!
//! Values form classes: an op that works element by element, a norm, rope, selection of rows, a layer's
//! carried value: all store operand and result alike. For values with heads `[n, H, D]` a class
//! decides on the *parts* of D; for rows `[n, W]` on the whole layout. Then ops demand:
//!
//! - `rope` by angles of `dim`: parts `[dim / 2, dim / 2, D − dim]`; queries and keys of one attention
//!   are one class, so both have them; everything else has parts `[D]`;
//! - `split_heads`, `merge_heads`: the row is H times the parts of the heads;
//! - `split`: the row is the layouts of the pieces, one after another;
//! - `rope_angles`: cos and sin, each padded; `glu`: two halves alike; `route`: plain.
//!
//! A class without a demand is plain. Two demands may differ in words and agree in memory
//! (`2x(64)`, `1x(128)`); only memory counts.

use std::collections::BTreeMap;

use llmc_ir::{DType, Func, FuncId, Inst, Layout, Module, Op, Operand, ValueId, layout::LANES};

use crate::{AttentionOperands, Keys, LinearOperands, PassError};

/// A value of the module.
type Key = (usize, ValueId);

/// A layout and who asks for it.
#[derive(Clone)]
struct Demand {
    layout: Layout,
    by: String,
}

/// Floats of a row that are taken on at most; vocabularies, the widest rows, have 2^18.
const MAX_ROW: u64 = 1 << 24;
/// Splits of splits that are taken on at most.
const MAX_DEPTH: usize = 64;

/// Row layouts of all values.
pub struct RowLayouts {
    /// By function and value; None where the value has no rows of floats.
    of: Vec<Vec<Option<Layout>>>,
}

impl RowLayouts {
    /// The layout of a value's rows.
    pub fn get(&self, func: FuncId, v: ValueId) -> Option<&Layout> {
        self.of.get(func.index())?.get(v.index())?.as_ref()
    }

    /// Decides on all layouts.
    pub fn choose(module: &Module) -> Result<RowLayouts, PassError> {
        for func in &module.funcs {
            check_sizes(func)?;
        }
        let mut a = Analysis::new(module);
        for (f, func) in module.funcs.iter().enumerate() {
            for inst in &func.body {
                a.relate(f, func, inst.op.clone(), &inst.operands, &inst.results);
            }
        }
        a.demand_parts()?;
        a.demand_rows();
        let mut of = Vec::with_capacity(module.funcs.len());
        for (f, func) in module.funcs.iter().enumerate() {
            let mut layouts = Vec::with_capacity(func.values.len());
            for v in 0..func.values.len() {
                layouts.push(a.layout((f, ValueId(v as u32)))?);
            }
            of.push(layouts);
        }
        Ok(RowLayouts { of })
    }
}

/// No row is so wide that sums of its padded parts could overflow.
fn check_sizes(func: &Func) -> Result<(), PassError> {
    for value in &func.values {
        let Some(t) = value.ty.tensor().filter(|t| t.dims.len() > 1) else {
            continue;
        };
        let heads = t
            .dims
            .get(1)
            .and_then(|d| d.fixed())
            .filter(|_| t.dims.len() > 2);
        // Three parts of a head at most, each padded.
        let padding = u64::from(heads.unwrap_or(1)) * 3 * u64::from(LANES);
        if t.row_len()
            .is_some_and(|len| u64::from(len) + padding > MAX_ROW)
        {
            let what = format!("%{}: rows of {t} are too wide", value.name);
            return Err(PassError::unsupported(&func.name, what));
        }
    }
    Ok(())
}

/// Whether two layouts store every element at the same place.
pub fn same_storage(a: &Layout, b: &Layout) -> bool {
    a == b || (a.len() == b.len() && a.width() == b.width() && a.stored() == b.stored())
}

/// The `kv_append` that a view comes from, which for a source's is in another function.
fn appended<'m>(module: &'m Module, (f, view): (usize, &'m Inst)) -> (usize, Option<&'m Inst>) {
    if matches!(view.op, Op::KvAppend(_)) {
        return (f, Some(view));
    }
    let writes =
        |i: &&Inst| matches!(i.op, Op::KvAppend(_)) && i.operands.first() == view.operands.first();
    let mut funcs = module.funcs.iter().enumerate();
    let found = funcs.find_map(|(g, func)| Some((g, func.body.iter().find(writes)?)));
    found.map_or((f, None), |(g, inst)| (g, Some(inst)))
}

struct Analysis<'m> {
    module: &'m Module,
    /// First value of each function in `parent`.
    base: Vec<usize>,
    parent: Vec<usize>,
    /// Parts of a head, by class, and who asks for them.
    parts: BTreeMap<usize, Demand>,
    /// Layouts of a row, by class.
    rows: BTreeMap<usize, Vec<Demand>>,
    /// `split`s by the class of what they split: function, pieces.
    splits: BTreeMap<usize, Vec<(usize, Vec<ValueId>)>>,
    chosen: BTreeMap<usize, Layout>,
    /// Splits of splits on the way to the row that is being decided on.
    depth: usize,
}

impl<'m> Analysis<'m> {
    fn new(module: &'m Module) -> Self {
        let mut base = Vec::new();
        let mut n = 0;
        for f in &module.funcs {
            base.push(n);
            n += f.values.len();
        }
        Analysis {
            module,
            base,
            parent: (0..n).collect(),
            parts: BTreeMap::new(),
            rows: BTreeMap::new(),
            splits: BTreeMap::new(),
            chosen: BTreeMap::new(),
            depth: 0,
        }
    }

    fn class(&self, (f, v): Key) -> usize {
        let mut i = self.base[f] + v.index();
        while self.parent[i] != i {
            i = self.parent[i];
        }
        i
    }

    /// Both are stored alike.
    fn same(&mut self, a: Key, b: Key) {
        let (a, b) = (self.class(a), self.class(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// Puts what an op stores alike into one class.
    fn relate(&mut self, f: usize, func: &Func, op: Op, operands: &[Operand], results: &[ValueId]) {
        let value = |i: usize| match operands.get(i) {
            Some(Operand::Value(v)) => Some((f, *v)),
            _ => None,
        };
        let result = results.first().map(|&r| (f, r));
        let module = self.module;
        let mut same = |a: Option<Key>, b: Option<Key>| {
            if let (Some(a), Some(b)) = (a, b) {
                self.same(a, b);
            }
        };
        match op {
            Op::Activation(_)
            | Op::L2Normalize(_)
            | Op::LayerNorm(_)
            | Op::Pool(_)
            | Op::RmsNorm(_)
            | Op::Rope(_)
            | Op::Rows(_)
            | Op::Scale(_)
            | Op::Softcap(_) => same(value(0), result),
            Op::Add(_) | Op::Mul(_) | Op::Substitute(_) => {
                same(value(0), result);
                same(value(1), result);
            }
            Op::Linear(op) => {
                let residual = LinearOperands::read(&op, operands).and_then(|o| o.residual);
                same(residual.map(|r| (f, r)), result);
            }
            Op::Attention(op) => {
                let Some(args) = AttentionOperands::read(&op, operands) else {
                    return;
                };
                let (k, v) = match args.keys {
                    Keys::Tensors(k, v) => (Some((f, k)), Some((f, v))),
                    Keys::View(view) => {
                        let (f, append) = match func.def(view).map(|d| &func.body[d]) {
                            Some(inst) => appended(module, (f, inst)),
                            None => (f, None),
                        };
                        let of = |i: usize| match append.and_then(|a| a.operands.get(i)) {
                            Some(Operand::Value(v)) => Some((f, *v)),
                            _ => None,
                        };
                        (of(1), of(2))
                    }
                };
                same(Some((f, args.q)), k);
                same(v, result);
            }
            Op::Repeat(op) => {
                same(value(0), result);
                for (class, _) in &op.layers {
                    let Some(callee) = self.module.func(class) else {
                        continue;
                    };
                    let g = callee.index();
                    let func = &self.module.funcs[g];
                    for (i, p) in func.params.iter().enumerate() {
                        if let Some(v) = value(i) {
                            self.same(v, (g, *p));
                        }
                    }
                    if let (Some(r), Some((_, own))) = (result, func.results.first()) {
                        self.same(r, (g, *own));
                    }
                }
            }
            Op::Alibi(_)
            | Op::AttnBias(_)
            | Op::AttnDisentangled(_)
            | Op::AttnMix(_)
            | Op::AttnScores(_)
            | Op::Experts(_)
            | Op::Gather(_)
            | Op::Glu(_)
            | Op::KvAppend(_)
            | Op::KvRead(_)
            | Op::KvSource(_)
            | Op::MaskScores(_)
            | Op::MergeHeads(_)
            | Op::PositionIds(_)
            | Op::Quantize(_)
            | Op::RopeAngles(_)
            | Op::Route(_)
            | Op::Softmax(_)
            | Op::Split(_)
            | Op::SplitHeads(_)
            | Op::Unfold(_) => {}
        }
    }

    /// The parts of rotated heads.
    fn demand_parts(&mut self) -> Result<(), PassError> {
        let module = self.module;
        for (f, func) in module.funcs.iter().enumerate() {
            for inst in &func.body {
                let (Op::Rope(_), &[Operand::Value(x), Operand::Value(angles)]) =
                    (&inst.op, inst.operands.as_slice())
                else {
                    continue;
                };
                let last = |v: ValueId| func.ty(v).tensor().and_then(|t| t.last());
                let (Some(d), Some(dim)) = (last(x), last(angles)) else {
                    continue;
                };
                let mut parts = vec![dim / 2, dim / 2];
                parts.extend(d.checked_sub(dim).filter(|&rest| rest > 0));
                let demand = Demand {
                    layout: Layout::heads(1, &parts),
                    by: format!("rope of %{} over {dim} elements", func.value(x).name),
                };
                let class = self.class((f, x));
                if let Some(other) = self.parts.get(&class) {
                    if !same_storage(&other.layout, &demand.layout) {
                        return Err(clash(func, x, other, &demand));
                    }
                } else {
                    self.parts.insert(class, demand);
                }
            }
        }
        Ok(())
    }

    /// The layout of a value with heads.
    fn heads(&self, (f, v): Key) -> Option<Layout> {
        let t = self.module.funcs[f].ty(v).tensor()?;
        let &[_, h, d] = t.dims.as_slice() else {
            return None;
        };
        let (h, d) = (h.fixed()?, d.fixed()?);
        let parts = match self.parts.get(&self.class((f, v))) {
            Some(demand) => demand.layout.0.first()?.parts.clone(),
            None => vec![d],
        };
        Some(Layout::heads(h, &parts))
    }

    /// What ops demand of rows.
    fn demand_rows(&mut self) {
        let module = self.module;
        for (f, func) in module.funcs.iter().enumerate() {
            for inst in &func.body {
                let value = |i: usize| match inst.operands.get(i) {
                    Some(Operand::Value(v)) => Some(*v),
                    _ => None,
                };
                let result = inst.results.first().copied();
                let last = |v: Option<ValueId>| func.ty(v?).tensor().and_then(|t| t.last());
                let halves = |n: u32| Layout::heads(2, &[n]);
                let mut demands: Vec<(Option<ValueId>, Option<Layout>)> = vec![];
                match &inst.op {
                    Op::SplitHeads(_) => {
                        demands.push((value(0), result.and_then(|r| self.heads((f, r)))));
                    }
                    Op::MergeHeads(_) => {
                        demands.push((result, value(0).and_then(|x| self.heads((f, x)))));
                    }
                    Op::RopeAngles(op) => demands.push((result, Some(halves(op.dim / 2)))),
                    Op::Rope(_) => {
                        demands.push((value(1), last(value(1)).map(|dim| halves(dim / 2))));
                    }
                    Op::Glu(_) => {
                        demands.push((value(0), last(result).map(halves)));
                        demands.push((result, last(result).map(Layout::plain)));
                    }
                    Op::Linear(op) if op.glu.is_some() => {
                        demands.push((result, last(result).map(Layout::plain)));
                    }
                    // Logits and weights are compared expert by expert.
                    Op::Route(_) => {
                        demands.push((value(0), last(result).map(Layout::plain)));
                        demands.push((result, last(result).map(Layout::plain)));
                    }
                    // Neighbours interleave element by element.
                    Op::Unfold(_) => {
                        demands.push((value(0), last(value(0)).map(Layout::plain)));
                        demands.push((result, last(result).map(Layout::plain)));
                    }
                    Op::Experts(_) => {
                        demands.push((value(1), last(value(1)).map(Layout::plain)));
                    }
                    Op::Split(_) => {
                        if let Some(x) = value(0) {
                            let class = self.class((f, x));
                            let list = self.splits.entry(class).or_default();
                            list.push((f, inst.results.clone()));
                        }
                    }
                    _ => {}
                }
                for (v, layout) in demands {
                    if let (Some(v), Some(layout)) = (v, layout) {
                        let by = format!("{} in @{}", inst.op.name(), func.name);
                        let class = self.class((f, v));
                        self.rows
                            .entry(class)
                            .or_default()
                            .push(Demand { layout, by });
                    }
                }
            }
        }
    }

    /// The layout of a value, decided for its whole class.
    fn layout(&mut self, key: Key) -> Result<Option<Layout>, PassError> {
        let func = &self.module.funcs[key.0];
        let Some(t) = func.ty(key.1).tensor() else {
            return Ok(None);
        };
        match (t.dtype, t.dims.len(), t.row_len()) {
            (DType::F32, 3, Some(_)) => Ok(self.heads(key)),
            (DType::F32, 2, Some(len)) => self.row(key, len).map(Some),
            // What a product reads in fewer bits has no gaps.
            (DType::BF16 | DType::Q8(_), 2, Some(len)) => Ok(Some(Layout::plain(len))),
            (DType::I32, 1, _) => Ok(Some(Layout::plain(1))),
            _ => Err(PassError::unsupported(
                &func.name,
                format!("%{}: {t} has no layout", func.value(key.1).name),
            )),
        }
    }

    fn row(&mut self, key: Key, len: u32) -> Result<Layout, PassError> {
        let class = self.class(key);
        if let Some(layout) = self.chosen.get(&class) {
            return Ok(layout.clone());
        }
        // Should a row be a piece of itself, it is plain.
        self.chosen.insert(class, Layout::plain(len));
        let mut demands = self.rows.get(&class).cloned().unwrap_or_default();
        for (f, pieces) in self.splits.get(&class).cloned().unwrap_or_default() {
            let mut layouts = Vec::with_capacity(pieces.len());
            if self.depth == MAX_DEPTH {
                let what = format!("splits of splits, {MAX_DEPTH} deep");
                return Err(PassError::unsupported(&self.module.funcs[f].name, what));
            }
            self.depth += 1;
            for p in pieces {
                layouts.extend(self.layout((f, p))?);
            }
            self.depth -= 1;
            demands.push(Demand {
                layout: Layout::concat(&layouts),
                by: format!("split in @{}", self.module.funcs[f].name),
            });
        }
        let Some(first) = demands.first().cloned() else {
            return Ok(Layout::plain(len));
        };
        for other in &demands {
            if !same_storage(&first.layout, &other.layout) {
                let func = &self.module.funcs[key.0];
                return Err(clash(func, key.1, &first, other));
            }
        }
        self.chosen.insert(class, first.layout.clone());
        Ok(first.layout)
    }
}

/// Two demands that exclude each other.
fn clash(func: &Func, v: ValueId, a: &Demand, b: &Demand) -> PassError {
    let what = format!(
        "%{} is stored as {} for {}, and as {} for {}",
        func.value(v).name,
        a.layout,
        a.by,
        b.layout,
        b.by
    );
    PassError::unsupported(&func.name, what)
}
