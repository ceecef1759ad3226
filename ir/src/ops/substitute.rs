//! `substitute %x, %y, %ids {id}` or `substitute %x, @y, %ids {id}`: rows of x, save those whose id is
//! `id`, which are y's. `[N, D], [N, D] or weight [D], i32[N] → [N, D]`.
//!
//! With the positions as ids and a weight it puts a class token before the patches of a picture; with
//! token ids and a value, soft prompts in the place of marker tokens.

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Arg, Args, EvalError, Frame, Tensor, Val},
    op::{Operands, last},
};

#[derive(Clone, PartialEq, Debug)]
pub struct Substitute {
    pub id: u32,
}

impl OpDef for Substitute {
    const NAME: &'static str = "substitute";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("id", self.id)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(Substitute { id: attrs.u32("id")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        match o.peek() {
            Some(OperandType::Weight(_)) => {
                o.weight("y", &[last(x, "x")?])?;
            }
            _ => {
                let y = o.f32("y", 2)?;
                if y != x {
                    return Err(format!("y is {y}, expected {x}"));
                }
            }
        }
        let ids = o.tensor("ids", DType::I32)?;
        o.end()?;
        match ids.dims.as_slice() {
            [n] if *n == x.dims[0] => Ok(vec![Type::Tensor(x.clone())]),
            _ => Err(format!("ids are {ids}, expected one for each row of x: {x}")),
        }
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let mut x = args.tensor()?;
        let y = args.value_or_weight()?;
        let ids = args.ids()?;
        let width = x.last();
        let rows = x.data.chunks_exact_mut(width.max(1));
        for (n, (row, &id)) in rows.zip(&ids).enumerate() {
            if u32::try_from(id) == Ok(self.id) {
                row.copy_from_slice(match &y {
                    Arg::Weight(w) => &w.data,
                    Arg::Val(v) => match &**v {
                        Val::F32(Tensor { data, .. }) => &data[n * width..][..width],
                        _ => return Err("y is no dense tensor".to_string().into()),
                    },
                    Arg::State(_) => return Err("y is a state".to_string().into()),
                });
            }
        }
        Ok(vec![Val::F32(x)])
    }
}
