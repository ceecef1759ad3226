//! `alibi %s, %step {max_bias}`: adds a bias that falls with the distance, at a slope of its own for
//! each head (Press et al., arXiv:2108.12409). `[N, H, T] → [N, H, T]`: s\[i, h, j\] += slope(h) · (j − i).
//!
//! As in BLOOM and llama.cpp: with H heads of a power of two, slope(h) = 2^(−max_bias · (h + 1) / H).
//! Otherwise the first heads have the slopes of the largest power of two P below H, and the rest
//! every second one of those of 2P, from the first.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val},
    op::Operands,
};

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Alibi {
    /// The exponent of the last head's slope; 8 in all published models.
    pub max_bias: f32,
}

impl Alibi {
    /// The slopes `[heads]`, in f32 as HF raises them.
    pub fn slopes(&self, heads: u32) -> Vec<f32> {
        let power = |h: u32| if h == 0 { 0 } else { 1 << h.ilog2() };
        let low = power(heads);
        let base = |of: u32| (-f64::from(self.max_bias) / f64::from(of)).exp2() as f32;
        let slope = |h| match h < low {
            true => base(low).powi(h as i32 + 1),
            false => base(2 * low).powi(2 * (h - low) as i32 + 1),
        };
        (0..heads).map(slope).collect()
    }

    pub(super) fn attrs(&self) -> Attrs {
        Attrs::new().float("max_bias", self.max_bias)
    }

    pub(super) fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let max_bias = attrs.float("max_bias")?;
        match max_bias > 0.0 && max_bias <= 1024.0 {
            true => Ok(Alibi { max_bias }),
            false => Err(format!("`max_bias` is {max_bias}, expected more than 0, at most 1024")),
        }
    }
}

impl OpDef for Alibi {
    const NAME: &'static str = "alibi";

    fn attrs(&self) -> Attrs {
        Alibi::attrs(self)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Alibi::from_attrs(attrs)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        s.dims[1].fixed().ok_or_else(|| format!("scores are {s}, heads unknown"))?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let mut scores = args.scores()?;
        add_alibi(frame.step, self, &mut scores);
        Ok(vec![Val::PerToken(scores)])
    }
}

/// Adds the bias to scores `[H, T]` of every token.
pub(super) fn add_alibi(step: &Step, alibi: &Alibi, scores: &mut [Tensor]) {
    for (&(seq, offset), s) in step.tokens.iter().zip(scores) {
        let keys = s.last();
        // The query's place among the keys, which end with this step's tokens.
        let i = (keys + offset) as i64 - step.seqs[seq].new as i64;
        let slopes = alibi.slopes(s.dims[0] as u32);
        for (row, slope) in s.data.chunks_exact_mut(keys.max(1)).zip(slopes) {
            for (j, x) in row.iter_mut().enumerate() {
                *x += slope * (j as i64 - i) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_of_any_number_of_heads() {
        let check = |heads: u32, expected: &[f64]| {
            let found = Alibi { max_bias: 8.0 }.slopes(heads);
            assert_eq!(found.len(), heads as usize);
            for (found, expected) in found.iter().zip(expected) {
                let close = (f64::from(*found) / expected.exp2() - 1.0).abs() < 1e-6;
                assert!(close, "{heads}: {found}, expected 2^{expected}");
            }
        };
        check(8, &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]);
        check(1, &[-8.0]);
        check(6, &[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]);
        check(12, &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -0.5, -1.5, -2.5, -3.5]);
        check(0, &[]);
    }
}
