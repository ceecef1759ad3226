//! `softmax %s`: softmax over the keys that the mask shows. `[N, H, T] → [N, H, T]`.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Softmax;

impl OpDef for Softmax {
    const NAME: &'static str = "softmax";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(Softmax)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        Ok(vec![Val::PerToken(args.scores()?.iter().map(softmax).collect())])
    }
}

/// Softmax row by row; where every key is hidden, zeros.
pub(super) fn softmax(s: &Tensor) -> Tensor {
    s.map_rows(s.last(), |row| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if max == f32::NEG_INFINITY {
            return vec![0.0; row.len()];
        }
        let exp = |x: &f32| (f64::from(*x) - f64::from(max)).exp();
        let sum: f64 = row.iter().map(exp).sum();
        row.iter().map(|x| (exp(x) / sum) as f32).collect()
    })
}
