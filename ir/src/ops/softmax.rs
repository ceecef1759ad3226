//! `softmax %s`: softmax over the keys that the mask shows. `[N, H, T] → [N, H, T]`.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Softmax;

impl OpDef for Softmax {
    const NAME: &'static str = "softmax";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(Softmax)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }
}
