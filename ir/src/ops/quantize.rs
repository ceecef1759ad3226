//! `quantize %x[, @norm_w[, @norm_b]] {to, norm}`: x as a linear's product reads it in fewer bits.
//! `f32[n, K] → to[n, K]`, where `to` is `q8_block`, `q8_row`, `q8_pair` or `bf16`.
//!
//! x is normalised over K first where `norm` says so. The codes of the 8-bit types and their scales:
//! [`crate::quant::activation`]; bf16 is rounded to nearest even. The evaluator's value is what the
//! result stands for, in f32.

use crate::{
    DType, Dim, Group, OpDef, OperandType, TensorType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Args, EvalError, Frame, Tensor, Val},
    op::{Operands, last},
    quant::{activation, rows::round_rows},
};

use super::Norm;

#[derive(Clone, PartialEq, Debug)]
pub struct Quantize {
    /// Element type of the result: one of [`Quantize::TYPES`].
    pub to: DType,
    pub norm: Option<Norm>,
}

impl Quantize {
    /// What x may become.
    pub const TYPES: [DType; 4] = [
        DType::BF16,
        DType::Q8(Group::Block),
        DType::Q8(Group::Row),
        DType::Q8(Group::Pair),
    ];
}

impl OpDef for Quantize {
    const NAME: &'static str = "quantize";

    fn attrs(&self) -> Attrs {
        Attrs::new().word("to", self.to.name()).with_some("norm", self.norm.map(Norm::attr))
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let to = match attrs.need("to")? {
            AttrValue::Word(name) => DType::from_name(&name).ok_or(name),
            other => Err(other.to_string()),
        };
        let to = to.map_err(|found| format!("`to` is {found}, expected an element type"))?;
        Ok(Quantize { to, norm: Norm::read(attrs)? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        if !Self::TYPES.contains(&self.to) {
            let types: Vec<&str> = Self::TYPES.iter().map(|t| t.name()).collect();
            return Err(format!("`to` is {}, expected one of {}", self.to.name(), types.join(", ")));
        }
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        let k = last(x, "x")?;
        if let Some(norm) = self.norm {
            norm.infer(&mut o, k)?;
        }
        o.end()?;
        if !k.is_multiple_of(self.to.block_len()) {
            let block = self.to.block_len();
            return Err(format!("x has rows of {k}, expected whole blocks of {block}"));
        }
        let dims = [x.dims[0], Dim::Fixed(k)];
        Ok(vec![Type::Tensor(TensorType::new(self.to, dims))])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let mut x = args.tensor()?;
        if let Some(norm) = self.norm {
            x = norm.eval(&x, &mut args)?;
        }
        Ok(vec![Val::F32(quantized(x, self.to)?)])
    }
}

/// What rows stand for once they are of type `to`.
pub(super) fn quantized(mut x: Tensor, to: DType) -> Result<Tensor, String> {
    let k = x.last();
    match to {
        DType::Q8(group) => Ok(x.map_rows(k, |row| activation::round_trip(row, group))),
        to => {
            x.data = round_rows(to, k, x.data)?;
            Ok(x)
        }
    }
}
