//! The verifier: every rule that a module keeps, before and after every pass. Module → violations.
//!
//! | | invariant |
//! |---|---|
//! | V1 | Names are unique: weights and states together, functions, values of a function, results of a function, kernels. |
//! | V2 | Every id is in range. |
//! | V3 | Every value is defined once, by a parameter or an instruction, before it is read or returned. |
//! | V4 | Operands are what the op expects, results of the types that it infers; a linear multiplies element types that go together. |
//! | V5 | Attributes are finite; masks join two terms or more, windows and tiles hold at least one element; a source's keys stand in no order: no mask, no bias. |
//! | V6 | `repeat` stands in an entry; its classes exist, are no other entry's, take its operands and return the carried value alone. |
//! | V7 | What has slots is used by one layer class, not by an entry, and has every slot that `repeat` lists; other classes may read a state with `kv_source`. |
//! | V8 | There is an entry; each takes `ids`, `pos`, `types`, the step and rows of floats, and returns tensors. |
//! | V9 | Bounds of extents are at least 1 (`R`: 0) and at most 2^24; an entry that exists has them once. |
//! | V10 | Values' extents are at least 1; there are four at most, and fewer than 2^40 elements (values: 2^24 a row); values are f32, i32, or what `quantize` makes: rows of whole blocks. |
//! | V11 | Weights have fixed extents, floats or whole blocks, and sources whose rows make them up; only stacks name `{layer}`. |
//! | V12 | States hold floats or whole blocks of q8_0, and each slot is appended to at most once a step, with one `kv_append`; what `kv_source` reads has no window, and another entry appends it. |
//! | V13 | The stage's legality (see [`crate::stage`]). |
//! | V14 | Kernels, where there are any, partition the function's body. |
//! | V15 | Planned values have places inside of the arena, whose layouts and strides fit. |
//! | V16 | Planned memory is not overwritten while somebody needs it. |
//! | V17 | Packs fit their weights, blocks in plain rows; planned weights that are used have one. |
//!
//! [`verify`] returns every violation, in the order of weights, states, functions. V14–V17 are looked at
//! once the rest holds. Nothing panics, whatever the module. Deliberately not here: values of weights
//! (the evaluator and the packer compare the checkpoint's extents).

mod func;
mod globals;
mod memory;
mod planned;
mod repeat;

#[cfg(test)]
mod tests;

use crate::{Func, Inst, Module, print::inst_text, stage};
use std::fmt;

/// One broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// `V1`, `V2`, …
    pub code: &'static str,
    /// The function, where it is in one.
    pub func: Option<String>,
    /// The text of the instruction, where it is at one.
    pub inst: Option<String>,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(func) = &self.func {
            write!(f, "@{func}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.inst {
            Some(inst) => write!(f, "\n  in: {inst}"),
            None => Ok(()),
        }
    }
}

/// Every invariant that `module` breaks; empty for a legal module.
pub fn verify(module: &Module) -> Vec<Violation> {
    let mut found = Found {
        module,
        list: Vec::new(),
    };
    globals::check(&mut found);
    for func in &module.funcs {
        func::check(&mut found, func);
    }
    if found.list.is_empty() {
        repeat::check(&mut found);
        stage::check(&mut found);
    }
    if found.list.is_empty() {
        planned::check(&mut found);
    }
    if found.list.is_empty() {
        memory::check(&mut found);
    }
    found.list
}

/// Collects violations.
pub(crate) struct Found<'m> {
    pub module: &'m Module,
    list: Vec<Violation>,
}

impl<'m> Found<'m> {
    /// One that is in no function.
    pub fn global(&mut self, code: &'static str, message: impl Into<String>) {
        self.list.push(Violation {
            code,
            func: None,
            inst: None,
            message: message.into(),
        });
    }

    /// One in a function.
    pub fn func(&mut self, code: &'static str, func: &Func, message: impl Into<String>) {
        let func = Some(func.name.clone());
        self.list.push(Violation {
            code,
            func,
            inst: None,
            message: message.into(),
        });
    }

    /// One at an instruction.
    pub fn inst(
        &mut self,
        code: &'static str,
        func: &Func,
        inst: &Inst,
        message: impl Into<String>,
    ) {
        self.list.push(Violation {
            code,
            func: Some(func.name.clone()),
            inst: Some(inst_text(self.module, func, inst)),
            message: message.into(),
        });
    }

    /// Notes every name that comes a second time; `what` says of what.
    pub fn unique<'a>(
        &mut self,
        func: Option<&Func>,
        what: &str,
        names: impl Iterator<Item = &'a str>,
    ) {
        let mut seen = indexmap::IndexSet::new();
        for name in names {
            if !seen.insert(name) {
                let message = format!("two {what} are called `{name}`");
                match func {
                    Some(func) => self.func("V1", func, message),
                    None => self.global("V1", message),
                }
            }
        }
    }
}
