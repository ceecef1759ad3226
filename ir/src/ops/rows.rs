//! `rows %x, %step`: the rows whose logits are wanted. `[N, D] → [R, D]`.

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
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
}
