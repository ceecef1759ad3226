//! `attn_bias %s, @table, %step {buckets, max_distance, bidirectional}`: adds T5's relative position
//! bias. `[N, H, T], [buckets, H] → [N, H, T]`: s\[i, h, j\] += table\[bucket(j − i), h\].

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
    ops::RelativeBias,
};

#[derive(Clone, PartialEq, Debug)]
pub struct AttnBias {
    pub bias: RelativeBias,
}

impl OpDef for AttnBias {
    const NAME: &'static str = "attn_bias";

    fn attrs(&self) -> Attrs {
        self.bias.attrs()
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(AttnBias { bias: RelativeBias::from_attrs(attrs)? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        let heads = s.dims[1].fixed().ok_or_else(|| format!("scores are {s}, heads unknown"))?;
        o.weight("table", &[self.bias.buckets, heads])?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }
}
