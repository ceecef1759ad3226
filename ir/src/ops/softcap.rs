//! `softcap %x {cap}`: elementwise cap · tanh(x / cap). `[…] → […]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Softcap {
    pub cap: f32,
}

impl OpDef for Softcap {
    const NAME: &'static str = "softcap";

    fn attrs(&self) -> Attrs {
        Attrs::new().float("cap", self.cap)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Softcap { cap: attrs.float("cap")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.tensor("x", DType::F32)?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        Ok(vec![args.value()?.map(|x| softcap(x, self.cap))?])
    }
}

/// cap · tanh(x / cap).
pub(super) fn softcap(x: f32, cap: f32) -> f32 {
    (f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh()) as f32
}
