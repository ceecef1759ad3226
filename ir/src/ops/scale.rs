//! `scale %x {factor}`: elementwise x · factor. `[…] → […]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Scale {
    pub factor: f32,
}

impl OpDef for Scale {
    const NAME: &'static str = "scale";

    fn attrs(&self) -> Attrs {
        Attrs::new().float("factor", self.factor)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Scale { factor: attrs.float("factor")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.tensor("x", DType::F32)?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        Ok(vec![args.value()?.map(|x| x * self.factor)?])
    }
}
