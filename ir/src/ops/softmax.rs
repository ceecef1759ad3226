//! `softmax %s[, @sinks] {…}`: softmax over the keys that the mask shows. `[N, H, T] → [N, H, T]`.
//!
//! With `sinks` a logit for each head, `@sinks` `[H]`, takes part in the sum and gets no place in the
//! result: the probabilities of a row add up to less than 1 (HF `gpt_oss.eager_attention_forward`).

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Softmax {
    /// A logit for each head that no key has.
    pub sinks: bool,
}

impl OpDef for Softmax {
    const NAME: &'static str = "softmax";

    fn attrs(&self) -> Attrs {
        Attrs::new().flag("sinks", self.sinks)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Softmax { sinks: attrs.flag("sinks")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        if self.sinks {
            let heads = s.dims[1].fixed().ok_or_else(|| format!("scores are {s}, heads unknown"))?;
            o.weight("sinks", &[heads])?;
        }
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let scores = args.scores()?;
        let sinks = if self.sinks { Some(args.weight()?) } else { None };
        Ok(vec![Val::PerToken(scores.iter().map(|s| softmax(s, sinks.as_deref())).collect())])
    }
}

/// Softmax of scores `[H, T]` row by row, with sinks `[H]` where there are any; where every key is
/// hidden, zeros.
pub(super) fn softmax(s: &Tensor, sinks: Option<&Tensor>) -> Tensor {
    let mut head = 0;
    s.map_rows(s.last(), |row| {
        let sink = sinks.map_or(f32::NEG_INFINITY, |sinks| sinks.data[head]);
        head += 1;
        let max = row.iter().copied().fold(sink, f32::max);
        if max == f32::NEG_INFINITY {
            return vec![0.0; row.len()];
        }
        let exp = |x: &f32| (f64::from(*x) - f64::from(max)).exp();
        let sum: f64 = row.iter().map(exp).sum::<f64>() + exp(&sink);
        row.iter().map(|x| (exp(x) / sum) as f32).collect()
    })
}
