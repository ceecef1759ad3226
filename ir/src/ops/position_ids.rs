//! `position_ids %ids, %step {pad}`: RoBERTa's positions. `i32[N] → i32[N]`.
//!
//! A token other than `pad` stands at pad + (count of such tokens of its sequence up to and with
//! it); a `pad` token stands at `pad` (HF `create_position_ids_from_input_ids`).

use crate::{
    DType, OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct PositionIds {
    pub pad: u32,
}

impl OpDef for PositionIds {
    const NAME: &'static str = "position_ids";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("pad", self.pad)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(PositionIds { pad: attrs.u32("pad")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let ids = o.tensor("ids", DType::I32)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(ids.clone())])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (ids, pad) = (args.ids()?, self.pad as i32);
        let mut out = Vec::with_capacity(ids.len());
        for seq in 0..frame.step.seqs.len() {
            let mut count = 0;
            for &id in &ids[frame.step.range(seq)] {
                count += i32::from(id != pad);
                out.push(if id == pad { pad } else { pad.saturating_add(count) });
            }
        }
        Ok(vec![Val::I32(out)])
    }
}
