//! `repeat %x, %a, %b, … {layers}`: x ← class(x, a, b, …) for every layer in order. `X, … → X`.
//!
//! `layers` lists (class, slot): the class is a function whose first parameter and only result are
//! the carried value; the slot selects the entry of every stacked weight and state that it uses. The
//! value at each layer boundary is what HF calls a hidden state (of an entry's first `repeat`).

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Arg, Args, EvalError, Frame, Val},
    op::Operands,
};
use std::sync::Arc;

#[derive(Clone, PartialEq, Debug)]
pub struct Repeat {
    /// Class and slot of every layer.
    pub layers: Vec<(String, u32)>,
}

impl OpDef for Repeat {
    const NAME: &'static str = "repeat";

    fn attrs(&self) -> Attrs {
        let list = self.layers.iter().map(|(c, s)| AttrValue::Layer(c.clone(), *s)).collect();
        Attrs::new().with("layers", AttrValue::List(list))
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let AttrValue::List(list) = attrs.need("layers")? else {
            return Err("attribute `layers` must be a list of (@class, slot)".into());
        };
        let layers = list.into_iter().map(|v| match v {
            AttrValue::Layer(class, slot) => Ok((class, slot)),
            v => Err(format!("layer {v}, expected (@class, slot)")),
        });
        Ok(Repeat { layers: layers.collect::<Result<_, _>>()? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.value("carried value")?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let mut x = args.value()?;
        let rest: Vec<Arc<Val>> = args
            .rest()
            .filter_map(|a| match a {
                Arg::Val(v) => Some(v),
                Arg::Weight(_) | Arg::State(_) => None,
            })
            .collect();
        let tapped = frame.first_repeat();
        if tapped {
            frame.tap(&x);
        }
        for (class, slot) in &self.layers {
            let mut args = vec![x];
            args.extend(rest.iter().cloned());
            x = frame.call(class, *slot, args)?;
            if tapped {
                frame.tap(&x);
            }
        }
        Ok(vec![Arc::unwrap_or_clone(x)])
    }
}
