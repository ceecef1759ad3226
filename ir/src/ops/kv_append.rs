//! `kv_append @kv, %k, %v, %step`: writes this step's keys and values behind the past ones.
//! `[N, H, Dk], [N, H, Dv] → kv_view<H, Dk, Dv>`. The only op with an effect.

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct KvAppend;

impl OpDef for KvAppend {
    const NAME: &'static str = "kv_append";

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn from_attrs(_: &mut AttrReader) -> Result<Self, String> {
        Ok(KvAppend)
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.state("kv")?;
        let (k, v) = (o.f32("k", 3)?, o.f32("v", 3)?);
        o.step()?;
        o.end()?;
        for (what, t, dim) in [("k", k, s.k_dim), ("v", v, s.v_dim)] {
            if t.dims[1..] != [s.heads.into(), dim.into()] {
                return Err(format!("{what} is {t}, expected {} heads of {dim}", s.heads));
            }
        }
        Ok(vec![Type::KvView { heads: s.heads, k_dim: s.k_dim, v_dim: s.v_dim }])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (state, k, v) = (args.state()?, args.tensor()?, args.tensor()?);
        let slot = frame.append(state, &k, &v)?;
        Ok(vec![Val::View { state, slot, source: false }])
    }
}
