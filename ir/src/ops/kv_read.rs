//! `kv_read %view, %step {n_rep}`: all keys and values of every sequence, each head repeated.
//! `kv_view<H, Dk, Dv> → [B, T, H · n_rep, Dk], [B, T, H · n_rep, Dv]`, ragged in T.
//!
//! Head h of the result is head h / n_rep of the state (HF `repeat_kv`).

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

#[derive(Clone, PartialEq, Debug)]
pub struct KvRead {
    pub n_rep: u32,
}

impl OpDef for KvRead {
    const NAME: &'static str = "kv_read";

    fn attrs(&self) -> Attrs {
        Attrs::new().int("n_rep", self.n_rep)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(KvRead { n_rep: attrs.u32("n_rep")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let view = o.value("view")?;
        o.step()?;
        o.end()?;
        let Type::KvView { heads, k_dim, v_dim } = *view else {
            return Err(format!("view is {view}, expected a kv_view"));
        };
        let heads = heads
            .checked_mul(self.n_rep)
            .filter(|&h| h > 0)
            .ok_or_else(|| format!("n_rep is {}, expected at least 1", self.n_rep))?;
        let of = |dim: u32| Type::f32(&[Sym::B.into(), Sym::T.into(), heads.into(), dim.into()]);
        Ok(vec![of(k_dim), of(v_dim)])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let view = args.value()?;
        let Val::View { .. } = *view else {
            return Err("expected a kv_view".to_string().into());
        };
        let (keys, values) = frame.read(&view)?;
        let n = self.n_rep as usize;
        let repeat = |t: &Tensor| {
            let mut dims = t.dims.clone();
            dims[1] *= n;
            let heads = t.data.chunks_exact(t.last().max(1));
            Tensor { dims, data: heads.flat_map(|h| h.repeat(n)).collect() }
        };
        let all = |l: &[Tensor]| Val::PerSeq(l.iter().map(repeat).collect());
        Ok(vec![all(&keys), all(&values)])
    }
}
