//! `merge_heads %x`: the same numbers, seen as one row. `[n, H, D] → [n, H · D]`.

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct MergeHeads;

impl OpDef for MergeHeads {
    const NAME: &'static str = "merge_heads";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(MergeHeads)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 3)?;
        o.end()?;
        let row = x.row_len().ok_or_else(|| format!("x is {x}, expected fixed heads"))?;
        Ok(vec![Type::f32(&[x.dims[0], Dim::Fixed(row)])])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        Ok(vec![Val::F32(Tensor { dims: vec![x.dims[0], x.stride()], data: x.data })])
    }
}
