//! A normalisation that an op applies to the rows that it reads: an attribute of `linear` and
//! `quantize`, with weights among their operands. The evaluation is that of `rms_norm` and `layer_norm`.

use crate::{
    attr::{AttrReader, AttrValue, Attrs, short},
    eval::{Args, Tensor},
    op::Operands,
};

use super::{layer_norm::layer_norm, rms_norm::rms_norm};

/// A normalisation of rows of K.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Norm {
    /// x / rms(x) · (offset + w); operand: w `[K]`.
    Rms { eps: f32, offset: f32 },
    /// (x − mean) / std · w + b; operands: w `[K]`, b `[K]`.
    Layer { eps: f32 },
}

impl Norm {
    /// How many weights it reads.
    pub fn weights(self) -> usize {
        match self {
            Norm::Rms { .. } => 1,
            Norm::Layer { .. } => 2,
        }
    }

    pub(super) fn attr(self) -> AttrValue {
        match self {
            Norm::Rms { eps, offset } => {
                let offset = (offset != 0.0).then(|| AttrValue::Float(short(offset)));
                let attrs = Attrs::new().float("eps", eps).with_some("offset", offset);
                AttrValue::Struct("rms".into(), attrs)
            }
            Norm::Layer { eps } => {
                AttrValue::Struct("layer".into(), Attrs::new().float("eps", eps))
            }
        }
    }

    /// Reads the attribute `norm`, where it is there.
    pub(super) fn read(attrs: &mut AttrReader) -> Result<Option<Norm>, String> {
        let Some((name, mut a)) = attrs.opt_struct("norm")? else {
            return Ok(None);
        };
        let eps = a.float("eps")?;
        let norm = match name.as_str() {
            "rms" => Norm::Rms {
                eps,
                offset: a.opt_float("offset")?.unwrap_or(0.0),
            },
            "layer" => Norm::Layer { eps },
            other => return Err(format!("unknown norm `{other}`")),
        };
        a.finish()?;
        Ok(Some(norm))
    }

    /// Takes the weights, for rows of `k`.
    pub(super) fn infer(self, o: &mut Operands<'_>, k: u32) -> Result<(), String> {
        o.weight("norm_w", &[k])?;
        if let Norm::Layer { .. } = self {
            o.weight("norm_b", &[k])?;
        }
        Ok(())
    }

    /// The rows of `x` normalised; takes the weights.
    pub(super) fn eval(self, x: &Tensor, args: &mut Args) -> Result<Tensor, String> {
        let w = args.weight()?;
        Ok(match self {
            Norm::Rms { eps, offset } => rms_norm(x, &w, eps, offset),
            Norm::Layer { eps } => layer_norm(x, &w, &*args.weight()?, eps),
        })
    }
}
