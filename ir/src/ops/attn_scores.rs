//! `attn_scores %q, %k, %step {scale}`: scale · q · kᵀ with every key of the query's own sequence.
//! `[N, H, D], [B, T, H, D] → [N, H, T]`, or with keys of this step alone: `[N, H, D], [N, H, D]`.

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val, dot},
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

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (q, k) = (args.tensor()?, args.value()?);
        let keys = frame.per_sequence(&k)?;
        Ok(vec![Val::PerToken(scores(frame.step, &q, &keys, 1, self.scale))])
    }
}

/// Scores `[H, T]` of every token with the keys `[T, H / group, D]` of its sequence.
pub(super) fn scores(
    step: &Step,
    q: &Tensor,
    keys: &[Tensor],
    group: u32,
    scale: f32,
) -> Vec<Tensor> {
    let (heads, d) = (q.dims[1], q.last());
    let one = |(n, &(seq, _)): (usize, &(usize, usize))| {
        let k = &keys[seq];
        let mut out = Tensor::zeros(&[heads, k.dims[0]]);
        for h in 0..heads {
            let query = &q.at(n)[h * d..][..d];
            let kv_head = h / group as usize;
            for j in 0..k.dims[0] {
                let key = &k.at(j)[kv_head * d..][..d];
                out.data[h * k.dims[0] + j] = (dot(query, key) * f64::from(scale)) as f32;
            }
        }
        out
    };
    step.tokens.iter().enumerate().map(one).collect()
}
