//! Builds a function instruction by instruction; types are inferred.
//!
//! ```text
//! let mut b = FuncBuilder::new(&mut module, "layer");
//! let x = b.param("x", Type::f32(&[Sym::N.into(), 896.into()]));
//! let h = b.push1("h", RmsNorm { eps: 1e-6, offset: 0.0 }, &[x.into(), norm_weight.into()])?;
//! b.finish(&[("x", h)]);
//! ```

use crate::{
    Func, FuncId, Inst, Module, Op, Operand, OperandType, StateId, Type, ValueId, WeightId,
};

impl From<ValueId> for Operand {
    fn from(v: ValueId) -> Self {
        Operand::Value(v)
    }
}

impl From<WeightId> for Operand {
    fn from(w: WeightId) -> Self {
        Operand::Weight(w)
    }
}

impl From<StateId> for Operand {
    fn from(s: StateId) -> Self {
        Operand::State(s)
    }
}

/// An op that does not fit its operands: the op's name and what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{op}: {message}")]
pub struct BuildError {
    pub op: &'static str,
    pub message: String,
}

/// Appends instructions to one new function of a module.
pub struct FuncBuilder<'m> {
    pub module: &'m mut Module,
    func: Func,
}

impl<'m> FuncBuilder<'m> {
    /// Starts a function.
    pub fn new(module: &'m mut Module, name: &str) -> Self {
        FuncBuilder {
            module,
            func: Func {
                name: name.to_string(),
                ..Func::default()
            },
        }
    }

    /// Adds a parameter.
    pub fn param(&mut self, name: &str, ty: Type) -> ValueId {
        let v = self.func.new_value(name, ty);
        self.func.params.push(v);
        v
    }

    /// The type of a value of this function.
    pub fn ty(&self, v: ValueId) -> &Type {
        self.func.ty(v)
    }

    /// Appends an instruction; results are called `hint`, `hint.1`, …
    pub fn push(
        &mut self,
        hint: &str,
        op: impl Into<Op>,
        operands: &[Operand],
    ) -> Result<Vec<ValueId>, BuildError> {
        let op = op.into();
        let types = operand_types(self.module, &self.func, operands);
        let results = match &op {
            // The classes called may not exist yet: the carried value keeps its type.
            Op::Repeat(_) => match types.first() {
                Some(OperandType::Value(t)) => vec![t.clone()],
                _ => vec![],
            },
            op => op.infer(&types).map_err(|message| BuildError {
                op: op.name(),
                message,
            })?,
        };
        let results: Vec<ValueId> = results
            .into_iter()
            .map(|t| self.func.new_value(hint, t))
            .collect();
        self.func.body.push(Inst {
            op,
            operands: operands.to_vec(),
            results: results.clone(),
        });
        Ok(results)
    }

    /// Appends an instruction with one result.
    pub fn push1(
        &mut self,
        hint: &str,
        op: impl Into<Op>,
        operands: &[Operand],
    ) -> Result<ValueId, BuildError> {
        let op = op.into();
        let name = op.name();
        match self.push(hint, op, operands)?.as_slice() {
            &[v] => Ok(v),
            r => Err(BuildError {
                op: name,
                message: format!("has {} results, not one", r.len()),
            }),
        }
    }

    /// Ends the function and adds it to the module.
    pub fn finish(mut self, results: &[(&str, ValueId)]) -> FuncId {
        self.func.results = results.iter().map(|&(n, v)| (n.to_string(), v)).collect();
        self.module.funcs.push(self.func);
        FuncId(self.module.funcs.len() as u32 - 1)
    }
}

/// The operands' types within `func`. Ids must be in range (the verifier checks them first).
pub fn operand_types(module: &Module, func: &Func, operands: &[Operand]) -> Vec<OperandType> {
    operands
        .iter()
        .map(|o| match o {
            Operand::Value(v) => OperandType::Value(func.ty(*v).clone()),
            Operand::Weight(w) => OperandType::Weight(module.weights[w.index()].ty.clone()),
            Operand::State(s) => OperandType::State(module.states[s.index()].clone()),
        })
        .collect()
}
