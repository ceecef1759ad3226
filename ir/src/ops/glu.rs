//! `glu %x {kind}`: act(first half) · second half. `[n, 2 I] → [n, I]`.

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
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
}
