//! Layers: `repeat`, its classes, their slots and states (V6, V7, V12). The functions hold by
//! themselves.

use super::Found;
use crate::{Entry, Func, Inst, Op, Operand, State, StateId, Type, ops::Repeat};
use indexmap::IndexMap;

/// How often `repeat` runs each slot of each class.
type Runs<'m> = IndexMap<&'m str, IndexMap<u32, u32>>;

pub(super) fn check(found: &mut Found<'_>) {
    let module = found.module;
    let mut runs = Runs::new();
    for func in &module.funcs {
        for inst in &func.body {
            if let Op::Repeat(repeat) = &inst.op {
                if func.entry().is_some() {
                    classes(found, func, inst, repeat);
                } else {
                    found.inst("V6", func, inst, "only an entry repeats");
                }
                for (class, slot) in &repeat.layers {
                    *runs.entry(class).or_default().entry(*slot).or_default() += 1;
                }
            }
        }
    }
    for (i, w) in module.weights.iter().enumerate() {
        slots(
            found,
            &runs,
            Operand::Weight(crate::WeightId(i as u32)),
            &w.name,
            w.slots,
        );
    }
    for (i, s) in module.states.iter().enumerate() {
        slots(
            found,
            &runs,
            Operand::State(crate::StateId(i as u32)),
            &s.name,
            s.slots,
        );
    }
    appends(found, &runs);
}

/// V6 of one `repeat`.
fn classes(found: &mut Found<'_>, func: &Func, inst: &Inst, repeat: &Repeat) {
    let operand = |o: &Operand| match o {
        Operand::Value(v) => Some(func.ty(*v)),
        Operand::Weight(_) | Operand::State(_) => None,
    };
    let operands: Option<Vec<&Type>> = inst.operands.iter().map(operand).collect();
    let Some(operands) = operands else {
        return found.inst("V6", func, inst, "repeat carries values alone");
    };
    let mut seen: Vec<&str> = Vec::new();
    for (name, _) in &repeat.layers {
        if seen.contains(&name.as_str()) {
            continue;
        }
        seen.push(name);
        let class = found
            .module
            .funcs
            .iter()
            .find(|f| f.name == *name && f.entry().is_none());
        let Some(class) = class else {
            found.inst("V6", func, inst, format!("there is no layer class @{name}"));
            continue;
        };
        let owner = found.module.entry_of(class);
        if let Some(owner) = owner.filter(|o| func.entry() != Some(*o)) {
            let message = format!("@{name} is a layer of @{} too", owner.name());
            found.inst("V6", func, inst, message);
        }
        let params: Vec<&Type> = class.params.iter().map(|&p| class.ty(p)).collect();
        if params != operands {
            let list: Vec<String> = params.iter().map(|t| t.to_string()).collect();
            found.inst(
                "V6",
                func,
                inst,
                format!("@{name} takes {}", list.join(", ")),
            );
        }
        let results: Vec<&Type> = class.results.iter().map(|(_, v)| class.ty(*v)).collect();
        if results != operands[..1] {
            let list: Vec<String> = results.iter().map(|t| t.to_string()).collect();
            let message = format!(
                "@{name} returns {}, expected {}",
                list.join(", "),
                operands[0]
            );
            found.inst("V6", func, inst, message);
        }
    }
}

/// V7 of one weight or state.
fn slots(found: &mut Found<'_>, runs: &Runs<'_>, id: Operand, name: &str, slots: Option<u32>) {
    let Some(slots) = slots else {
        return;
    };
    let module = found.module;
    let uses = |f: &&Func| f.body.iter().any(|i| i.operands.contains(&id));
    let users: Vec<&Func> = module.funcs.iter().filter(uses).collect();
    if let Some(user) = users.iter().find(|f| f.entry().is_some()) {
        let message = format!("@{name} has slots, but the entry @{} uses it", user.name);
        found.global("V7", message);
    }
    let owns = |f: &&&Func| {
        let own = |i: &Inst| !matches!(i.op, Op::KvSource(_)) && i.operands.contains(&id);
        f.body.iter().any(own)
    };
    let owners: Vec<String> = users
        .iter()
        .filter(owns)
        .map(|f| format!("@{}", f.name))
        .collect();
    if owners.len() > 1 {
        let list = owners.join(", ");
        found.global("V7", format!("@{name} has slots, but {list} use it"));
    }
    for user in users {
        let listed = runs.get(user.name.as_str()).into_iter().flatten();
        for (&slot, _) in listed.filter(|(slot, _)| **slot >= slots) {
            found.global(
                "V7",
                format!(
                    "@{name} has {slots} slots, layers of @{} use slot {slot}",
                    user.name
                ),
            );
        }
    }
}

/// V12 of a state that `kv_source` reads: another entry writes it.
fn source(found: &mut Found<'_>, id: StateId, state: &State) {
    let module = found.module;
    let entries = |append: bool| -> Vec<Option<Entry>> {
        let of = |f: &&Func| {
            let uses = |i: &Inst| {
                matches!(i.op, Op::KvSource(_)) != append
                    && i.operands.contains(&Operand::State(id))
            };
            f.body.iter().any(uses)
        };
        let users = module.funcs.iter().filter(of);
        users.map(|f| module.entry_of(f)).collect()
    };
    let (readers, writers) = (entries(false), entries(true));
    if readers.is_empty() {
        return;
    }
    let name = &state.name;
    if writers.is_empty() || writers.iter().any(|w| readers.contains(w)) {
        let message = format!("@{name} is a source's: another entry has to write it");
        found.global("V12", message);
    }
    if state.window.is_some() {
        found.global("V12", format!("@{name} is a source's, and has a window"));
    }
}

/// V12: one append to each slot of a state.
fn appends(found: &mut Found<'_>, runs: &Runs<'_>) {
    let module = found.module;
    for (i, state) in module.states.iter().enumerate() {
        let id = Operand::State(crate::StateId(i as u32));
        source(found, StateId(i as u32), state);
        let appends = |i: &&Inst| !matches!(i.op, Op::KvSource(_)) && i.operands.contains(&id);
        let of = |f: &Func| f.body.iter().filter(appends).count() as u64;
        let mut total = 0u64;
        let mut most = 0u64;
        for func in &module.funcs {
            let here = of(func);
            let times = runs.get(func.name.as_str());
            let all: u64 = match times {
                None => u64::from(func.entry().is_some()),
                Some(slots) => slots.values().map(|&n| u64::from(n)).sum(),
            };
            total += here * all;
            let worst = times
                .into_iter()
                .flat_map(|s| s.values())
                .max()
                .copied()
                .unwrap_or(0);
            most = most.max(here * u64::from(worst));
        }
        let appends = if state.slots.is_some() { most } else { total };
        if appends > 1 {
            let slot = if state.slots.is_some() {
                "one slot of "
            } else {
                ""
            };
            found.global(
                "V12",
                format!("{appends} appends a step to {slot}@{}", state.name),
            );
        }
    }
}
