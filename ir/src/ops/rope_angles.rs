//! `rope_angles %pos[, %step] {theta, dim, scaling}`: cos and sin of every position's angles, once a
//! step. `i32[N] → [N, dim]`: cos of the dim / 2 angles, then sin; both times the attention factor.
//!
//! The scalings that look at the lengths of sequences (`dynamic`, `longrope`) read the step.

use crate::{
    DType, Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
    rope::{LengthRule, RopeScaling, inv_freq_at},
};

#[derive(Clone, PartialEq, Debug)]
pub struct RopeAngles {
    pub theta: f64,
    /// Elements of a head that are rotated; even.
    pub dim: u32,
    pub scaling: RopeScaling,
}

impl OpDef for RopeAngles {
    const NAME: &'static str = "rope_angles";

    fn attrs(&self) -> Attrs {
        Attrs::new()
            .double("theta", self.theta)
            .int("dim", self.dim)
            .with_some("scaling", self.scaling.to_attr())
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(RopeAngles {
            theta: attrs.double("theta")?,
            dim: attrs.u32("dim")?,
            scaling: RopeScaling::from_attrs(attrs)?,
        })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let pos = o.tensor("pos", DType::I32)?;
        if self.scaling.length_rule().is_some() {
            o.step()?;
        }
        o.end()?;
        self.scaling.check(self.dim)?;
        if self.dim == 0 || !self.dim.is_multiple_of(2) {
            return Err(format!("dim is {}, expected an even number", self.dim));
        }
        Ok(vec![Type::f32(&[pos.dims[0], Dim::Fixed(self.dim)])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let pos = args.ids()?;
        let factor = self.scaling.attention_factor();
        let mut data = Vec::new();
        // Neighbours mostly share a length.
        let mut last: Option<(u32, Vec<f32>)> = None;
        for (n, &p) in pos.iter().enumerate() {
            let of_sequence = frame.step.length_of(n);
            let length = match self.scaling.length_rule() {
                None => 0,
                Some(LengthRule::Switch(_)) => of_sequence,
                Some(LengthRule::Prompt(original)) => {
                    of_sequence.max(p.saturating_add(1).max(0) as u32).max(original)
                }
            };
            let freq = match last.take() {
                Some((l, freq)) if l == length => freq,
                _ => inv_freq_at(self.theta, self.dim, &self.scaling, length),
            };
            let angle = |f: &f32| f64::from(p as f32 * f);
            data.extend(freq.iter().map(|f| angle(f).cos() as f32 * factor));
            data.extend(freq.iter().map(|f| angle(f).sin() as f32 * factor));
            last = Some((length, freq));
        }
        Ok(vec![Val::F32(Tensor { dims: vec![pos.len(), self.dim as usize], data })])
    }
}
