//! Instructions' operands, and the trait that every op's attribute struct implements.

use crate::{
    DType, State, StateId, TensorType, Type, ValueId, WeightId,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
};

pub use crate::ops::Op;

/// What an instruction reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operand {
    Value(ValueId),
    Weight(WeightId),
    State(StateId),
}

/// An operand's type, as inference sees it.
#[derive(Clone, PartialEq, Debug)]
pub enum OperandType {
    Value(Type),
    Weight(TensorType),
    State(State),
}

/// An op: a closed set, one file each under `ops/`.
pub trait OpDef: Sized {
    /// The text syntax.
    const NAME: &'static str;

    /// The attributes in generic form.
    fn attrs(&self) -> Attrs;

    /// Reads the attributes; what is left unread is refused by the caller.
    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String>;

    /// Checks the operands and tells the results' types. The error says what was expected.
    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String>;

    /// What the op means: the results' values. Operands are of the types that `infer` has accepted.
    fn eval(&self, frame: &mut Frame<'_, '_>, args: Args) -> Result<Vec<Val>, EvalError>;
}

/// Reads operands one by one, with errors that name the position.
pub struct Operands<'a> {
    all: &'a [OperandType],
    next: usize,
}

impl<'a> Operands<'a> {
    /// Reads `all` from the first on.
    pub fn new(all: &'a [OperandType]) -> Self {
        Operands { all, next: 0 }
    }

    fn take(&mut self, what: &str) -> Result<&'a OperandType, String> {
        let o = self.all.get(self.next);
        self.next += 1;
        o.ok_or_else(|| format!("operand {} ({what}) is missing", self.next))
    }

    /// The type of the next operand without taking it.
    pub fn peek(&self) -> Option<&'a OperandType> {
        self.all.get(self.next)
    }

    /// A value of any type.
    pub fn value(&mut self, what: &str) -> Result<&'a Type, String> {
        match self.take(what)? {
            OperandType::Value(t) => Ok(t),
            _ => Err(format!("operand {} ({what}) must be a value", self.next)),
        }
    }

    /// A tensor value of `dtype`.
    pub fn tensor(&mut self, what: &str, dtype: DType) -> Result<&'a TensorType, String> {
        let ty = self.value(what)?;
        match ty.tensor() {
            Some(t) if t.dtype == dtype => Ok(t),
            _ => Err(format!(
                "operand {} ({what}) is {ty}, expected {}",
                self.next,
                dtype.name()
            )),
        }
    }

    /// An f32 tensor value of `rank` extents.
    pub fn f32(&mut self, what: &str, rank: usize) -> Result<&'a TensorType, String> {
        let t = self.tensor(what, DType::F32)?;
        if t.dims.len() == rank {
            Ok(t)
        } else {
            Err(format!(
                "operand {} ({what}) is {t}, expected {rank} extents",
                self.next
            ))
        }
    }

    /// A weight of exactly `dims`.
    pub fn weight(&mut self, what: &str, dims: &[u32]) -> Result<&'a TensorType, String> {
        let t = self.any_weight(what)?;
        if t.fixed_dims().as_deref() == Some(dims) {
            Ok(t)
        } else {
            Err(format!(
                "weight {} ({what}) is {t}, expected extents {dims:?}",
                self.next
            ))
        }
    }

    /// A weight of any extents.
    pub fn any_weight(&mut self, what: &str) -> Result<&'a TensorType, String> {
        match self.take(what)? {
            OperandType::Weight(t) => Ok(t),
            _ => Err(format!("operand {} ({what}) must be a weight", self.next)),
        }
    }

    /// A matrix `[rows, cols]`.
    pub fn matrix(&mut self, what: &str) -> Result<(u32, u32), String> {
        let t = self.any_weight(what)?;
        match t.fixed_dims().as_deref() {
            Some(&[rows, cols]) => Ok((rows, cols)),
            _ => Err(format!(
                "weight {} ({what}) is {t}, expected two extents",
                self.next
            )),
        }
    }

    /// A state.
    pub fn state(&mut self, what: &str) -> Result<&'a State, String> {
        match self.take(what)? {
            OperandType::State(s) => Ok(s),
            _ => Err(format!("operand {} ({what}) must be a state", self.next)),
        }
    }

    /// The step.
    pub fn step(&mut self) -> Result<(), String> {
        match self.value("step")? {
            Type::Step => Ok(()),
            t => Err(format!("operand {} is {t}, expected the step", self.next)),
        }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), String> {
        if self.next == self.all.len() {
            Ok(())
        } else {
            Err(format!(
                "{} operands, expected {}",
                self.all.len(),
                self.next
            ))
        }
    }
}

/// The innermost extent of `t`, which must be fixed.
pub fn last(t: &TensorType, what: &str) -> Result<u32, String> {
    t.last()
        .ok_or_else(|| format!("{what} is {t}, expected a fixed innermost extent"))
}
