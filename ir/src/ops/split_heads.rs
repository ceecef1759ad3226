//! `split_heads %x {heads}`: the same numbers, seen as heads. `[n, H · D] → [n, H, D]`.

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct SplitHeads {
    pub heads: u32,
}

impl OpDef for SplitHeads {
    const NAME: &'static str = "split_heads";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("heads", self.heads)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(SplitHeads { heads: attrs.u32("heads")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.end()?;
        let width = last(x, "x")?;
        if self.heads == 0 || !width.is_multiple_of(self.heads) {
            return Err(format!("rows of {width} do not make up {} heads", self.heads));
        }
        Ok(vec![Type::f32(&[x.dims[0], self.heads.into(), Dim::Fixed(width / self.heads)])])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        let heads = self.heads as usize;
        Ok(vec![Val::F32(Tensor { dims: vec![x.dims[0], heads, x.last() / heads], data: x.data })])
    }
}
