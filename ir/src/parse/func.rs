//! Functions: parameters, instructions in or out of kernels, results. Tokens → [`Func`].

use super::{
    Globals, ParseError, attrs,
    cursor::{Cursor, error_at},
    lexer::Tok,
    types,
};
use crate::{
    Func, Inst, Kernel, Module, Op, Operand, OperandType, Type, Value, ValueId, attr::Attrs,
    builder::operand_types,
};
use indexmap::{IndexMap, map::Entry};

/// A function while it is read.
struct Reader<'a> {
    module: &'a Module,
    globals: &'a Globals,
    func: Func,
    values: IndexMap<String, ValueId>,
}

/// Behind `func`: `@name(params) { … }`.
pub(super) fn func(c: &mut Cursor, module: &Module, globals: &Globals) -> Result<Func, ParseError> {
    let name = c.global("the function's name")?;
    let func = Func {
        name,
        ..Func::default()
    };
    let mut r = Reader {
        module,
        globals,
        func,
        values: IndexMap::new(),
    };
    c.sign('(')?;
    while !c.is_sign(')') {
        let pos = c.pos();
        let name = c.value("a parameter")?;
        c.sign(':')?;
        let ty = types::value_type(c)?;
        let id = r.define(pos, name, ty)?;
        r.func.values[id.index()].place = types::place(c)?;
        r.func.params.push(id);
        if !c.eat(',') {
            break;
        }
    }
    c.sign(')')?;
    c.sign('{')?;
    r.body(c)?;
    c.sign('}')?;
    Ok(r.func)
}

impl Reader<'_> {
    fn define(
        &mut self,
        pos: super::lexer::Pos,
        name: String,
        ty: Type,
    ) -> Result<ValueId, ParseError> {
        let id = ValueId(self.func.values.len() as u32);
        match self.values.entry(name) {
            Entry::Occupied(e) => error_at(pos, format!("`%{}` is defined twice", e.key())),
            Entry::Vacant(e) => {
                self.func.values.push(Value {
                    name: e.key().clone(),
                    ty,
                    place: None,
                });
                e.insert(id);
                Ok(id)
            }
        }
    }

    fn value(&self, c: &mut Cursor) -> Result<ValueId, ParseError> {
        let pos = c.pos();
        let name = c.value("a value")?;
        match self.values.get(&name) {
            Some(&id) => Ok(id),
            None => error_at(pos, format!("`%{name}` is not defined above")),
        }
    }

    /// Up to the closing brace.
    fn body(&mut self, c: &mut Cursor) -> Result<(), ParseError> {
        let mut in_kernels = 0;
        loop {
            let pos = c.pos();
            if c.eat_word("kernel") {
                if self.func.body.len() != in_kernels {
                    return error_at(pos, "the instructions above are in no kernel");
                }
                let name = c.global("the kernel's name")?;
                c.sign('{')?;
                while !c.is_sign('}') {
                    self.inst(c)?;
                }
                c.bump();
                let len = (self.func.body.len() - in_kernels) as u32;
                self.func.kernels.push(Kernel { name, len });
                in_kernels = self.func.body.len();
            } else if c.eat_word("return") {
                return self.results(c);
            } else {
                self.inst(c)?;
            }
        }
    }

    /// `name = %value, …`
    fn results(&mut self, c: &mut Cursor) -> Result<(), ParseError> {
        while !c.is_sign('}') {
            let name = match c.peek() {
                Tok::Str(_) => c.string("a result's name")?,
                _ => c.word("a result's name")?,
            };
            c.sign('=')?;
            let id = self.value(c)?;
            self.func.results.push((name, id));
            if !c.eat(',') {
                break;
            }
        }
        Ok(())
    }

    /// `%a, %b = op %x, @w {attrs} : types`
    fn inst(&mut self, c: &mut Cursor) -> Result<(), ParseError> {
        let mut names = Vec::new();
        while matches!(c.peek(), Tok::Value(_)) {
            names.push((c.pos(), c.value("a result")?));
            if !c.eat(',') {
                break;
            }
        }
        if !names.is_empty() {
            c.sign('=')?;
        }
        let pos = c.pos();
        let op = c.word(if names.is_empty() {
            "an instruction, `kernel` or `return`"
        } else {
            "an op"
        })?;
        let operands = self.operands(c)?;
        let mut attrs = Attrs::new();
        if c.eat('{') {
            attrs = attrs::attr_list(c, '}')?;
            c.sign('}')?;
        }
        let op = match Op::from_attrs(&op, attrs) {
            Ok(op) => op,
            Err(message) => return error_at(pos, message),
        };
        let mut types = Vec::new();
        if names.is_empty() {
        } else if c.eat(':') {
            loop {
                types.push((types::value_type(c)?, types::place(c)?));
                if !c.eat(',') {
                    break;
                }
            }
        } else {
            let operands: Vec<OperandType> = operand_types(self.module, &self.func, &operands);
            match op.infer(&operands) {
                Ok(inferred) => types.extend(inferred.into_iter().map(|t| (t, None))),
                Err(message) => return error_at(pos, format!("{}: {message}", op.name())),
            }
        }
        if types.len() != names.len() {
            let (n, t) = (names.len(), types.len());
            return error_at(pos, format!("{n} results with {t} types"));
        }
        let mut results = Vec::with_capacity(names.len());
        for ((pos, name), (ty, place)) in names.into_iter().zip(types) {
            let id = self.define(pos, name, ty)?;
            self.func.values[id.index()].place = place;
            results.push(id);
        }
        self.func.body.push(Inst {
            op,
            operands,
            results,
        });
        Ok(())
    }

    fn operands(&self, c: &mut Cursor) -> Result<Vec<Operand>, ParseError> {
        let mut operands = Vec::new();
        loop {
            let pos = c.pos();
            match c.peek() {
                Tok::Value(_) => operands.push(Operand::Value(self.value(c)?)),
                Tok::Global(_) => {
                    let name = c.global("a weight or state")?;
                    match self.globals.operands.get(&name) {
                        Some(&o) => operands.push(o),
                        None => return error_at(pos, format!("`@{name}` is not defined above")),
                    }
                }
                _ if operands.is_empty() => return Ok(operands),
                _ => return c.expected("an operand"),
            }
            if !c.eat(',') {
                return Ok(operands);
            }
        }
    }
}
