//! `layer_norm %x, @w, @b {eps}`: (x − mean) / √(var + eps) · w + b over the innermost extent, var
//! being the biased variance. `[…, D], [D], [D] → […, D]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct LayerNorm {
    pub eps: f32,
}

impl OpDef for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn attrs(&self) -> Attrs {
        Attrs::new().float("eps", self.eps)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(LayerNorm { eps: attrs.float("eps")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.tensor("x", DType::F32)?;
        let d = last(x, "x")?;
        o.weight("w", &[d])?;
        o.weight("b", &[d])?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }
}
