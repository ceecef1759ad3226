//! `linear %x, @w[, @bias][, @norm_w[, @norm_b]][, %residual] {…}`: y = x · Wᵀ + bias, and what the
//! passes have fused with it. `[n, K], [M, K] → [n, M]` (`[n, M / 2]` with `glu`).
//!
//! In order: x is normalised over K where `norm` says so; multiplied; the bias (`[M]`) is added; with
//! `act` the activation is applied, with `glu` the first half of the outputs is the gate and the
//! result is act(gate) · up; `residual` (of the result's type) is added last. The operands follow
//! `@w` in this order, each only where its attribute says that it is there.
//!
//! | weights | x |
//! |---|---|
//! | f32, f16 | f32 |
//! | bf16 | f32, bf16 |
//! | block formats | f32, q8_block |
//! | int8 | f32, q8_row, q8_block, q8_pair |
//!
//! Quantised x comes out of `quantize`, which does the norm then.

use crate::{
    DType, Dim, Group, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs},
    eval::{Args, EvalError, Frame, Val, dot},
    op::{Operands, last},
    ops::ActKind,
};

use super::{Norm, glu::glu};

/// Whether x of one element type goes with weights of the other.
pub(super) fn multiplies(x: DType, w: DType) -> bool {
    match (x, w) {
        (DType::F32, _) => true,
        (DType::BF16, w) => w == DType::BF16,
        (DType::Q8(Group::Block), w) => matches!(w, DType::Block(_) | DType::Int8),
        (DType::Q8(Group::Row | Group::Pair), w) => w == DType::Int8,
        (DType::F16 | DType::I32 | DType::Block(_) | DType::Int8, _) => false,
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Linear {
    pub bias: bool,
    pub norm: Option<Norm>,
    pub act: Option<ActKind>,
    pub glu: Option<ActKind>,
    pub residual: bool,
}

impl OpDef for Linear {
    const NAME: &'static str = "linear";

    fn attrs(&self) -> Attrs {
        let word = |k: ActKind| AttrValue::Word(k.name().into());
        Attrs::new()
            .flag("bias", self.bias)
            .with_some("norm", self.norm.map(Norm::attr))
            .with_some("act", self.act.map(word))
            .with_some("glu", self.glu.map(word))
            .flag("residual", self.residual)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let norm = Norm::read(attrs)?;
        let mut act = |key| attrs.opt_word(key)?.map(|w| ActKind::from_name(&w)).transpose();
        let (act, glu) = (act("act")?, act("glu")?);
        if act.is_some() && glu.is_some() {
            return Err("`act` and `glu` exclude each other".into());
        }
        Ok(Linear { bias: attrs.flag("bias")?, norm, act, glu, residual: attrs.flag("residual")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.value("x")?;
        let x = x.tensor().filter(|t| t.dims.len() == 2);
        let x = x.ok_or("operand 1 (x) is no tensor of two extents")?;
        let k = last(x, "x")?;
        let w = o.peek();
        let (m, cols) = o.matrix("w")?;
        if cols != k {
            return Err(format!("x has rows of {k}, w of {cols}"));
        }
        if let Some(OperandType::Weight(w)) = w
            && !multiplies(x.dtype, w.dtype)
        {
            let (x, w) = (x.dtype.name(), w.dtype.name());
            return Err(format!("x of {x} does not go with weights of {w}"));
        }
        if self.norm.is_some() && x.dtype != DType::F32 {
            return Err(format!("x of {} is normalised before it is quantised", x.dtype.name()));
        }
        if self.bias {
            o.weight("bias", &[m])?;
        }
        if let Some(norm) = self.norm {
            norm.infer(&mut o, k)?;
        }
        if self.glu.is_some() && !m.is_multiple_of(2) {
            return Err(format!("glu over {m} outputs, expected an even number"));
        }
        let out = if self.glu.is_some() { m / 2 } else { m };
        let y = Type::f32(&[x.dims[0], Dim::Fixed(out)]);
        if self.residual {
            let r = o.value("residual")?;
            if *r != y {
                return Err(format!("residual is {r}, expected {y}"));
            }
        }
        o.end()?;
        Ok(vec![y])
    }

    fn eval(&self, _: &mut Frame<'_, '_>, mut args: Args) -> Result<Vec<Val>, EvalError> {
        let (x, w) = (args.tensor()?, args.weight()?);
        let bias = if self.bias { Some(args.weight()?) } else { None };
        let x = match self.norm {
            None => x,
            Some(norm) => norm.eval(&x, &mut args)?,
        };
        let bias = |m: usize| bias.as_ref().map_or(0.0, |b| f64::from(b.data[m]));
        let mut y = x.map_rows(w.dims[0], |row| {
            w.rows().enumerate().map(|(m, w)| (dot(row, w) + bias(m)) as f32).collect()
        });
        if let Some(act) = self.act {
            y = y.map(|x| act.apply(f64::from(x)) as f32);
        }
        if let Some(kind) = self.glu {
            y = glu(&y, kind);
        }
        let y = Val::F32(y);
        Ok(vec![if self.residual { y.zip(&*args.value()?, |y, r| y + r)? } else { y }])
    }
}
