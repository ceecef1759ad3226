//! `pool %x, %step {kind}`: one row for each sequence. `[N, D] → [B, D]`.

use crate::{
    OpDef, OperandType, Sym, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::Operands,
};

/// What a sequence's row is made of; names as in sentence-transformers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PoolKind {
    /// The mean of its tokens.
    Mean,
    /// Its first token.
    Cls,
    /// Its last token.
    LastToken,
    /// The greatest value of its tokens, element by element.
    Max,
}

impl PoolKind {
    /// All kinds.
    pub const ALL: [PoolKind; 4] =
        [PoolKind::Mean, PoolKind::Cls, PoolKind::LastToken, PoolKind::Max];

    /// The text syntax.
    pub fn name(self) -> &'static str {
        match self {
            PoolKind::Mean => "mean",
            PoolKind::Cls => "cls",
            PoolKind::LastToken => "lasttoken",
            PoolKind::Max => "max",
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Pool {
    pub kind: PoolKind,
}

impl OpDef for Pool {
    const NAME: &'static str = "pool";

    fn attrs(&self) -> Attrs {
        Attrs::new().word("kind", self.kind.name())
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let name = attrs.word("kind")?;
        match PoolKind::ALL.into_iter().find(|k| k.name() == name) {
            Some(kind) => Ok(Pool { kind }),
            None => Err(format!("unknown pooling `{name}`")),
        }
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::f32(&[Sym::B.into(), x.dims[1]])])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, step) = (args.tensor()?, frame.step);
        let mut out = Tensor::zeros(&[step.seqs.len(), x.last()]);
        for (seq, row) in out.data.chunks_exact_mut(x.last().max(1)).enumerate() {
            let tokens = step.range(seq);
            for (c, y) in row.iter_mut().enumerate() {
                let mut of = tokens.clone().map(|t| x.at(t)[c]);
                *y = match self.kind {
                    PoolKind::Mean => {
                        (of.map(f64::from).sum::<f64>() / tokens.len() as f64) as f32
                    }
                    PoolKind::Cls => of.next().unwrap_or(0.0),
                    PoolKind::LastToken => of.next_back().unwrap_or(0.0),
                    PoolKind::Max => of.fold(f32::NEG_INFINITY, f32::max),
                };
            }
        }
        Ok(vec![Val::F32(out)])
    }
}
