//! Rotary position schemes: the inverse frequencies and the factor on cos and sin.
//!
//! Formulas: HF `modeling_rope_utils` (linear, llama3, yarn); computed in f32 wherever HF
//! computes in f32.

use crate::attr::{AttrReader, AttrValue, Attrs, short};

/// How positions beyond the trained context are scaled.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RopeScaling {
    /// As trained.
    Default,
    /// Positions divided by `factor`.
    Linear { factor: f32 },
    /// Llama 3.1: long wavelengths divided by `factor`, a smooth band between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: u32,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        factor: f32,
        beta_fast: f32,
        beta_slow: f32,
        original_context: u32,
        truncate: bool,
        /// Factor on cos and sin.
        attention_factor: f32,
    },
}

/// Inverse frequencies `[dim / 2]` for rotary positions over `dim` elements of a head.
pub fn inv_freq(theta: f64, dim: u32, scaling: &RopeScaling) -> Vec<f32> {
    let half = dim / 2;
    // f32 at every step that HF takes in f32: at long positions the difference shows.
    let period = |i: u32| theta.powf(f64::from((2 * i) as f32 / dim as f32)) as f32;
    (0..half)
        .map(|i| {
            let f = 1.0 / period(i);
            match *scaling {
                RopeScaling::Default => f,
                RopeScaling::Linear { factor } => f / factor,
                RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_context,
                } => {
                    let context = original_context as f32;
                    let wavelength = 2.0 * std::f32::consts::PI / f;
                    if wavelength < context / high_freq_factor {
                        f
                    } else if wavelength > context / low_freq_factor {
                        f / factor
                    } else {
                        let smooth = (context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                }
                RopeScaling::Yarn {
                    factor,
                    beta_fast,
                    beta_slow,
                    original_context,
                    truncate,
                    ..
                } => {
                    let (low, high) =
                        yarn_range(theta, dim, beta_fast, beta_slow, original_context, truncate);
                    let ramp = ((f64::from(i) - low) / (high - low)).clamp(0.0, 1.0) as f32;
                    1.0 / (factor * period(i)) * ramp + f * (1.0 - ramp)
                }
            }
        })
        .collect()
}

/// First and last pair of the band in which YaRN interpolates.
fn yarn_range(
    theta: f64,
    dim: u32,
    beta_fast: f32,
    beta_slow: f32,
    original_context: u32,
    truncate: bool,
) -> (f64, f64) {
    let pair_of = |rotations: f32| {
        let turns =
            f64::from(original_context) / (f64::from(rotations) * 2.0 * std::f64::consts::PI);
        f64::from(dim) * turns.ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(f64::from(dim) - 1.0));
    (low, if low == high { high + 0.001 } else { high })
}

impl RopeScaling {
    /// Factor on cos and sin.
    pub fn attention_factor(&self) -> f32 {
        match self {
            RopeScaling::Yarn {
                attention_factor, ..
            } => *attention_factor,
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        }
    }

    /// As an attribute; None for the default.
    pub fn to_attr(&self) -> Option<AttrValue> {
        let float = |a: Attrs, k: &str, v: f32| a.with(k, AttrValue::Float(short(v)));
        let (name, attrs) = match *self {
            RopeScaling::Default => return None,
            RopeScaling::Linear { factor } => ("linear", float(Attrs::new(), "factor", factor)),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                let a = float(Attrs::new(), "factor", factor);
                let a = float(a, "low_freq_factor", low_freq_factor);
                let a = float(a, "high_freq_factor", high_freq_factor);
                ("llama3", a.int("original_context", original_context))
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_context,
                truncate,
                attention_factor,
            } => {
                let a = float(Attrs::new(), "factor", factor);
                let a = float(float(a, "beta_fast", beta_fast), "beta_slow", beta_slow);
                let a = a
                    .int("original_context", original_context)
                    .flag("truncate", truncate);
                ("yarn", float(a, "attention_factor", attention_factor))
            }
        };
        Some(AttrValue::Struct(name.to_string(), attrs))
    }

    /// Reads the attribute `scaling`.
    pub fn from_attrs(attrs: &mut AttrReader) -> Result<Self, String> {
        let Some((name, mut a)) = attrs.opt_struct("scaling")? else {
            return Ok(RopeScaling::Default);
        };
        let scaling = match name.as_str() {
            "linear" => RopeScaling::Linear {
                factor: a.float("factor")?,
            },
            "llama3" => RopeScaling::Llama3 {
                factor: a.float("factor")?,
                low_freq_factor: a.float("low_freq_factor")?,
                high_freq_factor: a.float("high_freq_factor")?,
                original_context: a.u32("original_context")?,
            },
            "yarn" => RopeScaling::Yarn {
                factor: a.float("factor")?,
                beta_fast: a.float("beta_fast")?,
                beta_slow: a.float("beta_slow")?,
                original_context: a.u32("original_context")?,
                truncate: a.flag("truncate")?,
                attention_factor: a.float("attention_factor")?,
            },
            other => return Err(format!("unknown rope scaling `{other}`")),
        };
        a.finish()?;
        Ok(scaling)
    }
}
