//! `unfold %x, %step {width}`: every token's neighbourhood, for a convolution along the sequence.
//! `[N, D] → [N, D · width]`.
//!
//! y\[n, c · width + t\] = x\[n + t − (width − 1) / 2, c\], 0 outside of the token's own sequence: the
//! columns of a weight `[out, in, width]` whose rows are flattened. Sequences are whole (no past).

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct Unfold {
    /// Tokens of a neighbourhood; odd.
    pub width: u32,
}

impl Unfold {
    /// The greatest width.
    pub const MAX_WIDTH: u32 = 255;

    /// Tokens on either side.
    pub fn reach(&self) -> u32 {
        (self.width - 1) / 2
    }
}

impl OpDef for Unfold {
    const NAME: &'static str = "unfold";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("width", self.width)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let width = attrs.u32("width")?;
        if width.is_multiple_of(2) || width > Self::MAX_WIDTH {
            let most = Self::MAX_WIDTH;
            return Err(format!("width {width}, expected an odd number up to {most}"));
        }
        Ok(Unfold { width })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.step()?;
        o.end()?;
        let columns = last(x, "x")?.checked_mul(self.width).ok_or("the row overflows")?;
        Ok(vec![Type::f32(&[x.dims[0], columns.into()])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, width) = (args.tensor()?, self.width as usize);
        let mut out = Tensor::zeros(&[x.dims[0], x.last() * width]);
        for (n, row) in out.data.chunks_exact_mut((x.last() * width).max(1)).enumerate() {
            let tokens = frame.step.range(frame.step.tokens[n].0);
            for t in 0..width {
                let Some(at) = (n + t).checked_sub(self.reach() as usize) else {
                    continue;
                };
                if tokens.contains(&at) {
                    for (c, value) in x.at(at).iter().enumerate() {
                        row[c * width + t] = *value;
                    }
                }
            }
        }
        Ok(vec![Val::F32(out)])
    }
}
