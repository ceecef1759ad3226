//! `rows %x, %step`: the rows whose logits are wanted. `[N, D] → [R, D]`.

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Rows;

impl OpDef for Rows {
    const NAME: &'static str = "rows";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(Rows)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::f32(&[Sym::R.into(), x.dims[1]])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        let rows = &frame.step.rows;
        let data = rows.iter().flat_map(|&r| x.at(r as usize)).copied().collect();
        Ok(vec![Val::F32(Tensor { dims: vec![rows.len(), x.last()], data })])
    }
}
