//! `rms_norm %x, @w {eps, offset}`: x / √(mean(x²) + eps) · (offset + w) over the innermost extent.
//! `[…, D], [D] → […, D]`. Gemma's norms have offset 1.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs, short},
    eval::{Args, EvalError, Frame, Tensor, Val, dot},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct RmsNorm {
    pub eps: f32,
    pub offset: f32,
}

impl OpDef for RmsNorm {
    const NAME: &'static str = "rms_norm";

    fn attrs(&self) -> Attrs {
        let offset = (self.offset != 0.0).then(|| AttrValue::Float(short(self.offset)));
        Attrs::new().float("eps", self.eps).with_some("offset", offset)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(RmsNorm {
            eps: attrs.float("eps")?,
            offset: attrs.opt_float("offset")?.unwrap_or(0.0),
        })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.tensor("x", DType::F32)?;
        o.weight("w", &[last(x, "x")?])?;
        o.end()?;
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, w) = (args.value()?, args.weight()?);
        Ok(vec![x.map_tensors(|x| rms_norm(x, &w, self.eps, self.offset))?])
    }
}

/// x / √(mean(x²) + eps) · (offset + w), row by row.
pub(super) fn rms_norm(x: &Tensor, w: &Tensor, eps: f32, offset: f32) -> Tensor {
    x.map_rows(x.last(), |row| {
        let rms = (dot(row, row) / row.len() as f64 + f64::from(eps)).sqrt();
        let one = |(&x, &w): (&f32, &f32)| {
            (f64::from(x) / rms * (f64::from(offset) + f64::from(w))) as f32
        };
        row.iter().zip(&w.data).map(one).collect()
    })
}
