//! `mask %s, %step {mask}`: hides the keys that the mask does not show, and those of no token.
//! `[N, H, T] → [N, H, T]`; hidden scores are −∞.

use crate::{
    Mask, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct MaskScores {
    pub mask: Mask,
}

impl OpDef for MaskScores {
    const NAME: &'static str = "mask";

    fn attrs(&self) -> Attrs {
        Attrs::new().with("mask", AttrValue::Mask(self.mask.clone()))
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(MaskScores { mask: attrs.mask("mask")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let mut scores = args.scores()?;
        hide(frame.step, &self.mask, &mut scores);
        Ok(vec![Val::PerToken(scores)])
    }
}

/// Sets the scores `[H, T]` of keys that the mask hides to −∞.
pub(super) fn hide(step: &Step, mask: &Mask, scores: &mut [Tensor]) {
    for (&(seq, offset), s) in step.tokens.iter().zip(scores) {
        let keys = s.last();
        // The query's place among the keys, which end with this step's tokens.
        let i = (keys + offset) as i64 - step.seqs[seq].new as i64;
        for row in s.data.chunks_exact_mut(keys.max(1)) {
            for (j, x) in row.iter_mut().enumerate() {
                if !mask.visible(i, j as i64) {
                    *x = f32::NEG_INFINITY;
                }
            }
        }
    }
}
