//! `layer_norm %x, @w, @b {eps}`: (x − mean) / √(var + eps) · w + b over the innermost extent, var
//! being the biased variance. `[…, D], [D], [D] → […, D]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
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

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, w, b) = (args.value()?, args.weight()?, args.weight()?);
        Ok(vec![x.map_tensors(|x| layer_norm(x, &w, &b, self.eps))?])
    }
}

/// (x − mean) / √(var + eps) · w + b, row by row.
pub(super) fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f32) -> Tensor {
    x.map_rows(x.last(), |row| layer_norm_row(row, &w.data, &b.data, eps))
}

/// One row of it.
pub fn layer_norm_row(row: &[f32], w: &[f32], b: &[f32], eps: f32) -> Vec<f32> {
    let n = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let std = (var + f64::from(eps)).sqrt();
    let one = |((&x, &w), &b): ((&f32, &f32), &f32)| {
        ((f64::from(x) - mean) / std * f64::from(w) + f64::from(b)) as f32
    };
    row.iter().zip(w).zip(b).map(one).collect()
}
