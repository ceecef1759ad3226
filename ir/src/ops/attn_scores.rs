//! `attn_scores %q, %k, %step {scale}`: scale · q · kᵀ with every key of the query's own sequence.
//! `[N, H, D], [B, T, H, D] → [N, H, T]`, or with keys of this step alone: `[N, H, D], [N, H, D]`.

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
    DType,
};

#[derive(Clone, PartialEq, Debug)]
pub struct AttnScores {
    pub scale: f32,
}

impl OpDef for AttnScores {
    const NAME: &'static str = "attn_scores";

    fn attrs(&self) -> Attrs {
        Attrs::new().float("scale", self.scale)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(AttnScores { scale: attrs.float("scale")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let q = o.f32("q", 3)?;
        let k = o.tensor("k", DType::F32)?;
        o.step()?;
        o.end()?;
        if !matches!(k.dims.len(), 3 | 4) || k.dims[k.dims.len() - 2..] != q.dims[1..] {
            return Err(format!("k is {k}, expected the heads of q: {q}"));
        }
        Ok(vec![Type::f32(&[q.dims[0], q.dims[1], Sym::T.into()])])
    }
}
