//! `kv_source @kv, %step`: the keys and values of every sequence's source, as another function's
//! `kv_append` has left them. `→ kv_view<H, Dk, Dv>`.
//!
//! A source is read whole by the entry that writes the state, once; sequences read it as often as
//! they like, several of them the same one. What its view shows has as many keys as the source has
//! tokens, whatever the sequence's own length.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct KvSource;

impl OpDef for KvSource {
    const NAME: &'static str = "kv_source";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(KvSource)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.state("kv")?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::KvView { heads: s.heads, k_dim: s.k_dim, v_dim: s.v_dim }])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let state = args.state()?;
        let slot = frame.slot_of(state)?;
        Ok(vec![Val::View { state, slot, source: true }])
    }
}
