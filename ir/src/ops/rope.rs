//! `rope %x, %angles {style}`: rotates pairs of each head's elements. `[N, H, D], [N, dim] → [N, H, D]`.
//!
//! `neox` pairs element i with i + dim / 2 of the first `dim` elements (HF `rotate_half`); what
//! follows them stays as it is.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::{Operands, last},
};

/// Which elements make a pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RopeStyle {
    Neox,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Rope {
    pub style: RopeStyle,
}

impl OpDef for Rope {
    const NAME: &'static str = "rope";

    fn attrs(&self) -> Attrs {
        Attrs::new().word("style", "neox")
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        match attrs.word("style")?.as_str() {
            "neox" => Ok(Rope { style: RopeStyle::Neox }),
            other => Err(format!("unknown rope style `{other}`")),
        }
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 3)?;
        let angles = o.f32("angles", 2)?;
        o.end()?;
        let (d, dim) = (last(x, "x")?, last(angles, "angles")?);
        if dim > d || x.dims[0] != angles.dims[0] {
            return Err(format!("angles are {angles}, which do not fit {x}"));
        }
        Ok(vec![Type::Tensor(x.clone())])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (mut x, angles) = (args.tensor()?, args.tensor()?);
        let (d, dim) = (x.last(), angles.last());
        let RopeStyle::Neox = self.style;
        for (i, head) in x.data.chunks_exact_mut(d.max(1)).enumerate() {
            let (cos, sin) = angles.at(i / x.dims[1]).split_at(dim / 2);
            for j in 0..dim / 2 {
                let (a, b) = (head[j], head[j + dim / 2]);
                head[j] = a * cos[j] - b * sin[j];
                head[j + dim / 2] = b * cos[j] + a * sin[j];
            }
        }
        Ok(vec![Val::F32(x)])
    }
}
