//! `attn_mix %p, %v, %step`: Σ p · v over the keys of the query's own sequence.
//! `[N, H, T], [B, T, H, Dv] → [N, H, Dv]`, or with values of this step alone: `[N, H, Dv]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct AttnMix;

impl OpDef for AttnMix {
    const NAME: &'static str = "attn_mix";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(AttnMix)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let p = o.f32("p", 3)?;
        let v = o.tensor("v", DType::F32)?;
        o.step()?;
        o.end()?;
        if !matches!(v.dims.len(), 3 | 4) || v.dims[v.dims.len() - 2] != p.dims[1] {
            return Err(format!("v is {v}, expected the heads of p: {p}"));
        }
        Ok(vec![Type::f32(&[p.dims[0], p.dims[1], v.dims[v.dims.len() - 1]])])
    }
}
