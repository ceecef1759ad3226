//! `gather %ids, @table {scale}`: rows of a table, times `scale`. `i32[N], [V, D] → [N, D]`.
//!
//! An id outside of the table is an error of the caller (the runtime checks ids).

use crate::{
    DType, Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
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

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (ids, table) = (args.ids()?, args.weight()?);
        let mut data = Vec::new();
        for &id in &ids {
            let row = usize::try_from(id).map_or(&[][..], |i| table.at(i));
            if row.is_empty() {
                return Err(format!("id {id} is outside of a table of {} rows", table.dims[0]).into());
            }
            data.extend(row.iter().map(|x| x * self.scale));
        }
        Ok(vec![Val::F32(Tensor { dims: vec![ids.len(), table.last()], data })])
    }
}
