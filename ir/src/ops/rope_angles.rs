//! `rope_angles %pos {theta, dim, scaling}`: cos and sin of every position's angles, once a step.
//! `i32[N] → [N, dim]`: cos of the dim / 2 angles, then sin; both times the attention factor.

use crate::{
    DType, Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
    rope::{RopeScaling, inv_freq},
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
        o.end()?;
        if self.dim == 0 || !self.dim.is_multiple_of(2) {
            return Err(format!("dim is {}, expected an even number", self.dim));
        }
        Ok(vec![Type::f32(&[pos.dims[0], Dim::Fixed(self.dim)])])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let pos = args.ids()?;
        let freq = inv_freq(self.theta, self.dim, &self.scaling);
        let factor = self.scaling.attention_factor();
        let mut data = Vec::new();
        for &p in &pos {
            let angle = |f: &f32| f64::from(p as f32 * f);
            data.extend(freq.iter().map(|f| angle(f).cos() as f32 * factor));
            data.extend(freq.iter().map(|f| angle(f).sin() as f32 * factor));
        }
        Ok(vec![Val::F32(Tensor { dims: vec![pos.len(), self.dim as usize], data })])
    }
}
