//! Splits a layer class: layers that are to differ get functions of their own.
//!
//! in: a class and a partition of its slots → out: a class for each part. The first keeps the name, the
//! others are `name.1`, `name.2`, …; weights and states that are stacked by slot are split along, those
//! that all layers share stay shared; `repeat` lists the new classes and slots.
//!
//! Deliberately not here: why layers differ (`quantize-weights`).

use std::collections::BTreeMap;

use llmc_ir::{Module, Op, Operand, StateId, WeightId};

/// What stands for a weight or state in a part.
pub type Copies = BTreeMap<(Operand, usize), Operand>;

/// Splits the function at `class` by `parts`, each of which lists slots; together they list every
/// slot once. Tells the indices of the classes, in the order of the parts.
///
/// `copies` is kept from class to class where several share states: those are copied once a part.
pub fn split_class(
    module: &mut Module,
    class: usize,
    parts: &[Vec<u32>],
    copies: &mut Copies,
) -> Vec<usize> {
    let name = module.funcs[class].name.clone();
    let names: Vec<String> = (0..parts.len())
        .map(|p| part_name(module, &name, p, parts.len()))
        .collect();
    let stacked = stacked_operands(module, class);
    for (p, (part, new_name)) in parts.iter().zip(&names).enumerate().skip(1) {
        let mut func = module.funcs[class].clone();
        func.name.clone_from(new_name);
        for &operand in &stacked {
            let new = match copies.get(&(operand, p)) {
                Some(&new) => new,
                None => copy(module, operand, (&name, new_name), part.len() as u32),
            };
            copies.insert((operand, p), new);
            for inst in &mut func.body {
                for o in inst.operands.iter_mut().filter(|o| **o == operand) {
                    *o = new;
                }
            }
        }
        let at = class + names.iter().position(|n| n == new_name).unwrap_or(0);
        module.funcs.insert(at, func);
    }
    if let Some(first) = parts.first() {
        let slots = Some(first.len() as u32);
        for &operand in &stacked {
            match operand {
                Operand::Weight(w) => module.weights[w.index()].slots = slots,
                Operand::State(s) => module.states[s.index()].slots = slots,
                Operand::Value(_) => {}
            }
        }
    }
    let place = |slot: u32| {
        let find = |(p, part): (usize, &Vec<u32>)| {
            let at = part.iter().position(|s| *s == slot)?;
            Some((names[p].clone(), at as u32))
        };
        parts.iter().enumerate().find_map(find)
    };
    for inst in module.funcs.iter_mut().flat_map(|f| &mut f.body) {
        if let Op::Repeat(repeat) = &mut inst.op {
            for layer in repeat.layers.iter_mut().filter(|(class, _)| *class == name) {
                if let Some(new) = place(layer.1) {
                    *layer = new;
                }
            }
        }
    }
    (class..class + parts.len()).collect()
}

/// The class's own name for the first of `parts`; for others one that nothing has yet.
fn part_name(module: &Module, class: &str, part: usize, parts: usize) -> String {
    let taken = |name: &str| {
        let prefix = format!("{name}.");
        let weights = module.weights.iter().map(|w| &w.name);
        let mut named = weights.chain(module.states.iter().map(|s| &s.name));
        named.any(|n| n.starts_with(&prefix)) || module.funcs.iter().any(|f| f.name == name)
    };
    if part == 0 {
        return class.to_string();
    }
    // Steps of as many as there are parts: no two come to the same name.
    let mut names = (part..).step_by(parts).map(|n| format!("{class}.{n}"));
    names.find(|n| !taken(n)).unwrap_or_default()
}

/// Weights and states of the class that are stacked by slot, in the order of their first use.
pub fn stacked_operands(module: &Module, class: usize) -> Vec<Operand> {
    let mut found = Vec::new();
    for o in module.funcs[class].body.iter().flat_map(|i| &i.operands) {
        let stacked = match o {
            Operand::Value(_) => false,
            Operand::Weight(w) => module.weights[w.index()].slots.is_some(),
            Operand::State(s) => module.states[s.index()].slots.is_some(),
        };
        if stacked && !found.contains(o) {
            found.push(*o);
        }
    }
    found
}

/// A copy of a weight or state with as many slots, named after the class that it belongs to.
fn copy(module: &mut Module, operand: Operand, (class, new): (&str, &str), slots: u32) -> Operand {
    let slots = Some(slots);
    let renamed = |name: &str| match name.strip_prefix(class) {
        Some(rest) if rest.starts_with('.') => format!("{new}{rest}"),
        _ => format!("{new}.{name}"),
    };
    match operand {
        Operand::Weight(w) => {
            let mut weight = module.weights[w.index()].clone();
            weight.name = renamed(&weight.name);
            weight.slots = slots;
            let id: WeightId = module.add_weight(weight);
            id.into()
        }
        Operand::State(s) => {
            let mut state = module.states[s.index()].clone();
            state.name = renamed(&state.name);
            state.slots = slots;
            let id: StateId = module.add_state(state);
            id.into()
        }
        Operand::Value(_) => operand,
    }
}
