//! Edits of a function that several passes make.
//!
//! Invariant: after [`renumber`] values stand in the order in which they are defined, and there are
//! no others; that is the order in which they come back from the text form.

use llmc_ir::{Func, Inst, Module, Operand, ValueId, WeightId};

/// The instruction that alone reads `v`, once; None where there are other uses or it is returned.
pub fn only_user(func: &Func, v: ValueId) -> Option<usize> {
    let mut uses = func.body.iter().enumerate().flat_map(|(i, inst)| {
        let n = inst.operands.iter().filter(|o| **o == Operand::Value(v));
        n.map(move |_| i)
    });
    match (uses.next(), uses.next()) {
        (Some(i), None) if !func.returns(v) => Some(i),
        _ => None,
    }
}

/// How often the module's instructions read `w`.
pub fn weight_uses(module: &Module, w: WeightId) -> usize {
    let insts = module.funcs.iter().flat_map(|f| &f.body);
    insts
        .flat_map(|i| &i.operands)
        .filter(|o| **o == Operand::Weight(w))
        .count()
}

/// Removes the instructions at `indices`.
pub fn remove(func: &mut Func, indices: &[usize]) {
    let mut i = 0;
    func.body.retain(|_| {
        i += 1;
        !indices.contains(&(i - 1))
    });
}

/// The value's name.
pub fn name(func: &Func, v: ValueId) -> &str {
    &func.value(v).name
}

/// Drops values that nothing defines and numbers the others in the order of their definition.
pub fn renumber(func: &mut Func) {
    let mut order: Vec<ValueId> = func.params.clone();
    order.extend(func.body.iter().flat_map(|i| i.results.iter().copied()));
    let mut new = vec![None; func.values.len()];
    for (i, v) in order.iter().enumerate() {
        new[v.index()] = Some(ValueId(i as u32));
    }
    func.values = order.iter().map(|v| func.value(*v).clone()).collect();
    let map = |v: &mut ValueId| {
        if let Some(n) = new[v.index()] {
            *v = n;
        }
    };
    func.params.iter_mut().for_each(map);
    for Inst {
        operands, results, ..
    } in &mut func.body
    {
        results.iter_mut().for_each(map);
        for o in operands {
            if let Operand::Value(v) = o {
                map(v);
            }
        }
    }
    func.results.iter_mut().for_each(|(_, v)| map(v));
}

/// Whether `v` is a parameter or defined before instruction `at`.
pub fn defined_before(func: &Func, v: ValueId, at: usize) -> bool {
    func.params.contains(&v) || func.def(v).is_some_and(|d| d < at)
}
