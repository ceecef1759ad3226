//! `split %x {sizes}`: consecutive column ranges. `[n, Σ sizes] → [n, sizes.0], [n, sizes.1], …`

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct Split {
    pub sizes: Vec<u32>,
}

impl OpDef for Split {
    const NAME: &'static str = "split";

    fn attrs(&self) -> Attrs {
        let sizes = self.sizes.iter().map(|&s| AttrValue::Int(s.into())).collect();
        Attrs::new().with("sizes", AttrValue::List(sizes))
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Split { sizes: attrs.u32_list("sizes")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.end()?;
        let width = last(x, "x")?;
        let sum = self.sizes.iter().try_fold(0u32, |a, &s| a.checked_add(s));
        if sum != Some(width) || self.sizes.contains(&0) {
            return Err(format!("sizes {:?} do not make up rows of {width}", self.sizes));
        }
        Ok(self.sizes.iter().map(|&s| Type::f32(&[x.dims[0], Dim::Fixed(s)])).collect())
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let x = args.tensor()?;
        let mut from = 0;
        let mut out = Vec::new();
        for &size in &self.sizes {
            let to = from + size as usize;
            out.push(Val::F32(x.map_rows(size as usize, |row| row[from..to].to_vec())));
            from = to;
        }
        Ok(out)
    }
}
