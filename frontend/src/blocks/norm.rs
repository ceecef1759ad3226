//! Normalisations.
//!
//! In: rows `[…, D]`. Out: the same shape. RMS norms have a scale `[D]` (Gemma's adds one to it), layer norms a
//! scale and a shift.
//!
//! Not here: where a norm stands in a layer (`decoder`, `encoder`).

use llmc_ir::ValueId;
use llmc_ir::ops::{LayerNorm, RmsNorm};

use super::Scope;
use crate::error::Result;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// x / √(mean(x²) + eps) · (offset + w)
    Rms {
        /// Added to the mean.
        eps: f32,
        /// 1 for Gemma, else 0.
        offset: f32,
    },
    /// (x − mean) / √(var + eps) · w + b
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

impl Norm {
    /// RMS norm.
    pub fn rms(eps: f64) -> Self {
        Self::Rms {
            eps: eps as f32,
            offset: 0.0,
        }
    }

    /// Gemma's RMS norm, whose weights are stored less one (but not everywhere: [`Scope::norm_offset`]).
    pub fn rms_one_plus(eps: f64) -> Self {
        Self::Rms {
            eps: eps as f32,
            offset: 1.0,
        }
    }

    /// Layer norm.
    pub fn layer(eps: f64) -> Self {
        Self::Layer { eps: eps as f32 }
    }

    /// `x: […, width]` normalised with `{tensor}.weight` and perhaps `{tensor}.bias`.
    pub fn apply(
        self,
        scope: &mut Scope,
        x: ValueId,
        name: &str,
        tensor: &str,
        (width, why): (u32, &str),
    ) -> Result<ValueId> {
        let why = format!("length = {why} ({width})");
        match self {
            Self::Rms { eps, offset } => {
                let offset = scope.norm_offset(offset);
                let w = scope.vector(name, &format!("{tensor}.weight"), width, why, 1.0 - offset);
                scope.op("h", RmsNorm { eps, offset }, &[x.into(), w.into()])
            }
            Self::Layer { eps } => {
                let w = scope.vector(
                    &format!("{name}_w"),
                    &format!("{tensor}.weight"),
                    width,
                    why.clone(),
                    1.0,
                );
                let b = scope.vector(
                    &format!("{name}_b"),
                    &format!("{tensor}.bias"),
                    width,
                    why,
                    0.0,
                );
                scope.op("h", LayerNorm { eps }, &[x.into(), w.into(), b.into()])
            }
        }
    }
}
