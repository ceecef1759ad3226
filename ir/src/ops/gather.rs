//! `gather %ids, @table {scale}`: rows of a table, times `scale`. `i32[N], [V, D] → [N, D]`.
//!
//! An id outside of the table is an error of the caller (the runtime checks ids).

use crate::{
    DType, Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Gather {
    pub scale: f32,
}

impl OpDef for Gather {
    const NAME: &'static str = "gather";

    fn attrs(&self) -> Attrs {
        if self.scale == 1.0 { Attrs::new() } else { Attrs::new().float("scale", self.scale) }
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Gather { scale: attrs.opt_float("scale")?.unwrap_or(1.0) })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let ids = o.tensor("ids", DType::I32)?;
        let (_, d) = o.matrix("table")?;
        o.end()?;
        match ids.dims.as_slice() {
            [n] => Ok(vec![Type::f32(&[*n, Dim::Fixed(d)])]),
            _ => Err(format!("ids are {ids}, expected one extent")),
        }
    }
}
