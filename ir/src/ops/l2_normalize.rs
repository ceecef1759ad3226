//! `l2_normalize %x {eps}`: x / max(‖x‖₂, eps), row by row. `[n, D] → [n, D]`.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val, dot},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct L2Normalize {
    pub eps: f32,
}

impl OpDef for L2Normalize {
    const NAME: &'static str = "l2_normalize";

    fn attrs(&self) -> Attrs {
        Attrs::new().float("eps", self.eps)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(L2Normalize { eps: attrs.float("eps")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        Ok(vec![Val::F32(x.map_rows(x.last(), |row| {
            let norm = dot(row, row).sqrt().max(f64::from(self.eps));
            row.iter().map(|&x| (f64::from(x) / norm) as f32).collect()
        }))])
    }
}
