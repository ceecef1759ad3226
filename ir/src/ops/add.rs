//! `add %a, %b`: elementwise sum. `[…], […] → […]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Add;

impl OpDef for Add {
    const NAME: &'static str = "add";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(Add)
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
        Ok(vec![a.zip(&b, |a, b| a + b)?])
    }
}
