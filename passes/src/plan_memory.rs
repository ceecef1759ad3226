//! `plan-memory`: an address in one arena for every value.
//!
//! ```text
//! %qkv {at = 0, stride = 0, 32x(32, 32) …}   →   %qkv {at = 2097152, …}, %q {at = 2097152, …}, %k {…}
//! arena_bytes = none                         →   arena_bytes = 8388608
//! ```
//!
//! Values share memory as [`crate::storage`] says. A buffer lives from the kernel that first writes it
//! to the last one that reads it, both included; buffers that live in one kernel never overlap, since
//! its threads do not wait for each other. What an entry returns lives to the end. Entries are planned one
//! by one over the same memory: nothing outlives a step.
//!
//! Layers: the carried value has one buffer, which is the operand of `repeat`, its result, and parameter
//! and result of every class; the other parameters lie where the caller has them. The layers' own
//! buffers are one region of the entry, shared by all classes, in use during `repeat` alone. Where a value
//! cannot be carried in place a copy is inserted: `scale {factor = 1.0}`.

use std::collections::BTreeMap;

use llmc_ir::{Dim, Func, FuncId, Inst, Kernel, Module, Op, Operand, ValueId, ops::Scale};

use crate::{
    Pass, PassError, Remarks, Stats,
    first_fit::{Block, place},
    form_kernels::unique,
    operands,
    storage::{Slice, Storage},
};

/// Bytes of the arena that are taken on at most.
const MAX_ARENA: u128 = 1 << 47;

/// Plans the arena.
pub struct PlanMemory;

/// What the caller gives a layer class: the memory of each argument.
type Arguments = Vec<Option<Slice>>;

impl Pass for PlanMemory {
    fn name(&self) -> &'static str {
        "plan-memory"
    }

    fn run(&self, module: &mut Module, _: &mut Remarks) -> Result<Stats, PassError> {
        let mut copies = 0;
        let callers = callers(module)?;
        for f in 0..module.funcs.len() {
            let called = callers.values().any(|c| c.contains(&f));
            copies += copy_where_needed(module, f, called)?;
        }
        let mut end = 0;
        for f in 0..module.funcs.len() {
            if callers.values().any(|c| c.contains(&f)) {
                continue;
            }
            let layers = callers.get(&f).cloned().unwrap_or_default();
            end = end.max(plan(module, f, &layers)?);
        }
        module.arena_bytes = Some(end);
        Ok(Stats::of(copies))
    }
}

/// For each function that has a `repeat`: the classes that it runs.
fn callers(module: &Module) -> Result<BTreeMap<usize, Vec<usize>>, PassError> {
    let mut callers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut called: Vec<usize> = Vec::new();
    for (f, func) in module.funcs.iter().enumerate() {
        for inst in &func.body {
            let Op::Repeat(op) = &inst.op else {
                continue;
            };
            let mut classes: Vec<usize> = Vec::new();
            for (name, _) in &op.layers {
                let class = module.func(name).map(FuncId::index);
                classes.extend(class.filter(|c| !classes.contains(c)));
            }
            if let Some(twice) = classes.iter().find(|c| called.contains(c)) {
                let name = &module.funcs[*twice].name;
                let what = format!("@{name} is repeated at two places");
                return Err(PassError::unsupported(&func.name, what));
            }
            called.extend(&classes);
            callers.entry(f).or_default().extend(classes);
        }
    }
    match callers.keys().find(|f| called.contains(f)) {
        Some(&f) => {
            let what = "a repeated function repeats others";
            Err(PassError::unsupported(&module.funcs[f].name, what))
        }
        None => Ok(callers),
    }
}

/// Inserts copies so that every carried value can stay in its buffer; tells how many.
fn copy_where_needed(module: &mut Module, f: usize, called: bool) -> Result<usize, PassError> {
    let mut taken: Vec<String> = module
        .funcs
        .iter()
        .flat_map(|f| f.kernels.iter().map(|k| k.name.clone()))
        .collect();
    let mut copies = 0;
    let func = &mut module.funcs[f];
    // Copies move the instructions behind them: decide again after each.
    while let Some((at, v)) = repeat_without_buffer(func, called)? {
        let copy = insert_copy(func, at, v, &mut taken)?;
        if let Some(o) = func.body[at + 1].operands.first_mut() {
            *o = Operand::Value(copy);
        }
        copies += 1;
    }
    if called && !Storage::of(func, true)?.is_home(func) {
        let Some(&(_, result)) = func.results.first() else {
            return Ok(copies);
        };
        let copy = insert_copy(func, func.body.len(), result, &mut taken)?;
        if let Some((_, r)) = func.results.first_mut() {
            *r = copy;
        }
        copies += 1;
        if !Storage::of(func, true)?.is_home(func) {
            let what = "the result cannot be put where the carried value was";
            return Err(PassError::unsupported(&func.name, what));
        }
    }
    if copies > 0 {
        crate::edit::renumber(func);
    }
    Ok(copies)
}

/// A `repeat` whose carried value is needed afterwards, or has no buffer of its own.
fn repeat_without_buffer(func: &Func, called: bool) -> Result<Option<(usize, ValueId)>, PassError> {
    let storage = Storage::of(func, called)?;
    for (i, inst) in func.body.iter().enumerate() {
        let (Op::Repeat(_), Some(Operand::Value(x))) = (&inst.op, inst.operands.first()) else {
            continue;
        };
        let result = inst.results.first().and_then(|r| storage.slices[r.index()]);
        let Some(slice) = storage.slices[x.index()] else {
            let what = format!("%{} is carried, but has no memory", func.value(*x).name);
            return Err(PassError::unsupported(&func.name, what));
        };
        let root = func.value(storage.buffers[slice.buffer].root);
        let whole = root
            .place
            .as_ref()
            .is_some_and(|p| p.layout.width() == slice.width);
        if result != Some(slice) || slice.column != 0 || !whole {
            return Ok(Some((i, *x)));
        }
    }
    Ok(None)
}

/// Inserts a copy of `v` before instruction `at`, in a kernel of its own.
fn insert_copy(
    func: &mut Func,
    at: usize,
    v: ValueId,
    taken: &mut Vec<String>,
) -> Result<ValueId, PassError> {
    let hint = format!("{}.copy", func.value(v).name);
    let copy = func.new_value(&hint, func.ty(v).clone());
    func.values[copy.index()].place = func.value(v).place.clone();
    if func.value(copy).place.is_none() {
        let what = format!("%{} has no memory to copy", func.value(v).name);
        return Err(PassError::unsupported(&func.name, what));
    }
    let inst = Inst {
        op: Scale { factor: 1.0 }.into(),
        operands: vec![v.into()],
        results: vec![copy],
    };
    // Behind the last kernel that ends before `at`.
    let (mut before, mut start) = (0, 0);
    for k in &func.kernels {
        if start + k.len as usize > at {
            break;
        }
        start += k.len as usize;
        before += 1;
    }
    if !crate::edit::defined_before(func, v, start) {
        let what = format!(
            "%{} is carried on in the kernel that makes it",
            func.value(v).name
        );
        return Err(PassError::unsupported(&func.name, what));
    }
    func.body.insert(start, inst);
    let name = unique(taken, format!("{}.copy", func.name));
    func.kernels.insert(before, Kernel { name, len: 1 });
    Ok(copy)
}

/// Bytes of a value's rows, all of them.
fn bytes(module: &Module, func: &Func, v: ValueId) -> u64 {
    let value = func.value(v);
    let (Some(t), Some(place)) = (value.ty.tensor(), &value.place) else {
        return 0;
    };
    let rows = match t.dims.first() {
        Some(Dim::Sym(s)) => module.dims_of(func).bound(*s),
        Some(Dim::Fixed(n)) => *n,
        None => 1,
    };
    u64::from(rows) * u64::from(place.stride) * 4
}

/// The life of every buffer of a function, parameters' excluded unless `all`.
fn blocks(module: &Module, func: &Func, storage: &Storage, all: bool) -> Vec<Option<Block>> {
    let end = func.kernels.len().saturating_sub(1);
    let mut blocks: Vec<Option<Block>> = vec![None; storage.buffers.len()];
    let mut touch = |v: ValueId, kernel: usize| {
        let Some(slice) = storage.slices[v.index()] else {
            return;
        };
        let buffer = storage.buffers[slice.buffer];
        if buffer.param.is_some() && !all {
            return;
        }
        let block = blocks[slice.buffer].get_or_insert(Block {
            bytes: bytes(module, func, buffer.root),
            first: kernel,
            last: kernel,
        });
        block.first = block.first.min(kernel);
        block.last = block.last.max(kernel);
    };
    for p in &func.params {
        touch(*p, 0);
        touch(*p, end);
    }
    for (i, inst) in func.body.iter().enumerate() {
        let kernel = storage.kernel_of[i];
        operands::values(&inst.operands).for_each(|v| touch(v, kernel));
        inst.results.iter().for_each(|r| touch(*r, kernel));
    }
    for (_, v) in &func.results {
        touch(*v, end);
    }
    blocks
}

/// Places a function that nobody repeats, and the `layers` that it repeats; tells where memory ends.
fn plan(module: &mut Module, f: usize, layers: &[usize]) -> Result<u64, PassError> {
    let mut locals = Vec::with_capacity(layers.len());
    for &class in layers {
        let func = &module.funcs[class];
        let storage = Storage::of(func, true)?;
        let own = blocks(module, func, &storage, false);
        let (at, bytes) = place_all(func, &own)?;
        locals.push((class, storage, at, bytes));
    }
    let func = &module.funcs[f];
    let storage = Storage::of(func, false)?;
    let mut wanted = blocks(module, func, &storage, true);
    // The region of the layers' own buffers is one more block, in use during all repeats.
    let repeats = || (0..func.body.len()).filter(|&i| matches!(func.body[i].op, Op::Repeat(_)));
    let region = wanted.len();
    wanted.push(match (repeats().next(), repeats().next_back()) {
        (Some(first), Some(last)) => Some(Block {
            bytes: locals.iter().map(|(.., bytes)| *bytes).max().unwrap_or(0),
            first: storage.kernel_of[first],
            last: storage.kernel_of[last],
        }),
        _ => None,
    });
    let (at, end) = place_all(func, &wanted)?;

    let mut arguments: Vec<(usize, Arguments)> = Vec::new();
    for inst in &func.body {
        let Op::Repeat(op) = &inst.op else {
            continue;
        };
        let given: Arguments = inst
            .operands
            .iter()
            .map(|o| match o {
                Operand::Value(v) => storage.slices[v.index()],
                Operand::Weight(_) | Operand::State(_) => None,
            })
            .collect();
        for (class, ..) in &locals {
            if op
                .layers
                .iter()
                .any(|(name, _)| *name == module.funcs[*class].name)
            {
                arguments.push((*class, given.clone()));
            }
        }
    }
    let strides = strides(func, &storage);
    for (class, own, local, _) in &locals {
        let given = arguments.iter().find(|(c, _)| c == class).map(|(_, a)| a);
        let own_strides = self::strides(&module.funcs[*class], own);
        let address = |buffer: usize| match own.buffers[buffer].param {
            None => Some((at[region] + local[buffer], own_strides[buffer])),
            Some(p) => {
                let slice = given.and_then(|a| a.get(p).copied().flatten())?;
                let address = at[slice.buffer] + u64::from(slice.column) * 4;
                Some((address, strides[slice.buffer]))
            }
        };
        assign(&mut module.funcs[*class], own, address);
    }
    assign(&mut module.funcs[f], &storage, |buffer| {
        Some((at[buffer], strides[buffer]))
    });
    Ok(end)
}

/// Addresses of the blocks that there are.
fn place_all(func: &Func, wanted: &[Option<Block>]) -> Result<(Vec<u64>, u64), PassError> {
    let sum: u128 = wanted.iter().flatten().map(|b| u128::from(b.bytes)).sum();
    if sum > MAX_ARENA {
        let what = format!("the values take up to {sum} bytes");
        return Err(PassError::unsupported(&func.name, what));
    }
    let mut order: Vec<usize> = (0..wanted.len()).filter(|&i| wanted[i].is_some()).collect();
    order.sort_by_key(|&i| wanted[i].map_or(0, |b| b.first));
    let blocks: Vec<Block> = order.iter().filter_map(|&i| wanted[i]).collect();
    let (found, end) = place(&blocks);
    let mut at = vec![0; wanted.len()];
    for (i, address) in order.into_iter().zip(found) {
        at[i] = address;
    }
    Ok((at, end))
}

/// The stride of every buffer.
fn strides(func: &Func, storage: &Storage) -> Vec<u32> {
    let stride = |v: ValueId| func.value(v).place.as_ref().map_or(0, |p| p.stride);
    storage.buffers.iter().map(|b| stride(b.root)).collect()
}

/// Writes every value's place, where `address` tells a buffer's first byte and stride; a value whose
/// buffer has no address has none.
fn assign(func: &mut Func, storage: &Storage, address: impl Fn(usize) -> Option<(u64, u32)>) {
    for (value, slice) in func.values.iter_mut().zip(&storage.slices) {
        let at = slice.and_then(|s| Some((s, address(s.buffer)?)));
        value.place = value
            .place
            .take()
            .zip(at)
            .map(|(mut place, (s, (at, stride)))| {
                place.at = at + u64::from(s.column) * 4;
                place.stride = stride;
                place
            });
    }
}
