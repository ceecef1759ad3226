//! `attn_mix %p, %v, %step`: Σ p · v over the keys of the query's own sequence.
//! `[N, H, T], [B, T, H, Dv] → [N, H, Dv]`, or with values of this step alone: `[N, H, Dv]`.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct AttnMix;

impl OpDef for AttnMix {
    const NAME: &'static str = "attn_mix";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(AttnMix)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let p = o.f32("p", 3)?;
        let v = o.tensor("v", DType::F32)?;
        o.step()?;
        o.end()?;
        if !matches!(v.dims.len(), 3 | 4) || v.dims[v.dims.len() - 2] != p.dims[1] {
            return Err(format!("v is {v}, expected the heads of p: {p}"));
        }
        Ok(vec![Type::f32(&[p.dims[0], p.dims[1], v.dims[v.dims.len() - 1]])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (p, v) = (args.scores()?, args.value()?);
        let values = frame.per_sequence(&v)?;
        Ok(vec![Val::F32(mix(frame.step, &p, &values, 1))])
    }
}

/// Σ p · v: probabilities `[H, T]` of every token, values `[T, H / group, Dv]` of every sequence.
pub(super) fn mix(step: &Step, p: &[Tensor], values: &[Tensor], group: u32) -> Tensor {
    let heads = p.first().map_or(0, |p| p.dims[0]);
    let d = values.first().map_or(0, Tensor::last);
    let mut out = Tensor::zeros(&[p.len(), heads, d]);
    for (n, &(seq, _)) in step.tokens.iter().enumerate() {
        let v = &values[seq];
        for h in 0..heads {
            let kv_head = h / group as usize;
            for c in 0..d {
                let of = |(j, &p): (usize, &f32)| f64::from(p) * f64::from(v.at(j)[kv_head * d + c]);
                let sum: f64 = p[n].at(h).iter().enumerate().map(of).sum();
                out.data[(n * heads + h) * d + c] = sum as f32;
            }
        }
    }
    out
}
