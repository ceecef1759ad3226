//! `mask %s, %step {mask}`: hides the keys that the mask does not show, and those of no token.
//! `[N, H, T] → [N, H, T]`; hidden scores are −∞.

use crate::{
    Mask, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct MaskScores {
    pub mask: Mask,
}

impl OpDef for MaskScores {
    const NAME: &'static str = "mask";

    fn attrs(&self) -> Attrs {
        Attrs::new().with("mask", AttrValue::Mask(self.mask.clone()))
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(MaskScores { mask: attrs.mask("mask")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }
}
