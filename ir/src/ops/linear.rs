//! `linear %x, @w[, @bias][, @norm_w[, @norm_b]][, %residual] {…}`: y = x · Wᵀ + bias, and what the
//! passes have fused with it. `[n, K], [M, K] → [n, M]` (`[n, M / 2]` with `glu`).
//!
//! In order: x is normalised over K where `norm` says so; multiplied; the bias (`[M]`) is added; with
//! `act` the activation is applied, with `glu` the first half of the outputs is the gate and the
//! result is act(gate) · up; `residual` (of the result's type) is added last. The operands follow
//! `@w` in this order, each only where its attribute says that it is there.

use crate::{
    Dim, OpDef, OperandType, Type,
    attr::{AttrReader, AttrValue, Attrs, short},
    eval::{Args, EvalError, Frame, Val, dot},
    op::{Operands, last},
    ops::ActKind,
};

use super::{glu::glu, layer_norm::layer_norm, rms_norm::rms_norm};

/// A normalisation of the rows that a linear reads.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Norm {
    /// x / rms(x) · (offset + w); operand: w `[K]`.
    Rms { eps: f32, offset: f32 },
    /// (x − mean) / std · w + b; operands: w `[K]`, b `[K]`.
    Layer { eps: f32 },
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
        let norm = self.norm.map(|n| match n {
            Norm::Rms { eps, offset } => AttrValue::Struct(
                "rms".into(),
                Attrs::new()
                    .float("eps", eps)
                    .with_some("offset", (offset != 0.0).then(|| AttrValue::Float(short(offset)))),
            ),
            Norm::Layer { eps } => AttrValue::Struct("layer".into(), Attrs::new().float("eps", eps)),
        });
        let word = |k: ActKind| AttrValue::Word(k.name().into());
        Attrs::new()
            .flag("bias", self.bias)
            .with_some("norm", norm)
            .with_some("act", self.act.map(word))
            .with_some("glu", self.glu.map(word))
            .flag("residual", self.residual)
    }

    fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let norm = match attrs.opt_struct("norm")? {
            None => None,
            Some((name, mut a)) => {
                let eps = a.float("eps")?;
                let norm = match name.as_str() {
                    "rms" => Norm::Rms { eps, offset: a.opt_float("offset")?.unwrap_or(0.0) },
                    "layer" => Norm::Layer { eps },
                    other => return Err(format!("unknown norm `{other}`")),
                };
                a.finish()?;
                Some(norm)
            }
        };
        let mut act = |key| attrs.opt_word(key)?.map(|w| ActKind::from_name(&w)).transpose();
        let (act, glu) = (act("act")?, act("glu")?);
        if act.is_some() && glu.is_some() {
            return Err("`act` and `glu` exclude each other".into());
        }
        Ok(Linear { bias: attrs.flag("bias")?, norm, act, glu, residual: attrs.flag("residual")? })
    }

    fn infer(&self, operands: &[OperandType]) -> Result<Vec<Type>, String> {
        let mut o = Operands::new(operands);
        let x = o.f32("x", 2)?;
        let k = last(x, "x")?;
        let (m, cols) = o.matrix("w")?;
        if cols != k {
            return Err(format!("x has rows of {k}, w of {cols}"));
        }
        if self.bias {
            o.weight("bias", &[m])?;
        }
        match self.norm {
            None => {}
            Some(Norm::Rms { .. }) => {
                o.weight("norm_w", &[k])?;
            }
            Some(Norm::Layer { .. }) => {
                o.weight("norm_w", &[k])?;
                o.weight("norm_b", &[k])?;
            }
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
            Some(Norm::Rms { eps, offset }) => rms_norm(&x, &*args.weight()?, eps, offset),
            Some(Norm::Layer { eps }) => {
                let (w, b) = (args.weight()?, args.weight()?);
                layer_norm(&x, &w, &b, eps)
            }
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
