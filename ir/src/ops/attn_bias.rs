//! `attn_bias %s, @table, %step {buckets, max_distance, bidirectional}`: adds T5's relative position
//! bias. `[N, H, T], [buckets, H] → [N, H, T]`: s\[i, h, j\] += table\[bucket(j − i), h\].

use crate::{
    OpDef, OperandType, Type,
    attr::{AttrReader, Attrs},
    eval::{Args, EvalError, Frame, Step, Tensor, Val},
    op::Operands,
    ops::RelativeBias,
};

#[derive(Clone, PartialEq, Debug)]
pub struct AttnBias {
    pub bias: RelativeBias,
}

impl OpDef for AttnBias {
    const NAME: &'static str = "attn_bias";

    fn attrs(&self) -> Attrs {
        self.bias.attrs()
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        Ok(AttnBias { bias: RelativeBias::from_attrs(attrs)? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let s = o.f32("scores", 3)?;
        let heads = s.dims[1].fixed().ok_or_else(|| format!("scores are {s}, heads unknown"))?;
        o.weight("table", &[self.bias.buckets, heads])?;
        o.step()?;
        o.end()?;
        Ok(vec![Type::Tensor(s.clone())])
    }

    fn eval(&self, frame: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (mut scores, table) = (args.scores()?, args.weight()?);
        add_relative_bias(frame.step, &self.bias, &table, &mut scores);
        Ok(vec![Val::PerToken(scores)])
    }
}

/// Adds the bias to scores `[H, T]` of every token, by key position − query position.
pub(super) fn add_relative_bias(
    step: &Step,
    bias: &RelativeBias,
    table: &Tensor,
    scores: &mut [Tensor],
) {
    for (&(seq, offset), s) in step.tokens.iter().zip(scores) {
        let keys = s.last();
        // The query's place among the keys, which end with this step's tokens.
        let i = (keys + offset) as i64 - step.seqs[seq].new as i64;
        for (h, row) in s.data.chunks_exact_mut(keys.max(1)).enumerate() {
            for (j, x) in row.iter_mut().enumerate() {
                *x += table.at(bias.bucket(j as i64 - i) as usize)[h];
            }
        }
    }
}
