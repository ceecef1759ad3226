//! Reads the text form of a module (see [`crate::print`] for its syntax). Text → [`Module`].
//!
//! Names are resolved here: weights and states stand above the functions that use them, values above
//! the instructions that read them. A result's type may be left out; it is inferred then. The first
//! error ends reading; it tells line, column and what was expected.
//!
//! Invariants: no text makes the parser panic; memory is in proportion to the text; nesting is
//! bounded. Deliberately not here: legality (`verify`): what parses may still be wrong.

mod attrs;
mod cursor;
mod func;
mod lexer;
mod types;

use crate::{Dims, Module, Operand, Stage, Sym, Weight};
use cursor::{Cursor, error_at};
use indexmap::{IndexMap, IndexSet, map::Entry};
use lexer::{Pos, Tok};

/// Why a text is no module.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    pub message: String,
}

/// Texts longer than this are refused: layers are rolled, so that no module comes near it.
pub const MAX_TEXT: usize = 8 << 20;

/// Reads a module.
pub fn parse(text: &str) -> Result<Module, ParseError> {
    if text.len() > MAX_TEXT {
        return error_at(Pos { line: 1, column: 1 }, "the text is longer than 8 MB");
    }
    let mut c = Cursor::new(lexer::tokens(text)?);
    let mut module = header(&mut c)?;
    let mut globals = Globals::default();
    loop {
        let pos = c.pos();
        if c.eat_word("weight") {
            let weight = weight(&mut c)?;
            let name = weight.name.clone();
            let id = module.add_weight(weight);
            globals.add(pos, name, Operand::Weight(id))?;
        } else if c.eat_word("state") {
            let state = types::state(&mut c)?;
            let name = state.name.clone();
            let id = module.add_state(state);
            globals.add(pos, name, Operand::State(id))?;
        } else if c.eat_word("func") {
            let name_pos = c.pos();
            let func = func::func(&mut c, &module, &globals)?;
            if !globals.funcs.insert(func.name.clone()) {
                return error_at(
                    name_pos,
                    format!("function `@{}` is defined twice", func.name),
                );
            }
            module.funcs.push(func);
        } else if *c.peek() == Tok::End {
            return Ok(module);
        } else {
            return c.expected("`weight`, `state` or `func`");
        }
    }
}

/// `module "name" {stage = model}`, `dims …`, and `arena …` where there is one.
fn header(c: &mut Cursor) -> Result<Module, ParseError> {
    c.keyword("module")?;
    let name = c.string("the module's name")?;
    c.sign('{')?;
    c.keyword("stage")?;
    c.sign('=')?;
    let pos = c.pos();
    let stage = match Stage::from_name(&c.word("a stage")?) {
        Some(stage) => stage,
        None => return error_at(pos, "expected a stage: model, fused or planned"),
    };
    c.sign('}')?;
    c.keyword("dims")?;
    let mut module = Module::new(name, dims(c)?);
    module.stage = stage;
    while c.eat_word("dims") {
        let pos = c.pos();
        let name = c.global("an entry")?;
        let Some(entry) = crate::Entry::from_name(&name) else {
            let all = crate::Entry::ALL.map(crate::Entry::name).join(", ");
            return error_at(pos, format!("expected an entry: {all}"));
        };
        let dims = dims(c)?;
        module.entry_dims.push((entry, dims));
    }
    if c.eat_word("arena") {
        module.arena_bytes = Some(c.int("a size in bytes")?);
    }
    Ok(module)
}

/// Behind `dims`: `N: 1..=512, …`.
fn dims(c: &mut Cursor) -> Result<Dims, ParseError> {
    let mut bounds = [0; Sym::ALL.len()];
    for (i, sym) in Sym::ALL.into_iter().enumerate() {
        if i > 0 {
            c.sign(',')?;
        }
        c.keyword(sym.name())?;
        c.sign(':')?;
        let pos = c.pos();
        if c.int::<u32>("the least value")? != sym.lower_bound() {
            return error_at(
                pos,
                format!("{} starts at {}", sym.name(), sym.lower_bound()),
            );
        }
        if *c.peek() != Tok::RangeTo {
            return c.expected("`..=`");
        }
        c.bump();
        bounds[i] = c.int("the greatest value")?;
    }
    let [n, r, b, t] = bounds;
    Ok(Dims { n, r, b, t })
}

/// Behind `weight`: `@name[slots] : type from source pack …`.
fn weight(c: &mut Cursor) -> Result<Weight, ParseError> {
    let name = c.global("the weight's name")?;
    let slots = types::slots(c)?;
    c.sign(':')?;
    let ty = types::tensor_type(c)?;
    c.keyword("from")?;
    let source = types::source(c)?;
    let pack = if c.eat_word("pack") {
        Some(types::pack(c)?)
    } else {
        None
    };
    Ok(Weight {
        name,
        slots,
        ty,
        source,
        pack,
    })
}

/// Weights and states by name, and the names of functions.
#[derive(Default)]
struct Globals {
    operands: IndexMap<String, Operand>,
    funcs: IndexSet<String>,
}

impl Globals {
    fn add(&mut self, pos: Pos, name: String, id: Operand) -> Result<(), ParseError> {
        match self.operands.entry(name) {
            Entry::Occupied(e) => error_at(pos, format!("`@{}` is defined twice", e.key())),
            Entry::Vacant(e) => {
                e.insert(id);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
