//! `mul %a, %b`: elementwise product. `[…], […] → […]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Mul;

impl OpDef for Mul {
    const NAME: &'static str = "mul";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(Mul)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let (a, b) = (o.tensor("a", DType::F32)?, o.tensor("b", DType::F32)?);
        o.end()?;
        if a != b {
            return Err(format!("operands are {a} and {b}, expected one type"));
        }
        Ok(vec![Type::Tensor(a.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (a, b) = (args.value()?, args.value()?);
        Ok(vec![a.zip(&b, |a, b| a * b)?])
    }
}
