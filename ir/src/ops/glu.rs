//! `glu %x {kind}`: act(first half) · second half. `[n, 2 I] → [n, I]`.

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::{Operands, last},
    ops::ActKind,
};

#[derive(Clone, PartialEq, Debug)]
pub struct Glu {
    pub kind: ActKind,
}

impl OpDef for Glu {
    const NAME: &'static str = "glu";

    fn attrs(&self) -> Attrs {
        Attrs::new().word("kind", self.kind.name())
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Glu { kind: ActKind::from_name(&attrs.word("kind")?)? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.end()?;
        let width = last(x, "x")?;
        if !width.is_multiple_of(2) {
            return Err(format!("x has rows of {width}, expected an even number"));
        }
        Ok(vec![Type::f32(&[x.dims[0], Dim::Fixed(width / 2)])])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        Ok(vec![Val::F32(glu(&x, self.kind))])
    }
}

/// act(first half) · second half, row by row.
pub(super) fn glu(x: &Tensor, kind: ActKind) -> Tensor {
    x.map_rows(x.last() / 2, |row| {
        let (gate, up) = row.split_at(row.len() / 2);
        gate.iter().zip(up).map(|(&g, &u)| (kind.apply(f64::from(g)) * f64::from(u)) as f32).collect()
    })
}
